"""What the server's events say of states, read in order; an event's id is the id of its state.

/events/filter ──► pages ──► events of states ──► Change, as a hook would have made it
                                     └──► a job_task's own hook tells it: nothing to do
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.schemas.objects import State, StateType
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventOrder,
    EventResourceFilter,
)
from prefect.events.schemas.events import ReceivedEvent, RelatedResource

from blocks._changes import HOOKED, Change, change
from flows._run.api import api

PAGE = 50  # events; the server gives no more at once
HEARTBEAT = "prefect.flow-run.heartbeat"
_FLOW_RUN, _TASK_RUN = "prefect.flow-run.", "prefect.task-run."
_UNSEEN = ("AwaitingRetry", "Retrying", "NotReady", "UpstreamFailed", "Crashed")  # by any hook
_NEVER_TOLD = ("heartbeat", "Scheduled", "Pending", "Running", "Retrying", "Cancelling")
_NOT_BEGUN = ("Scheduled", "Pending")

# Runs and tasks may end in a state of any name, so all are read but those that are many and never
# told. The server cannot leave out a job_task's: that is done here, by the mark in its key.
STATES = EventNameFilter(
    prefix=[_FLOW_RUN, _TASK_RUN],
    exclude_prefix=[
        *(_FLOW_RUN + name for name in _NEVER_TOLD),
        *(_TASK_RUN + name for name in _NOT_BEGUN),
    ],
)


def since(moment: datetime, names: EventNameFilter) -> Iterator[ReceivedEvent]:
    """Every event of these names that occurred at `moment` or later, in order, each once.

    The next page begins at the time of the last event: the pages that the server links to are
    counted from the first event, and shift when one comes in late.
    """
    seen: set[UUID] = set()
    while True:
        page = _page(names, moment, EventOrder.ASC, PAGE)
        yield from (event for event in page if event.id not in seen)
        if len(page) < PAGE:
            return
        seen = {event.id for event in page}
        stands = page[-1].occurred <= moment  # so many at one moment: there is no way past but on
        moment = moment + timedelta(microseconds=1) if stands else page[-1].occurred


def number(start: datetime, end: datetime, names: EventNameFilter) -> int:
    """How many events of these names occurred from `start` to `end`: one request, however many."""
    wanted = EventFilter(occurred=EventOccurredFilter(since=start, until=end), event=names)
    return api().read_events(wanted, limit=1).total


def newest_heartbeats(flow_run_id: UUID, number: int) -> list[ReceivedEvent]:
    """The last heartbeats of one run, the newest first."""
    one = EventResourceFilter(id=[f"{_FLOW_RUN}{flow_run_id}"])
    start = datetime.now(UTC) - timedelta(days=7)  # the server keeps them no longer
    return _page(EventNameFilter(name=[HEARTBEAT]), start, EventOrder.DESC, number, one)


def flow_run_of(event: ReceivedEvent) -> UUID | None:
    """The flow run that an event is about, or whose task it is about."""
    if event.resource.id.startswith(_FLOW_RUN):
        return UUID(event.resource.id.removeprefix(_FLOW_RUN))
    above = next(related(event, "flow-run"), None)
    return UUID(above.id.removeprefix(_FLOW_RUN)) if above else None


def related(event: ReceivedEvent, role: str) -> Iterator[RelatedResource]:
    return (one for one in event.related if one.role == role)


def change_of(event: ReceivedEvent) -> Change | None:
    """The change that an event tells of; None for one that calls for no message."""
    about, run = event.resource, flow_run_of(event)
    kind = about.get("prefect.state-type")
    if kind is None or run is None or _told_by_hook(event):
        return None  # no state, or a task that was called outside any flow
    state: State[object] = State(
        id=event.id,
        type=StateType(kind),
        name=about.get("prefect.state-name"),
        message=about.get("prefect.state-message"),
        timestamp=datetime.fromisoformat(about["prefect.state-timestamp"]),
    )
    count = int(about.get("prefect.run-count") or 0)
    if about.id.startswith(_FLOW_RUN):
        told = state.is_final() or state.name == "Late"
        return change(run, state, attempt=count) if told else None
    return change(
        run,
        state,
        task=about.name,
        task_run=about.id.removeprefix(_TASK_RUN),
        attempt=max(1, count),
    )


def _told_by_hook(event: ReceivedEvent) -> bool:
    """Whether a hook of the task's own saw this state, on whichever machine it ran."""
    task_run = event.payload.get("task_run") or {}
    hooked = str(task_run.get("task_key", "")).endswith(HOOKED)
    return hooked and event.resource.get("prefect.state-name") not in _UNSEEN


def _page(
    names: EventNameFilter,
    start: datetime,
    order: EventOrder,
    number: int,
    resource: EventResourceFilter | None = None,
) -> list[ReceivedEvent]:
    # Tasks and heartbeats are dated by the clock of their machine: it may be ahead of ours.
    times = EventOccurredFilter(since=start, until=datetime.now(UTC) + timedelta(days=1))
    wanted = EventFilter(occurred=times, event=names, resource=resource, order=order)
    return list(api().read_events(wanted, limit=number).events)
