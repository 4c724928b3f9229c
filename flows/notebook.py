"""Run a parameterised notebook with papermill and render it.

notebook_job ──► run_notebook ──► NotebookConfig.command() ──► run_command
   (flow)           (task)           (blocks/notebook)      python -m flows._notebook.execute
"""

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from blocks._home import output_folder as made_folder
from blocks._home import output_place
from blocks.errors import ConfigError
from blocks.notebook import NotebookConfig
from flows import flow_hooks, guard, job_task
from flows._notebook.execute import PROGRESS, RESULT, check_parameters
from flows._plan import Plan, show, unmade_folder
from flows._run.guard import current
from flows._run.run_command import reported, run_command, scratch, task_progress


@job_task
def run_notebook(
    notebook: str,
    parameters: dict[str, Any] | None = None,
    output_folder: str | None = None,
    html: bool = True,
    config: str = "default",
) -> dict[str, Any]:
    """Execute `notebook` with `parameters`; return where it went and what it published.

    The executed notebook and its HTML report go to `output_folder`, by default one of the run's
    own. Returns {"notebook", "html", "result"}; `result` is what the notebook displayed last
    as application/vnd.penstock.result+json. Raises ConfigError before anything is started, and
    JobFailed naming the cell, or a parameter that the notebook does not have, after.
    """
    settings = current().settings.get(NotebookConfig, config)
    source = _source(notebook)
    target = Path(output_folder).resolve() if output_folder else made_folder(current().root)
    executed, report = _made(source, target, html=html)
    with scratch() as folder:
        progress = task_progress(f"cells of {source.name}")
        run_command(
            settings.command(source, parameters or {}, folder=folder, output=executed, html=report),
            folder=folder,
            name=f"notebook {source.name}",
            time_limit=settings.time_limit,
            on_tick=lambda: progress(_share(folder / PROGRESS)),
        )
        progress(1.0)
        result = reported(folder / RESULT)
    create_markdown_artifact(
        f"Executed notebook: `{executed}`" + (f"\n\nHTML report: `{report}`" if report else ""),
        description=f"what {source.name} made",
    )
    return {
        "notebook": str(executed),
        "html": str(report) if report else None,
        "result": result,
    }


def plan_notebook(
    notebook: str,
    parameters: dict[str, Any] | None = None,
    output_folder: str | None = None,
    html: bool = True,
    config: str = "default",
) -> Plan:
    """What `run_notebook` would start; raises ConfigError as it would.

    For an unknown parameter, too: in a run the program itself refuses that, which spares the engine
    the second that papermill takes to import.
    """
    settings = current().settings.get(NotebookConfig, config)
    source = _source(notebook)
    check_parameters(source, parameters or {})
    target = Path(output_folder).resolve() if output_folder else output_place(current().root)
    executed, report = _made(source, target, html=html)
    folder = unmade_folder()
    command = settings.command(
        source, parameters or {}, folder=folder, output=executed, html=report
    )
    return Plan("run_notebook", command)


def _source(notebook: str) -> Path:
    source = Path(notebook).resolve()
    if not source.is_file():
        raise ConfigError(f"notebook {notebook!r} is no file (looked from {Path.cwd()})")
    return source


def _made(source: Path, target: Path, *, html: bool) -> tuple[Path, Path | None]:
    """Where the executed notebook and its report go."""
    executed = target / source.name
    if executed == source:
        raise ConfigError(f"output_folder {target} holds the notebook itself: name another folder")
    return executed, target / f"{source.stem}.html" if html else None


@flow(**flow_hooks())
@guard(parts=1)
def notebook_job(
    notebook: str,
    parameters: dict[str, Any] | None = None,
    output_folder: str | None = None,
    html: bool = True,
    config: str = "default",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run a parameterised notebook with papermill and render it.

    Args:
        notebook: Path of the notebook; it is never overwritten.
        parameters: Values for the cell tagged `parameters`; an unknown name is refused.
        output_folder: Folder for the executed notebook and the report; the run's own if empty.
        html: Whether to render a report.
        config: Name of the NotebookConfig block.
        dry_run: Only show what would be run, and who would be told.
    """
    if dry_run:
        return show(plan_notebook(notebook, parameters, output_folder, html, config))
    made: dict[str, Any] = run_notebook(notebook, parameters, output_folder, html, config)
    return made


def _share(lines: Path) -> float:
    """How much of its cells the notebook has done, by its last whole progress line."""
    if not lines.exists() or not (whole := lines.read_text().rpartition("\n")[0]):
        return 0.0
    last = json.loads(whole.rpartition("\n")[2])
    return float(last["done"] / max(1, last["cells"]))
