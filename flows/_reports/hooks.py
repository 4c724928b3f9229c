"""The hooks that report: attach with `@flow(**flow_hooks())`; `job_task` brings its own.

    hook(…, state) ──► Change ──► outbox ──► courier, in a process of its own
        └──► cancelled, crashed: first stop what the records of the run still call running

Hook parameters keep exactly these names: the engine calls them by position, the runner by keyword.
A hook holds no state and takes nothing from a flow's file: for a cancelled or crashed run it is
called in a fresh process.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.client.schemas.objects import StateType as Type
from prefect.flows import FlowStateHook
from prefect.futures import PrefectFuture
from prefect.logging.loggers import flow_run_logger, get_logger
from prefect.tasks import StateHookCallable

from blocks._changes import Change, change
from flows._reports import gaps
from flows._reports.outbox import ORDER, flush, put
from flows._run.cancelled import settle
from flows._run.guard import known
from flows._run.mask import masked
from flows._run.progress import last_percent
from flows._run.remote import stop_left
from flows._run.stop import stop_leftovers

# Not plain "json": Prefect takes a stored JSON object with a key `result` or `data` for a record of
# its own and hands out that part alone.
SERIALIZER = "compressed/json"


class FlowHooks(TypedDict):
    persist_result: bool
    result_serializer: str
    on_completion: list[FlowStateHook[..., Any]]
    on_failure: list[FlowStateHook[..., Any]]
    on_cancellation: list[FlowStateHook[..., Any]]
    on_crashed: list[FlowStateHook[..., Any]]


class TaskHooks(TypedDict):
    on_running: list[StateHookCallable]
    on_completion: list[StateHookCallable]
    on_failure: list[StateHookCallable]


def flow_hooks() -> FlowHooks:
    """For `@flow(**flow_hooks())`: a flow that reports its end, leaves nothing, keeps its result.

    Fresh lists, since Prefect keeps the list it is given. A result must be JSON-able.
    """
    return {
        "persist_result": True,
        "result_serializer": SERIALIZER,
        "on_completion": [report_run],
        "on_failure": [report_run],
        "on_cancellation": [stop_run, report_run],
        "on_crashed": [stop_run, report_run],
    }


def task_hooks() -> TaskHooks:
    """Hooks for tasks; `job_task` attaches them."""
    return {
        "on_running": [report_task],
        "on_completion": [report_task],
        "on_failure": [report_task],
    }


def stop_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Stop what the guard could not: the engine may have been killed. Then the run has ended."""
    try:
        for record in stop_leftovers(str(flow_run.id)):
            flow_run_logger(flow_run, flow).info("stopped %s of %s", record.program, record.key)
        if state.type == Type.CANCELLING:  # what a crash left elsewhere is found again
            for there in stop_left(str(flow_run.id)):
                flow_run_logger(flow_run, flow).info("stopped %s: %s", there.program, there.id)
        if state.type == Type.CANCELLING and known(str(flow_run.id)):
            settle(flow_run.id)
    except Exception:
        # The report must go out all the same; the traceback goes to the run's log.
        flow_run_logger(flow_run, flow).exception("what the run left could not be stopped")


def report_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell how a run ended."""
    try:
        run = known(str(flow_run.id))
        if run.dry if run else flow_run.parameters.get("dry_run"):
            return
        succeeded = state.type == Type.COMPLETED
        progress = 100 if succeeded else run.progress.percent if run else last_percent(flow_run.id)
        gaps.note()
        count = flow_run.run_count
        made = change(flow_run.id, state, masked, attempt=count, progress=progress)
        with ORDER:
            put(_in_turn(made))
        if flow_run.parent_task_run_id is None:
            flush(flow_run.id)
    except Exception:
        # A report must never change how a run ends; the traceback goes to the run's log.
        flow_run_logger(flow_run, flow).exception("the end of the run could not be reported")
        gaps.lost(flow_run.id)


def report_task(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """Tell a task's new state; with a success, how far its run has come."""
    _report(task_run, state)


def on_not_ready(flow_run_id: str, name: str, future: PrefectFuture[Any]) -> None:
    """Tell that a task will not start because another failed: Prefect calls no hook for it.

    Nor does it give the task its name, or the API its row in time: both are handed in.
    """
    future.wait()  # it is done, but only waiting makes it look at its state
    if future.state.name == "NotReady":
        _put(UUID(flow_run_id), future.state, task=name, task_run=str(future.task_run_id))


def on_delayed_retry(task_run: TaskRun) -> None:
    """Tell at once that an attempt failed and another follows: no hook is called until it does."""
    _report(task_run, State(type=Type.SCHEDULED, name="AwaitingRetry"))


def on_crash(task_run: TaskRun) -> None:
    """Tell that a task dies of a signal: Prefect calls no hook, and the state comes only after."""
    _report(task_run, State(type=Type.CRASHED, name="Crashed"))


def _report(task_run: TaskRun, state: State[Any]) -> None:
    of_task = {
        "task": task_run.name,
        "task_run": str(task_run.id),
        "attempt": max(1, task_run.run_count),
    }
    _put(task_run.flow_run_id, state, **of_task)


def _put(flow_run_id: UUID | None, state: State[Any], **of_task: Any) -> None:
    if flow_run_id is None:
        return  # a task called outside any flow has no run to report
    try:
        run = known(str(flow_run_id))
        if run and run.dry:
            return
        with ORDER:
            progress = run.progress.percent if run else None
            made = change(flow_run_id, state, masked, **of_task, progress=progress)
            put(_in_turn(made), soon=True)
    except Exception:
        get_logger("penstock").exception(
            "a state of task %r could not be reported", of_task["task"]
        )
        gaps.lost(flow_run_id)


def _in_turn(made: Change) -> Change:
    """`made`, later than what this process put before: `seq` comes from the time.

    States of two tasks may be made in one order and told in the other, and progress hangs on that.
    """
    global _latest  # noqa: PLW0603 - guarded by ORDER, one for the process as the outbox is
    _latest = max(datetime.fromisoformat(made.at), _latest + timedelta(microseconds=1))
    return replace(made, at=_latest.isoformat())


_latest = datetime.min.replace(tzinfo=UTC)
