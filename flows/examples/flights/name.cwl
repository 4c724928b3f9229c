cwlVersion: v1.2
class: ExpressionTool
label: Name files apart
doc: Puts a file's number before its name, so that files of the same name stay apart.

requirements:
  InlineJavascriptRequirement: {}

inputs:
  files: File[]

outputs:
  names: string[]

expression: |
  ${
    var digits = String(inputs.files.length - 1).length;
    return {
      names: inputs.files.map(function (file, number) {
        return ("000000000" + number).slice(-digits) + "-" + file.basename;
      })
    };
  }
