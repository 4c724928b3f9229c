"""Run a CWL workflow: every job of every step is a task of its own.

cwltool's job generator ──► Walker ──► cwl_step (task) ──► CwlConfig.command() ──► program
                               │
                               └──► cwl_job (flow) returns the CWL output object
"""

import json
import shutil
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks._home import output_folder as made_folder
from blocks._home import private, run_folder
from blocks.cwl import CwlConfig
from blocks.errors import ConfigError, JobFailed
from flows import flow_hooks, guard, job_task
from flows._plan import Plan, show, unmade_folder
from flows._run.guard import current
from flows._run.keys import current_key
from flows._run.process import PROCESS


@flow(**flow_hooks())
@guard
def cwl_job(
    workflow: str,
    inputs: dict[str, Any] | None = None,
    output_folder: str | None = None,
    config: str = "default",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run a CWL workflow, each job a task; the result is its output object (CWL 1.2).

    Args:
        workflow: Path of the document; `file.cwl#id` picks one of a `$graph`.
        inputs: The input object; paths count from the working directory.
        output_folder: Where result files go; the run's own if empty.
        config: Name of the CwlConfig block.
        dry_run: Only show what would be run, and who would be told.
    """
    if dry_run:
        return show(*plan_cwl(workflow, inputs or {}, config))
    settings = current().settings.get(CwlConfig, config)
    return run_cwl(workflow, inputs or {}, output_folder, settings)


def plan_cwl(workflow: str, inputs: dict[str, Any], config: str) -> list[Plan]:
    """What the document would run first, and what may follow; raises ConfigError as `run_cwl`."""
    from flows._cwl.plan import plan

    return plan(workflow, inputs, unmade_folder(), current().settings.get(CwlConfig, config))


def run_cwl(
    workflow: str, inputs: dict[str, Any], output_folder: str | None, config: CwlConfig
) -> dict[str, Any]:
    """Walk the document inside the current run; return its output object.

    Raises ConfigError before any job is started, and JobFailed naming the step, its exit code and
    its last lines after.
    """
    # cwltool takes a third of a second to import, and only this kind of job needs it.
    from cwltool.errors import WorkflowException
    from cwltool.mutation import MutationManager
    from cwltool.utils import visit_class
    from schema_salad.exceptions import ValidationException

    from flows._cwl.load import job_order, load, runtime_context
    from flows._cwl.log import cwltool_log
    from flows._cwl.programs import through_the_kernel
    from flows._cwl.walk import Walker

    run = current()
    walk = run.next_index("run_cwl")
    failures: list[JobFailed] = []

    def named(label: str) -> str:
        # Another document of this run may have a step of that name; CWL allows no # in one.
        return f"{label}#{walk + 1}" if walk else label

    def run_job(label: str, job: Any, context: Any) -> tuple[dict[str, Any], str]:
        name = named(label)
        _jobs[run.id, name] = (job, context)
        try:
            done = cwl_step.with_options(task_run_name=_literal(name))(name)
        except JobFailed as error:
            failures.append(error)
            return {}, "permanentFail"
        finally:
            del _jobs[run.id, name]
        return done["outputs"], "success"

    def skipped(label: str) -> None:
        name = named(label)
        cwl_skipped.with_options(task_run_name=_literal(name))(name)

    walker = Walker(
        run_job,
        parallel=config.parallel,
        on_plan=lambda steps: run.progress.plan(map(named, steps)),
        on_share=lambda step, share: run.progress.set(named(step), share),
        on_skipped=skipped,
        abort=lambda: PROCESS.stop_all(run.id),
    )
    with through_the_kernel(config), cwltool_log() as complaints:
        process = load(workflow)
        order = job_order(process, inputs, base=Path.cwd())
        target = private(Path(output_folder).resolve() if output_folder else made_folder(run.root))
        work = private(run_folder(run.root) / f"cwl-{run.id[:8]}-{walk}")
        try:
            outputs, status = walker.execute(
                process, order, runtime_context(work, target, on_error=config.on_error)
            )
        except (WorkflowException, ValidationException) as error:
            raise ConfigError(f"{workflow} cannot run with these inputs: {error}") from None
    if failures:
        first = failures[0]
        raise first if first.tail else JobFailed(first.name, first.why, list(complaints))
    if status != "success":
        raise JobFailed(Path(workflow).name, f"ended with {status}", list(complaints))
    shutil.rmtree(work, ignore_errors=True)
    visit_class(outputs, ("File", "Directory"), MutationManager().unset_generation)
    plain: dict[str, Any] = _plain(outputs)
    return plain


def _plain(outputs: Any) -> Any:
    """cwltool's output object without its YAML classes, as JSON-able data."""
    return json.loads(json.dumps(outputs))


def _literal(label: str) -> str:
    """A task run name is a template: braces in a step's name must survive it."""
    return label.replace("{", "{{").replace("}", "}}")


# Jobs in flight, by run and label: a Prefect parameter is hashed and shown, so a task gets only the
# label.
_jobs: dict[tuple[str, str], Any] = {}


@job_task(key=lambda label: label)
def cwl_step(label: str) -> dict[str, Any]:
    """Run the one job that `label` names; return its outputs. Raises JobFailed."""
    from flows._cwl.programs import how_it_ended

    job, context = _jobs[current().id, label]
    ended: list[tuple[dict[str, Any] | None, str]] = []
    job.output_callback = lambda outputs, status: ended.append((outputs, status))
    job.run(context)
    outputs, status = ended[0]
    if status != "success":
        outcome = how_it_ended(current_key())
        why, tail = (outcome[0].why(), outcome[1]) if outcome else (f"ended with {status}", [])
        raise JobFailed(f"CWL step {label}", why, tail)
    return {"outputs": _plain(outputs)}


@job_task(key=lambda label: label)
def cwl_skipped(label: str) -> State[Any]:
    """Stand for a step whose `when` was false."""
    return Completed(name="Skipped", message=f"the condition of step {label} was false")
