"""Flow runs of this installation, through the Prefect API: start, look at, cancel."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling

from blocks.errors import ConfigError
from deployments.local.parameters import check_parameters
from deployments.local.server import POOL

POLL = 0.5  # seconds between two looks at a run
_OPEN = [StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED, StateType.CANCELLING]


def trigger(client: SyncPrefectClient, deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a run of `deployment` (`name` or `flow/name`), as the UI would.

    Raises ConfigError for one that does not exist, and for parameters that its schema refuses.
    """
    found = next(
        (
            known
            for known in client.read_deployments(limit=200)
            if deployment in (known.name, f"{client.read_flow(known.flow_id).name}/{known.name}")
        ),
        None,
    )
    if found is None:
        names = sorted(known.name for known in client.read_deployments(limit=200))
        raise ConfigError(f"no deployment is called {deployment!r}; there are {', '.join(names)}")
    check_parameters(found, parameters)
    try:
        return client.create_flow_run_from_deployment(found.id, parameters=parameters)
    except PrefectHTTPStatusError as error:
        raise ConfigError(f"{deployment} refused the parameters: {error.response.text}") from None


@dataclass
class Tree:
    """A run with its child runs and all their tasks, as the API has them now."""

    root: FlowRun
    children: list[FlowRun] = field(default_factory=list)
    tasks: list[TaskRun] = field(default_factory=list)  # those that stand for a child run left out
    percent: dict[UUID, int] = field(default_factory=dict)  # by task run and by flow run
    flow_names: dict[UUID, str] = field(default_factory=dict)  # of the children

    @property
    def settled(self) -> bool:
        """Whether the run has ended, and everything in it too, as far as the API knows yet."""
        runs: list[FlowRun | TaskRun] = [self.root, *self.children, *self.tasks]
        states = [run.state for run in runs]
        return all(state is not None and state.is_final() for state in states)


def look(client: SyncPrefectClient, flow_run_id: UUID) -> Tree:
    """The run's whole tree."""
    tree = Tree(client.read_flow_run(flow_run_id))
    level = [flow_run_id]
    while level:
        below = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=level)
            )
        )
        tree.children.extend(below)
        level = [run.id for run in below]
    ids = [flow_run_id, *(child.id for child in tree.children)]
    stand_ins = {child.parent_task_run_id: child.id for child in tree.children}
    for task in _tasks(client, ids):
        if child_id := stand_ins.get(task.id):
            tree.flow_names[child_id] = task.name.rpartition("-")[0]
        else:
            tree.tasks.append(task)
    artifacts = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=ids))
    )
    for artifact in artifacts:
        if artifact.type == "progress" and (about := artifact.task_run_id or artifact.flow_run_id):
            tree.percent[about] = int(float(str(artifact.data)))
    return tree


def _tasks(client: SyncPrefectClient, flow_run_ids: list[UUID]) -> Iterator[TaskRun]:
    offset = 0
    while page := client.read_task_runs(
        task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=flow_run_ids)),
        sort=TaskRunSort.EXPECTED_START_TIME_ASC,
        limit=200,
        offset=offset,
    ):
        yield from page
        offset += len(page)


def cancel(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    """Ask for a run's end, as the UI's button does."""
    with suppress(ObjectNotFound):
        client.set_flow_run_state(flow_run_id, Cancelling())


def cancel_open_runs(patience: float = 40.0) -> int:
    """Cancel what is open in our pool, wait until it has ended; returns how many runs that were."""
    with get_client(sync_client=True) as client:

        def open_runs() -> list[FlowRun]:
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN))
                ),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
            )
            # What a schedule has planned stays: once cancelled, it would not be planned again.
            return [run for run in found if not (run.auto_scheduled and _planned(run))]

        there = open_runs()
        for run in there:
            cancel(client, run.id)
        deadline = time.monotonic() + patience
        while open_runs() and time.monotonic() < deadline:
            time.sleep(POLL)
        return len(there)


def _planned(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_scheduled()


def left_alive(flow_run_id: UUID, except_pids: set[int]) -> list[dict[str, Any]]:
    """Processes of this machine that still carry the run's mark."""
    marks = ("PENSTOCK_RUN", "PREFECT__FLOW_RUN_ID")
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if process.pid not in except_pids and any(
                environment.get(mark, "") == str(flow_run_id) for mark in marks
            ):
                found.append({"pid": process.pid, "command": " ".join(process.cmdline())[:200]})
        except psutil.Error:
            continue  # another user's, or gone meanwhile
    return found
