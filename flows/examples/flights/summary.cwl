cwlVersion: v1.2
class: ExpressionTool
label: Sum up
doc: Puts the totals of a run into one record. The ratio is of the compressed to all bytes.

requirements:
  InlineJavascriptRequirement: {}

inputs:
  files: File[]
  parts: File[]
  bytes: long
  compressed_bytes: long

outputs:
  summary:
    type:
      type: record
      fields: {files: int, parts: int, bytes: long, compressed_bytes: long, ratio: double}

expression: |
  ${
    return {
      summary: {
        files: inputs.files.length,
        parts: inputs.parts.length,
        bytes: inputs.bytes,
        compressed_bytes: inputs.compressed_bytes,
        ratio: Math.round(1000 * inputs.compressed_bytes / inputs.bytes) / 1000
      }
    };
  }
