"""What `flows/spark.py` needs beside the kernel: a Java, and Spark's event log."""
