cwlVersion: v1.2
class: Workflow
label: Pack the result files
doc: >-
  Splits result files into parts, compresses each part, and adds a manifest of checksums, tables of
  sizes and a summary. The same files give the same bytes, in the same order.

requirements:
  MultipleInputFeatureRequirement: {}
  ScatterFeatureRequirement: {}

inputs:
  files:
    type: File[]
    label: Result files
    doc: Any files, whose names may be equal. A part is called NUMBER-NAME.PART.
  part_size:
    type: int
    default: 4096
    label: Part size
    doc: Bytes of a part. Only the last part of a file is smaller.

steps:
  name:
    label: Name the files apart
    run: name.cwl
    in: {files: files}
    out: [names]
  split:
    label: Split each file
    run: split.cwl
    scatter: [file, name]
    scatterMethod: dotproduct
    in: {file: files, name: name/names, part_size: part_size}
    out: [parts]
  gather:
    label: Gather the parts
    run: gather.cwl
    in: {parts: split/parts}
    out: [all]
  compress:
    label: Compress each part
    run: compress.cwl
    scatter: part
    in: {part: gather/all}
    out: [compressed]
  checksum:
    label: Checksum the compressed parts
    run: checksum.cwl
    in: {files: compress/compressed}
    out: [manifest]
  count:
    label: Count the bytes of the parts
    run: count.cwl
    in: {files: gather/all, table_name: {default: parts.tsv}}
    out: [table, bytes]
  count_compressed:
    label: Count the bytes of the compressed parts
    run: count.cwl
    in: {files: compress/compressed, table_name: {default: compressed.tsv}}
    out: [table, bytes]
  sum_up:
    label: Sum up
    run: summary.cwl
    in:
      files: files
      parts: gather/all
      bytes: count/bytes
      compressed_bytes: count_compressed/bytes
    out: [summary]

outputs:
  compressed:
    type: File[]
    label: Compressed parts
    outputSource: compress/compressed
  manifest:
    type: File
    label: Manifest
    doc: For `sha256sum --check` in a folder with the compressed parts.
    outputSource: checksum/manifest
  counts:
    type: File[]
    label: Bytes of each part, before and after compression
    outputSource: [count/table, count_compressed/table]
  summary:
    type:
      type: record
      fields: {files: int, parts: int, bytes: long, compressed_bytes: long, ratio: double}
    label: Summary
    outputSource: sum_up/summary
