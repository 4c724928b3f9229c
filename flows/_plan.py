"""What a job would do, shown and not done: the `dry_run` of every kind of job.

Command ──► Plan ──┐
                   ├──► artifact of the run, and its result
endpoints that fit ┘
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from blocks._command import Command
from blocks._home import run_place
from flows._reports.audience import audience
from flows._run.environment import environment
from flows._run.guard import current
from flows._run.mask import masker


@dataclass(frozen=True)
class Plan:
    """One program that would be started."""

    task: str
    command: Command
    variables: list[str] | None = None  # names in its environment; None: what every job gets
    notes: list[str] = field(default_factory=list)  # what is known only once the run is under way

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON, secrets masked."""
        mask = masker([*self.command.secrets.values(), *self.command.masked])
        files = {**self.command.files, **self.command.shown}
        names = environment(self.command) if self.variables is None else self.variables
        return {
            "task": self.task,
            "argv": [mask(word) for word in self.command.argv],
            "folder": str(Path.cwd()),
            "environment": sorted(names),
            "files": {name: mask(text) for name, text in files.items()},
            "notes": self.notes,
        }


def unmade_folder() -> Path:
    """Where the private folder of a job would be: a path alone, nothing is made."""
    return run_place(current().root) / "job"


def show(*plans: Plan) -> dict[str, Any]:
    """Publish the plans and who would be told as an artifact; return them as the run's result."""
    hearers = audience(UUID(flow_run.get_id())).hearers
    shown: dict[str, Any] = {
        "dry_run": [plan.as_dict() for plan in plans],
        "would_be_told": {name: hearer.where for name, hearer in sorted(hearers.items())},
    }
    create_markdown_artifact(_markdown(shown), description="what this run would have done")
    return shown


def show_rows(what: str, rows: list[dict[str, Any]]) -> None:
    """Publish what a job that looks after runs would do, a row for each; all rows alike."""
    lines = ["# Nothing was done: this is a dry run", "", f"{what}:", ""]
    if rows:
        lines += [_row([name.replace("_", " ") for name in rows[0]]), _row(["---"] * len(rows[0]))]
    lines += [_row([_cell(value) for value in row.values()]) for row in rows] or ["nothing."]
    create_markdown_artifact("\n".join(lines), description="what this run would have done")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return text.replace("|", "\\|").replace("\n", " ")


def _markdown(shown: dict[str, Any]) -> str:
    lines = ["# Nothing was started: this is a dry run", ""]
    for number, plan in enumerate(shown["dry_run"], 1):
        lines += [f"## {number}. {plan['task']}", ""]
        if plan["argv"]:
            lines += ["```sh", f"cd {shlex.quote(plan['folder'])}", shlex.join(plan["argv"]), "```"]
        lines += [f"- {note}" for note in plan["notes"]]
        if plan["environment"]:
            lines += ["", f"Environment: {', '.join(f'`{name}`' for name in plan['environment'])}"]
        for name, text in plan["files"].items():
            lines += ["", f"File `{name}`, private, removed at the end:", "", f"```\n{text}\n```"]
        lines.append("")
    lines += ["## Would be told", ""]
    told = [f"- `{name}` at {address}" for name, address in shown["would_be_told"].items()]
    return "\n".join([*lines, *(told or ["Nobody: no report endpoint fits this run."])])
