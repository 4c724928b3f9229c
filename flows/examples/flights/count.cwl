cwlVersion: v1.2
class: CommandLineTool
label: Count bytes
doc: Writes a table of the bytes and the base name of each file, and adds the bytes up.

requirements:
  InlineJavascriptRequirement: {}
  InitialWorkDirRequirement:
    listing: $(inputs.files)

baseCommand: [stat, --dereference, '--printf=%s\t%n\n', --]

inputs:
  files:
    type:
      type: array
      items: File
      inputBinding: {valueFrom: $(self.basename)}
  table_name: string

stdout: $(inputs.table_name)

outputs:
  table: stdout
  bytes:
    type: long
    outputBinding:
      glob: $(inputs.table_name)
      loadContents: true
      outputEval: |
        ${
          return self[0].contents.trim().split("\n").reduce(function (sum, line) {
            return sum + parseInt(line, 10);
          }, 0);
        }
