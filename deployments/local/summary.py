"""What `penstock run` prints when a run has ended."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun, TaskRun
from rich.console import Console
from rich.table import Table

from blocks._home import output_place, reports_file
from deployments.local.judge import Verdict
from deployments.local.runs import Tree

LONGEST = 7  # how many parts are printed; last-run.json has them all


def parts(tree: Tree) -> dict[str, float]:
    """Seconds that each part of the run took: waiting to start, its tasks, its child runs."""
    root = tree.root
    seconds: dict[str, float] = {}
    if root.expected_start_time and root.start_time:
        waited = (root.start_time - root.expected_start_time).total_seconds()
        seconds["pending"] = round(waited, 1)
    timed: list[tuple[str, FlowRun | TaskRun]] = [
        *((task.name, task) for task in tree.tasks if task.flow_run_id == root.id),
        *((tree.flow_names[child.id], child) for child in tree.children),
        ("run", root),
    ]
    for name, part in timed:
        if part.start_time and part.end_time:
            seconds[name] = round((part.end_time - part.start_time).total_seconds(), 1)
    return seconds


def show(tree: Tree, verdict: Verdict, last: dict[str, Any], page: str) -> None:
    """The table of reports, where things are, how long each part took, and how it all ended."""
    console = Console(soft_wrap=True)
    console.print()
    console.print(_reports(verdict))
    for message in verdict.missing:
        console.print(f"[red]missing:[/] {message.route} {dict(message.payload)}", markup=True)
    for message_id in verdict.unexplained:
        console.print(f"[red]no state calls for:[/] {message_id}")
    if verdict.forged:
        console.print(f"[red]{verdict.forged} message(s) did not pass verification[/]")
    if verdict.progress_fell:
        console.print("[red]progress fell[/]")
    console.print()
    for name, place in _places(tree, verdict, page).items():
        console.print(f"{name:<16} {place}")
    longest = sorted(last["seconds"].items(), key=lambda part: -part[1])[:LONGEST]
    seconds = "   ".join(f"{n} {s:.1f} s" for n, s in last["seconds"].items() if (n, s) in longest)
    console.print(f"{'took':<16} {seconds}")
    for process in last["left_alive"]:
        console.print(f"[red]left alive:[/] {process['pid']} {process['command']}")
    state = tree.root.state
    console.print()
    console.print(
        f"[bold {'green' if last['ok'] else 'red'}]{state.name if state else 'unknown'}[/], "
        f"{len(verdict.verified)} of {len(verdict.expected)} reports verified"
    )
    if state is not None and not state.is_completed() and state.message:
        console.print(state.message, markup=False)


def _reports(verdict: Verdict) -> Table:
    table = Table(title="reports", title_justify="left", box=None, pad_edge=False)
    for heading in ("message", "expected", "verified"):
        table.add_column(heading, justify="left" if heading == "message" else "right")
    wanted = Counter(message.route for message in verdict.expected)
    came = Counter(message.route for message in verdict.verified)
    for route in sorted(wanted):
        table.add_row(route, str(wanted[route]), str(came[route]))
    return table


def _places(tree: Tree, verdict: Verdict, page: str) -> dict[str, str]:
    places = {"Prefect UI": page}
    folder = output_place(str(tree.root.id))
    for report in sorted(folder.glob("*.html")):
        places["HTML report"] = report.as_uri()
    for message in verdict.expected:
        if message.route == "results":
            results = folder / "results.json"
            if folder.is_dir():
                _write(results, message.payload["results"])
                places["results"] = str(results)
    places["reports"] = str(reports_file())
    return places


def _write(path: Path, results: Any) -> None:
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
