"""Notebooks on real kernels: parameters, result, HTML, failures, and the file that is kept."""

import json
import re
import signal
import subprocess
import sys

import nbformat
import pytest

from blocks.errors import JobFailed, PenstockError
from flows.notebook import notebook_job

FIGURE = """
import base64
from IPython.display import Image
Image(base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
                       "WjR9awAAAABJRU5ErkJggg=="))
"""


def write(path, *cells: str, parameters: str = "") -> str:
    """A notebook with these code cells, the first tagged as its parameters."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    if parameters:
        tagged = nbformat.v4.new_code_cell(parameters)
        tagged.metadata["tags"] = ["parameters"]
        notebook.cells.append(tagged)
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, path)
    return str(path)


RESULT = """
from IPython.display import display
display({"application/vnd.penstock.result+json": {"twice": twice}}, raw=True)
"""


def test_a_notebook_runs_with_its_parameters_and_renders(installation, tmp_path):
    source = write(
        tmp_path / "twice.ipynb",
        "twice = 2 * a; print('a =', a, 'and twice =', twice)",
        FIGURE,
        RESULT,
        parameters="a: int = 1  # a number",
    )
    before = (tmp_path / "twice.ipynb").read_bytes()
    out = tmp_path / "out"
    done = installation.run(
        "notebook", {"notebook": source, "parameters": {"a": 21}, "output_folder": str(out)}
    )
    assert done.code == 0, done.out + done.err
    heard = installation.heard(installation.last["flow_run_id"])
    (results,) = [h.payload["results"] for h in heard if h.route == "results"]
    assert results == {
        "notebook": str(out / "twice.ipynb"),
        "html": str(out / "twice.html"),
        "result": {"twice": 42},
    }
    executed = nbformat.read(out / "twice.ipynb", as_version=4)
    assert executed.metadata.papermill["parameters"] == {"a": 21}
    assert {c.metadata.papermill["status"] for c in executed.cells} == {"completed"}
    html = (out / "twice.html").read_text()
    assert "a = 21 and twice = 42" in html
    assert "data:image/png;base64" in html
    assert (tmp_path / "twice.ipynb").read_bytes() == before, "the source is never overwritten"


def test_a_failing_cell_is_named_and_the_notebook_kept(api, tmp_path):
    source = write(tmp_path / "bad.ipynb", "x = 1", "raise ValueError('no luck')", "y = 2")
    with pytest.raises(JobFailed, match="exited with 1") as failed:
        notebook_job(source, output_folder=str(tmp_path / "out"))
    assert failed.value.tail[-1] == "cell 2 raised ValueError: no luck"
    kept = nbformat.read(tmp_path / "out" / "bad.ipynb", as_version=4)
    code = [c for c in kept.cells if c.cell_type == "code"]
    states = [c.metadata.papermill["status"] for c in code if c.source in ("x = 1", "y = 2")]
    assert states == ["completed", "pending"]
    assert "running" not in json.dumps(kept)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"notebook": "no-such.ipynb"}, "notebook 'no-such.ipynb' is no file"),
        ({"parameters": {"b": 1}}, "twice.ipynb has no parameter b; it has a"),
        ({"output_folder": "."}, "holds the notebook itself"),
        ({"config": "mine"}, "no NotebookConfig block is called 'mine'"),
    ],
)
def test_bad_input_is_one_clear_error(api, tmp_path, parameters, words):
    source = write(tmp_path / "twice.ipynb", "a", parameters="a = 1")
    given = {"notebook": source, **parameters}
    if given.get("output_folder") == ".":
        given["output_folder"] = str(tmp_path)
    with pytest.raises(PenstockError, match=re.escape(words)):
        notebook_job(**given)


def test_a_notebook_that_is_stopped_is_saved_as_failed(tmp_path):
    source = write(tmp_path / "long.ipynb", "x = 1", "import time; time.sleep(600)", "y = 2")
    spec = {
        "notebook": source,
        "parameters": {},
        "kernel": None,
        "output": str(tmp_path / "out.ipynb"),
        "html": None,
        "hide_input": False,
        "cell_timeout": None,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    program = subprocess.Popen(
        [sys.executable, "-m", "flows._notebook.execute", str(tmp_path / "spec.json")]
    )
    progress = tmp_path / "progress.jsonl"
    # One line when a cell begins and one when it is done: the third is of the cell that sleeps.
    while not (progress.exists() and progress.read_text().count("\n") == 3):
        assert program.poll() is None
    program.send_signal(signal.SIGTERM)
    assert program.wait(timeout=20) == 143
    kept = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    states = [c.metadata.papermill["status"] for c in kept.cells]
    assert states == ["completed", "failed", "pending"]
