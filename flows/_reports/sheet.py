"""The run sheet: one Markdown artifact that says where a run's time went and who was told what.

tasks (API) ──► Gantt ──────────┐
states (API) ──► times ─────────┤
records (this machine) ─────────┼──► artifact "run sheet"
notes (API): started elsewhere ─┤
ledger ──► told, when ──────────┘
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State, TaskRun

from flows._reports.history import below, tasks_of
from flows._reports.ledger import Ledger
from flows._run.api import api
from flows._run.job import Outcome
from flows._run.noted import Remote, artifact_of, rows_of
from flows._run.record import of_run
from flows._run.remote import Look

ABOUT = "run sheet"  # the artifact's description; a second writing replaces the first
WIDTH = 48  # characters of the Gantt's time axis
ROWS = 60  # tasks that are drawn: the longest, in their order


def publish(ledger: Ledger, root: str) -> None:
    """Write the sheet of a root run that has ended, or write it anew."""
    run_id = UUID(root)
    text = sheet(ledger, api().read_flow_run(run_id), _tasks(run_id))
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    for artifact in api().read_artifacts(artifact_filter=of_run):
        if artifact.description == ABOUT:
            api().update_artifact(artifact.id, ArtifactUpdate(data=text))
            return
    api().create_artifact(
        ArtifactCreate(type="markdown", description=ABOUT, data=text, flow_run_id=run_id)
    )


def sheet(ledger: Ledger, run: FlowRun, tasks: list[TaskRun]) -> str:
    """The sheet as Markdown."""
    states = api().read_flow_run_states(run.id)
    ended = f"{run.state.name} at {_clock(run.state.timestamp)}" if run.state else "not ended"
    parts = {
        f"# {run.name}: {ended}": [],
        "## Tasks": _gantt(tasks),
        "## Where the time went": _times(states, tasks),
        "## Started outside": _started(str(run.id)),
        "## Told": _told(ledger, str(run.id)),
    }
    return "\n\n".join("\n".join([heading, "", *lines]).strip() for heading, lines in parts.items())


def _tasks(run: UUID) -> list[TaskRun]:
    """Every task of a run and of the runs below it, in the order of their starts."""
    runs = [run, *(child.id for child in below(run))]
    return sorted(tasks_of(runs), key=lambda task: str(task.start_time or task.expected_start_time))


def _gantt(tasks: list[TaskRun]) -> list[str]:
    started = [task for task in tasks if task.start_time]
    if not started:
        return ["No task was started."]
    first = min(_span(task)[0] for task in started)
    whole = max(_span(task)[1] for task in started) - first or 1.0
    longest = sorted(started, key=lambda task: _span(task)[0] - _span(task)[1])[:ROWS]
    lines = ["```"]
    for task in started:
        if task in longest:
            begin, end = _span(task)
            left = round((begin - first) / whole * (WIDTH - 1))
            bar = " " * left + "█" * max(1, round((end - begin) / whole * WIDTH))
            state = "" if task.state and task.state.is_completed() else f"  {_name(task.state)}"
            lines.append(f"{task.name[:28]:<28} {bar[:WIDTH]:<{WIDTH}} {end - begin:8.1f} s{state}")
    lines.append("```")
    if len(started) > ROWS:
        lines.append(f"The {ROWS} longest of {len(started)} tasks.")
    return lines


def _times(states: list[State], tasks: list[TaskRun]) -> list[str]:
    at = {state.type.value: state.timestamp for state in reversed(states)}  # the first of each
    end = states[-1].timestamp if states else None
    spans = sorted(_span(task) for task in tasks if task.start_time)
    rows = []
    if "SCHEDULED" in at and "PENDING" in at:
        rows.append(("waiting for a worker", (at["PENDING"] - at["SCHEDULED"]).total_seconds()))
    if "PENDING" in at and "RUNNING" in at:
        rows.append(("starting the process", (at["RUNNING"] - at["PENDING"]).total_seconds()))
    if "RUNNING" in at and end:
        covered = _covered(spans)
        rows.append(("tasks", covered))
        rows.append(("between tasks", (end - at["RUNNING"]).total_seconds() - covered))
    table = ["| | seconds |", "|---|---:|"]
    return [*table, *(f"| {about} | {max(0.0, seconds):.1f} |" for about, seconds in rows)]


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds during which at least one task ran."""
    total, until = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _started(root: str) -> list[str]:
    lines = ["| program | where | ended | seconds | peak memory |", "|---|---|---|---:|---:|"]
    for record in sorted(of_run(root), key=lambda record: record.gone_at or ""):
        outcome = Outcome(**record.outcome) if record.outcome else Outcome(code=None)
        how = "well" if outcome.ok else outcome.why()
        lines.append(
            f"| `{record.program}` | {record.place} on {record.host} | {how} |"
            f" {outcome.seconds:.1f} | {outcome.max_rss / 1e6:.0f} MB |"
        )
    for row in sorted(_elsewhere(root), key=lambda row: row.began):
        lines.append(_elsewhere_line(row))
    return lines if len(lines) > 2 else ["Nothing."]


def _elsewhere(root: str) -> list[Remote]:
    """What this run and those below it noted on the server."""
    runs = [UUID(root), *(run.id for run in below(UUID(root)))]
    return [row for run in runs for row in rows_of(artifact_of(str(run)))]


def _elsewhere_line(row: Remote) -> str:
    look = Look(**row.outcome) if row.outcome else None
    how = "not known yet" if look is None else "well" if look.state == "succeeded" else look.state
    name = row.id or row.tag
    there = f"[{name}](<{row.link}>)" if row.link else f"`{name}`"
    seconds = _seconds(row.began, row.gone_at) if row.began and row.gone_at else ""
    return f"| `{row.program}` | {row.place}: {there} | {how} | {seconds} | |"


def _seconds(began: str, gone: str) -> str:
    took = datetime.fromisoformat(gone) - datetime.fromisoformat(began)
    return f"{took.total_seconds():.1f}"


def _told(ledger: Ledger, root: str) -> list[str]:
    deliveries = ledger.find("WHERE d.root = ?", [root])
    if not deliveries:
        return ["Nobody."]
    lines = ["| who | told | waiting | given up | last acknowledged |", "|---|---:|---:|---:|---|"]
    for endpoint in sorted({one.endpoint for one in deliveries}):
        mine = [one for one in deliveries if one.endpoint == endpoint]
        count = [
            sum(one.status == status for one in mine) for status in ("told", "waiting", "dead")
        ]
        last = max((one.settled for one in mine if one.status == "told" and one.settled), default=0)
        at = _clock(datetime.fromtimestamp(last).astimezone()) if last else "never"
        lines.append(f"| `{endpoint}` | {' | '.join(map(str, count))} | {at} |")
    return lines


def _span(task: TaskRun) -> tuple[float, float]:
    assert task.start_time  # noqa: S101 - for the type checker: only started tasks come here
    begin = task.start_time.timestamp()
    return begin, task.end_time.timestamp() if task.end_time else begin


def _name(state: State | None) -> str:
    return (state.name if state else None) or "unknown"


def _clock(at: datetime) -> str:
    return at.isoformat(" ", timespec="seconds")
