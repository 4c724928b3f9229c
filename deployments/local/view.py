"""The live view of a run: one line per task with its state, percentage and time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prefect.client.schemas.objects import FlowRun, TaskRun
from rich.console import Console
from rich.live import Live
from rich.table import Table

from deployments.local.runs import Tree

_STYLES = {
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "FAILED": "bold red",
    "CRASHED": "bold red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
}


class View:
    """Shows a tree each time it is given one: redrawn on a terminal, else a line per change."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._shown: dict[object, str] = {}

    def show(self, tree: Tree) -> None:
        if self._live:
            self._live.update(_table(tree))
            return
        # A task that is pending may yet turn out to stand for a child run.
        started = [task for task in tree.tasks if task.state and not task.state.is_pending()]
        shown: list[FlowRun | TaskRun] = [tree.root, *started]
        for run in shown:
            line = f"{_state(run)} {_percent(tree, run)}".rstrip()
            if self._shown.get(run.id) != line:
                self._shown[run.id] = line
                print(f"{_clock(run):>8}  {run.name:<28} {line}", flush=True)


@contextmanager
def view() -> Iterator[View]:
    """A view for the time of the block."""
    if not sys.stdout.isatty():
        yield View(None)
        return
    with Live(console=Console(), refresh_per_second=4) as live:
        yield View(live)


def _table(tree: Tree) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading, justify in (
        ("task", "left"),
        ("state", "left"),
        ("%", "right"),
        ("time", "right"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # the literals above
    table.add_row(f"[bold]{tree.root.name}[/]", *_cells(tree, tree.root))
    for task in tree.tasks:
        table.add_row(f"  {task.name}", *_cells(tree, task))
    return table


def _cells(tree: Tree, run: FlowRun | TaskRun) -> tuple[str, str, str]:
    kind = run.state.type.value if run.state else ""
    style = _STYLES.get(kind, "dim")
    return f"[{style}]{_state(run)}[/]", _percent(tree, run), _clock(run)


def _state(run: FlowRun | TaskRun) -> str:
    return run.state.name or "" if run.state else "Pending"


def _percent(tree: Tree, run: FlowRun | TaskRun) -> str:
    if run.state and run.state.is_completed():
        return "100 %"
    percent = tree.percent.get(run.id)
    return "" if percent is None else f"{percent} %"


def _clock(run: FlowRun | TaskRun) -> str:
    if run.start_time is None:
        return ""
    spent = (run.end_time or datetime.now(UTC)) - run.start_time
    return f"{max(spent, timedelta()).total_seconds():.1f} s"
