"""What `flows/cwl.py` needs beside the kernel: loading, walking and running CWL with cwltool."""
