cwlVersion: v1.2
class: ExpressionTool
label: Gather parts
doc: Makes one list of the parts of all files, in the order of the files.

requirements:
  InlineJavascriptRequirement: {}

inputs:
  parts:
    type: {type: array, items: {type: array, items: File}}

outputs:
  all: File[]

expression: |
  ${
    var all = [].concat.apply([], inputs.parts);
    if (all.length === 0) {
      throw new Error("there is nothing to pack: no files, or only empty ones");
    }
    return {all: all};
  }
