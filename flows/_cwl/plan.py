"""What a CWL document would run, without running it: jobs that are free now, and the steps after.

Only the jobs whose inputs are there already have their exact command line; what a later one gets is
known when the ones before it have ended.
"""

from pathlib import Path
from typing import Any

from cwl_utils.errors import JavascriptException
from cwltool.errors import WorkflowException
from cwltool.process import Process, shortname
from cwltool.workflow_job import WorkflowJob

from blocks._command import Command
from blocks.cwl import CwlConfig
from flows._cwl.load import job_order, load, runtime_context
from flows._cwl.programs import without_javascript
from flows._cwl.walk import origin_of
from flows._plan import Plan
from flows._run.environment import named


def plan(workflow: str, inputs: dict[str, Any], work: Path, config: CwlConfig) -> list[Plan]:
    """The plans of a document's jobs, in order; raises ConfigError for what could never run."""
    process = load(workflow, lint=False)
    order = job_order(process, inputs, base=Path.cwd())
    context = runtime_context(work, work / "out", on_error=config.on_error)
    # Names of folders that nobody makes, in place of cwltool's way to make them.
    context.tmpdir, context.stagedir = str(work / "tmp"), str(work / "stage")
    context.create_outdir = lambda: str(work / "out")  # type: ignore[method-assign]  # see above
    free: dict[str, Plan] = {}
    with without_javascript():
        try:
            for job in process.job(order, lambda *_: None, context):
                if job is None:
                    break  # everything else waits for these
                if isinstance(job, WorkflowJob):
                    job.run(context)
                else:
                    label = origin_of(job.output_callback).label
                    free[label] = _job(label, job, config)
        except (WorkflowException, JavascriptException) as error:
            free["?"] = Plan(Path(workflow).name, Command([]), [], [f"not known yet: {error}"])
    began = {label.partition("/")[0].partition("[")[0] for label in free}
    return [*free.values(), *(_step(step) for step in _steps(process) if _name(step) not in began)]


def _job(label: str, job: Any, config: CwlConfig) -> Plan:
    if not getattr(job, "command_line", None):
        return Plan(label, Command([]), [], ["an expression: it runs no program"])
    command = config.command(job.command_line, job.environment)
    cores = job.builder.resources.get("cores", 1)
    return Plan(label, command, list(named(command)), [f"cores: {cores:g}"])


def _step(step: Any) -> Plan:
    """A step whose inputs are made by others: what the document says of it."""
    tool = step.embedded_tool.tool
    words = tool.get("baseCommand") or []
    notes = ["its command line is made from what the steps before it give"]
    if scatter := step.tool.get("scatter"):
        over = [scatter] if isinstance(scatter, str) else scatter
        notes.append(f"a job for each of: {', '.join(shortname(name) for name in over)}")
    if when := step.tool.get("when"):
        notes.append(f"only when {when}")
    if tool["class"] != "CommandLineTool":
        notes.append(f"its tool is a {tool['class']}")
    return Plan(_name(step), Command([words] if isinstance(words, str) else list(words)), [], notes)


def _steps(process: Process) -> list[Any]:
    return list(getattr(process, "steps", []))


def _name(step: Any) -> str:
    return str(shortname(step.id))
