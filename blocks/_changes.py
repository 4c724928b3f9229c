"""Changes of state as plain data: what a hook writes down, and what the API knows afterwards.

    a hook's state ────────────┐
    an event of the server ────┼──► Change ──► messages()
    the API's state history ───┘

Whoever saw it, the same change gets the same ids.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

HOOKED = "+hooks"  # ends the key of a task whose own hooks tell its states
ERROR_LENGTH = 4000  # characters of a failure that a message carries


class StateLike(Protocol):
    """What is needed of a Prefect state; `type` is a StateType, a string enumeration."""

    @property
    def id(self) -> Any: ...
    @property
    def type(self) -> Any: ...
    @property
    def name(self) -> str | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def timestamp(self) -> datetime: ...


class TaskRunLike(Protocol):
    """What is needed of a Prefect task run."""

    @property
    def id(self) -> Any: ...
    @property
    def flow_run_id(self) -> Any: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Change:
    """One change of state of a run, or of a task in it; as JSON, one line of the outbox."""

    run: str  # the flow run's id
    state: str  # the state's id
    type: str  # Prefect's state type
    name: str
    at: str  # ISO 8601 with a zone: when the state was made
    message: str = ""
    task: str | None = None  # the task run's name
    task_run: str | None = None  # and id
    attempt: int = 1  # of the task; of a run how often it has begun: 0 if it never did
    progress: int | None = None  # percent of the root run after this state, where it is known

    @property
    def base(self) -> str:
        """What the ids of its messages begin with; the same for all that tell of the same event.

        Not always the state's id. Prefect calls no hook with AwaitingRetry, and Retrying comes only
        after the delay: both tell of one attempt. A task that dies of a signal, and a run that is
        being cancelled, are told of before their last state is made; a run that is retried may be
        cancelled once for each time that it ran.
        """
        if self.task_run and self.name == "AwaitingRetry":
            return f"{self.task_run}.{self.attempt}"
        if self.task_run and self.name == "Retrying":
            return f"{self.task_run}.{self.attempt - 1}"
        if self.task_run and self.type == "CRASHED":
            return f"{self.task_run}.crashed"
        if self.task is None and self.type in ("CANCELLING", "CANCELLED"):
            return f"{self.run}.{self.attempt}.cancelled"
        return self.state

    @property
    def word(self) -> str | None:
        """The word that listeners know for the state; None for one that is not told."""
        if self.task is not None:
            if self.name in ("AwaitingRetry", "Retrying"):
                return "up_for_retry"
            if self.name in ("NotReady", "UpstreamFailed"):
                return "upstream_failed"
            if self.type == "RUNNING":
                return "running"
        elif self.type == "CANCELLING":
            return "failed"
        failed = dict.fromkeys(("FAILED", "CRASHED", "CANCELLED"), "failed")
        return {"COMPLETED": "success", **failed}.get(self.type)

    @property
    def ends_run(self) -> bool:
        """Whether this is an end of the run itself."""
        return self.task is None and self.word is not None

    def as_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def change(
    flow_run_id: object, state: StateLike, mask: Callable[[str], str] = str, **more: Any
) -> Change:
    """A state of a run, whose run count is `attempt`; with `task` and `task_run`, of one in it.

    `mask` takes secrets out of its message, which may quote what a task was given.
    """
    kind = str(getattr(state.type, "value", state.type))
    told = state.message or ("cancelled" if kind == "CANCELLING" else state.name) or ""
    told = mask(told)[:ERROR_LENGTH].encode(errors="replace").decode()  # it may quote a file's name
    return Change(
        run=str(flow_run_id),
        state=str(state.id),
        type=kind,
        name=state.name or kind.capitalize(),
        at=state.timestamp.isoformat(),
        message=told if kind not in ("COMPLETED", "RUNNING") else "",
        **more,
    )


def run_counts(states: Sequence[StateLike]) -> list[int]:
    """Prefect's run count at each state of a flow run, from its states in their order.

    A run that goes on after a pause does not begin anew.
    """
    counts, count, resuming, before = [], 0, False, ""
    for state in states:
        kind = str(getattr(state.type, "value", state.type))
        count += kind == "RUNNING" and not resuming
        counts.append(count)
        resuming = before == "PAUSED" or (resuming and kind in ("SCHEDULED", "PENDING"))
        before = kind
    return counts


def task_history(task_run: TaskRunLike, states: Sequence[StateLike]) -> Iterator[Change]:
    """Every change of a task run, from its states in their order.

    States do not say which attempt they belong to, so it is counted: an attempt has failed where
    AwaitingRetry stands, or Retrying without it.
    """
    failed = 0
    for before, state in zip([None, *states], states, strict=False):
        if state.name == "AwaitingRetry" or (
            state.name == "Retrying" and (before is None or before.name != "AwaitingRetry")
        ):
            failed += 1
        yield change(
            task_run.flow_run_id,
            state,
            task=task_run.name,
            task_run=str(task_run.id),
            attempt=max(1, failed + (state.name != "AwaitingRetry")),
        )
