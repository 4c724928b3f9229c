"""Execute one notebook: `python -m flows._notebook.execute SPEC`.

    SPEC (JSON) ──► kernel ──► output notebook, HTML report, progress lines, result (all files)

Beside the spec appear `progress.jsonl` (a line {"done", "cells"} when a cell begins and when it
ends) and, when the notebook published one, `result.json`. Exit codes: 0 done, 1 a cell failed, 2 a
bad spec.
"""

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError, JobFailed

PROGRESS, RESULT = "progress.jsonl", "result.json"
RESULT_TYPE = "application/vnd.penstock.result+json"


def execute(spec_path: Path) -> None:
    """Run the notebook that the spec names; raises ConfigError before a kernel is started."""
    spec: dict[str, Any] = json.loads(spec_path.read_text())
    notebook, output = Path(spec["notebook"]), Path(spec["output"])
    if notebook.resolve() == output.resolve():
        raise ConfigError(f"output {output} is the notebook itself: it is never overwritten")

    import papermill
    from traitlets.config import Config

    from flows._notebook import engine

    check_parameters(notebook, spec["parameters"])
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        (spec_path.parent / PROGRESS).open("w") as progress,
        # A short path of its own: the address of a Unix socket holds about 100 characters.
        tempfile.TemporaryDirectory(prefix="penstock-") as sockets,
    ):

        def on_cell(done: int, cells: int) -> None:
            progress.write(json.dumps({"done": done, "cells": cells}) + "\n")
            progress.flush()

        # Private files, not TCP ports that any user of the machine may connect to.
        kernel = Config()
        kernel.KernelManager.transport = "ipc"
        kernel.KernelManager.ip = f"{sockets}/kernel"
        kernel.KernelManager.connection_file = f"{sockets}/kernel.json"
        try:
            executed = papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=spec["parameters"],
                kernel_name=spec["kernel"],
                engine_name=engine.NAME,
                execution_timeout=spec["cell_timeout"],
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                config=kernel,
                extra_arguments=["--HistoryManager.enabled=False"],
                on_cell=on_cell,
            )
        except papermill.PapermillExecutionError as error:
            raise JobFailed(
                f"cell {error.cell_index + 1}", f"raised {error.ename}: {error.evalue}"
            ) from None
    if (result := _result(executed)) is not None:
        (spec_path.parent / RESULT).write_text(json.dumps(result))
    if spec["html"]:
        _to_html(executed, Path(spec["html"]), hide_input=spec["hide_input"])


def check_parameters(notebook: Path, given: dict[str, Any]) -> None:
    """Refuse names that the notebook's tagged cell does not have; papermill only warns."""
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    if known and (unknown := sorted(set(given) - set(known))):
        raise ConfigError(
            f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}"
        )


def _result(notebook: Any) -> dict[str, Any] | None:
    """What the notebook published last with our MIME type."""
    found = None
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found = output.get("data", {}).get(RESULT_TYPE, found)
    return found


def _to_html(notebook: Any, path: Path, *, hide_input: bool) -> None:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input=hide_input, exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(body, encoding="utf-8")
    draft.replace(path)


def _interrupted(*_: object) -> None:
    raise SystemExit(143)


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupted)  # so that the notebook is saved as failed
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        execute(Path(sys.argv[1]))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except JobFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
