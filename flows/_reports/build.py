"""From a change of state to messages: the one function that hook, relay and redelivery share.

Change + what the API keeps (names, result, log) ──► messages() ──► Message
"""

from typing import Any
from uuid import UUID

import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import Log, StateType
from prefect.client.schemas.sorting import LogSort, TaskRunSort
from prefect.logging import get_logger

from blocks._changes import ERROR_LENGTH, Change
from blocks._messages import Failure, Message, Names, messages, plain
from flows._run.api import api

LOG_LINES = 20  # of a failed run, that a message carries
LAST_LINE = ("prefect.flow_runs", "Finished in state {}(")  # of a run's log, by Prefect's engine


def build(change: Change, names: Names) -> list[Message]:
    """What `change` calls for; asks the API for a result or the log of a run that has ended."""
    run = UUID(change.run)
    results, location, failure = None, None, None
    if change.ends_run and change.word == "success" and change.run == names.root:
        results, location = _result(UUID(change.state))
    elif change.ends_run and change.word == "failed":
        failure = Failure(_failed_task(run), _last_lines(run))
    return messages(change, names, results=results, location=location, failure=failure)


def explained(end: Change) -> bool:
    """Whether the API knows of a failed run's end which task failed, and its log to the end."""
    run = UUID(end.run)
    if _failed_task(run) is None:
        return False
    logger, text = LAST_LINE
    last = text.format(end.name)
    return any(one.name == logger and one.message.startswith(last) for one in _last_logs(run))


def _result(state_id: UUID) -> tuple[Any, str | None]:
    """The result that a run kept, as JSON has it, and where."""
    state = api().read_flow_run_state(state_id)
    location = getattr(state.data, "storage_key", None)
    try:
        return plain(state.result(raise_on_failure=False)), location
    except httpx.HTTPError:
        raise  # the API is away, which may have to say where the result is: asked again
    except Exception as error:
        # The end of the run must be told even if its result is lost, or of a type unknown here.
        get_logger("penstock").error("the result of state %s cannot be read: %r", state_id, error)
        return None, location


def _failed_task(run: UUID) -> str | None:
    failed = api().read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(
                type=TaskRunFilterStateType(any_=[StateType.FAILED, StateType.CRASHED])
            )
        ),
        sort=TaskRunSort.END_TIME_DESC,
        limit=200,
    )
    return failed[-1].name if failed else None


def _last_lines(run: UUID) -> tuple[str, ...]:
    return tuple(line.message[:ERROR_LENGTH] for line in reversed(_last_logs(run)))


def _last_logs(run: UUID) -> list[Log]:
    found: list[Log] = api().read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])),
        sort=LogSort.TIMESTAMP_DESC,
        limit=LOG_LINES,
    )
    return found
