"""Hold what the listener heard against what the API says has happened.

states of the run and its tasks (API) ──► expected messages ─┐
                                                             ├──► Verdict
what the listener verified (its own file) ───────────────────┘
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pkgutil import resolve_name
from typing import Any

from prefect.client.orchestration import SyncPrefectClient

from blocks._changes import change, task_history
from blocks._messages import Message, messages, names, plain
from deployments.listener.store import Heard
from deployments.local.runs import Tree

# What hooks can only know while they run; everything else must be equal to the letter.
_NOT_COMPARED = ("progress", "error")


@dataclass
class Verdict:
    """What should have come, what came, and what did not."""

    expected: list[Message]
    verified: list[Message] = field(default_factory=list)
    missing: list[Message] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)  # verified, but no state calls for them
    forged: int = 0
    progress_fell: bool = False

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexplained or self.forged or self.progress_fell)

    def as_dict(self) -> dict[str, Any]:
        return {
            "expected": len(self.expected),
            "verified": len(self.verified),
            "missing": [f"{m.id} {m.payload}" for m in self.missing],
            "unexplained": self.unexplained,
            "forged": self.forged,
            "progress_fell": self.progress_fell,
        }


def expected(client: SyncPrefectClient, tree: Tree) -> list[Message]:
    """Every message that the states of the run and its tasks call for, in their order."""
    root = tree.root
    quiet = resolve_name("flows._reports.audience:QUIET") in root.tags
    if quiet or root.parameters.get("dry_run"):
        return []
    deployment = client.read_deployment(root.deployment_id).name if root.deployment_id else None
    called = names(root.labels, root.id, deployment, client.read_flow(root.flow_id).name)
    told: dict[str, Message] = {}
    for task in tree.tasks:
        for one in task_history(task, client.read_task_run_states(task.id)):
            told.update((m.id, m) for m in messages(replace(one, progress=0), called))
    if root.state is not None:
        done = root.state.is_completed()
        results = plain(root.state.result(raise_on_failure=False)) if done else None
        end = messages(change(root.id, root.state, attempt=root.run_count), called, results=results)
        told.update((message.id, message) for message in end)
    return list(told.values())


def judge(wanted: list[Message], heard: list[Heard]) -> Verdict:
    """Compare; `heard` is everything the listener kept since the run was triggered."""
    verdict = Verdict(wanted, forged=sum(not one.verified for one in heard))
    runs = {message.payload["run_id"] for message in wanted}
    came = {
        one.id: one
        for one in heard
        if one.verified and one.payload and one.payload.get("run_id") in runs
    }
    for message in wanted:
        one = came.get(message.id)
        same = one and one.route == message.route and _fixed(one.payload) == _fixed(message.payload)
        (verdict.verified if same else verdict.missing).append(message)
    verdict.unexplained = sorted(came.keys() - {message.id for message in wanted})
    _excuse(verdict, list(came.values()))
    steps = [one.payload["progress"] for one in came.values() if one.payload and _is_progress(one)]
    verdict.progress_fell = any(a > b for a, b in pairwise(steps))
    return verdict


def _excuse(verdict: Verdict, came: list[Heard]) -> None:
    """Expect no progress for a task whose success came after the run's end.

    Hooks tell the end at once, the relay the states of plain tasks seconds later: then the progress
    of the run is over.
    """
    ends = (n for n, one in enumerate(came) if one.route == "progress" and not _runs_on(one))
    after = {one.id for one in came[min(ends, default=len(came)) :] if one.route == "status"}
    excused = {
        message.id
        for message in verdict.missing
        if message.route == "progress" and f"{message.id.rpartition('/')[0]}/status" in after
    }
    verdict.missing = [message for message in verdict.missing if message.id not in excused]
    verdict.expected = [message for message in verdict.expected if message.id not in excused]


def _runs_on(one: Heard) -> bool:
    return (one.payload or {}).get("state") == "running"


def _fixed(payload: Any) -> dict[str, Any]:
    left_out: tuple[str, ...] = _NOT_COMPARED
    if payload and payload.get("state") == "upstream_failed":
        left_out = (*left_out, "task_id")  # Prefect names a task run only when it starts
    return {name: value for name, value in (payload or {}).items() if name not in left_out}


def _is_progress(one: Heard) -> bool:
    return one.route == "progress" and isinstance((one.payload or {}).get("progress"), int)
