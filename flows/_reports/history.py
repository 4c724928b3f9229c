"""A run's whole history from the API, as changes: what hooks would have put, had they been heard.

root run ──► its child runs ──► all their tasks ──► their states, in the order of time ──► Change
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort

from blocks._changes import Change, change, run_counts, task_history
from blocks._messages import Names, messages
from flows._reports.audience import Hearer
from flows._run.api import api
from flows._run.progress import last_percent

LABEL = "penstock.told."  # and the endpoint: which message of the run's end it acknowledged
PAGE = 200  # runs; the server gives no more at once
_TERMINAL = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]


def end_of(run: FlowRun, earlier: tuple[State[object], int] | None = None) -> Change:
    """The change that ended a run, or an `earlier` end of it: state and run count."""
    last, count = earlier or (run.state, run.run_count)
    if last is None:
        raise ValueError(f"run {run.id} has no state")
    progress = 100 if last.is_completed() else last_percent(run.id)
    return change(run.id, last, attempt=count, progress=progress)


def history(root: FlowRun) -> list[Change]:
    """Every change of a root run that has ended, of its child runs, and of all their tasks."""
    runs = [root, *below(root.id)]
    told = [end_of(run, end) for run in runs for end in _ends(run)]
    for task_run in tasks_of([run.id for run in runs]):
        told += task_history(task_run, api().read_task_run_states(task_run.id))
    return sorted(told, key=lambda change: (datetime.fromisoformat(change.at), change.ends_run))


def ended(after: datetime, before: datetime) -> Iterator[FlowRun]:
    """Every root run that ended in that time and has stayed at its end."""
    found = 0
    while page := api().read_flow_runs(
        flow_run_filter=FlowRunFilter(
            parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_TERMINAL)),
            end_time=FlowRunFilterEndTime(after_=after, before_=before),
        ),
        sort=FlowRunSort.START_TIME_ASC,
        limit=PAGE,
        offset=found,
    ):
        yield from page
        found += len(page)


def unheard(run: FlowRun, end: Change, names: Names, hearers: dict[str, Hearer]) -> list[str]:
    """Which of `hearers` want to hear this end of a root run and have not answered it.

    The run's label says so: the courier writes it, on whichever machine it works. An answer may
    have been no: what was refused for good is not sent again by itself.
    """
    wanted = messages(end, names)
    return [
        key
        for key, hearer in hearers.items()
        if any(map(hearer.wants, wanted)) and _answered(run, key) != end.base
    ]


def _answered(run: FlowRun, hearer: str) -> str:
    """The base of the last message that was answered, as `told <base>/<route>` has it."""
    return str(run.labels.get(LABEL + hearer, "")).partition(" ")[2].rpartition("/")[0]


def _ends(run: FlowRun) -> Iterable[tuple[State[object], int]]:
    states = api().read_flow_run_states(run.id)
    counted = zip(states, run_counts(states), strict=True)
    return [(state, count) for state, count in counted if state.is_final()]


def below(root: UUID) -> list[FlowRun]:
    """The child runs of a run, and theirs."""
    found: list[FlowRun] = []
    level = [root]
    while level:
        below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=level))
        there: list[FlowRun] = []
        while page := api().read_flow_runs(flow_run_filter=below, limit=PAGE, offset=len(there)):
            there += page
        found += there
        level = [run.id for run in there]
    return found


def tasks_of(runs: list[UUID]) -> Iterator[TaskRun]:
    """The tasks of these runs, without those that only stand for a child run."""
    found = 0
    while page := api().read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=runs)),
        sort=TaskRunSort.ID_DESC,
        limit=PAGE,
        offset=found,
    ):
        found += len(page)
        for task_run in page:
            if not (task_run.state and task_run.state.state_details.child_flow_run_id):
                yield task_run
