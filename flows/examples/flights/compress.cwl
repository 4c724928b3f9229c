cwlVersion: v1.2
class: CommandLineTool
label: Compress a file
doc: Compresses a file with gzip, without its name and time, so that equal files stay equal.

baseCommand: [gzip, --no-name, --best, --stdout]

inputs:
  part:
    type: File
    inputBinding: {}

stdout: $(inputs.part.basename).gz

outputs:
  compressed: stdout
