cwlVersion: v1.2
class: CommandLineTool
label: Split a file
doc: Splits a file into NAME.00, NAME.01 and so on. An empty file has no parts.

baseCommand: [split, --numeric-suffixes]

inputs:
  part_size:
    type: int
    inputBinding: {prefix: --bytes=, separate: false}
  file:
    type: File
    inputBinding: {position: 1}
  name:
    type: string
    inputBinding: {position: 2, valueFrom: $(self).}

outputs:
  parts:
    type: File[]
    outputBinding: {glob: "*"}
