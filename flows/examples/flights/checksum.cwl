cwlVersion: v1.2
class: CommandLineTool
label: Checksum files
doc: Writes the SHA-256 checksum and the base name of each file, in the order of the files.

requirements:
  InitialWorkDirRequirement:
    listing: $(inputs.files)

baseCommand: [sha256sum, --]

inputs:
  files:
    type:
      type: array
      items: File
      inputBinding: {valueFrom: $(self.basename)}

stdout: manifest.sha256

outputs:
  manifest: stdout
