cwlVersion: v1.2
class: Workflow
label: Say words, each in a job of its own

requirements:
  ScatterFeatureRequirement: {}

inputs:
  words: string[]

steps:
  say:
    scatter: word
    in: {word: words}
    out: [said]
    run:
      class: CommandLineTool
      inputs: {word: {type: string, inputBinding: {}}}
      baseCommand: echo
      stdout: said.txt
      outputs: {said: stdout}
  join:
    in: {files: say/said}
    out: [joined]
    run:
      class: CommandLineTool
      inputs: {files: {type: 'File[]', inputBinding: {}}}
      baseCommand: cat
      stdout: joined.txt
      outputs: {joined: stdout}

outputs:
  joined: {type: File, outputSource: join/joined}
