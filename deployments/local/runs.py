"""Flow runs of this installation, through the Prefect API: start, look at, cancel."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort, TaskRunSort
from prefect.exceptions import PrefectHTTPStatusError

from blocks.errors import ConfigError
from deployments.local.parameters import check_parameters
from deployments.local.server import POOL

POLL = 0.5  # seconds between two looks at a run
LISTED = 50  # how many deployments an error names
_BEGUN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def trigger(client: SyncPrefectClient, deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a run of `deployment` (`name` or `flow/name`), as the UI would.

    Raises ConfigError for one that does not exist, for one that several flows have, and for
    parameters that its schema refuses.
    """
    found = _deployment(client, deployment)
    check_parameters(found, parameters)
    try:
        return client.create_flow_run_from_deployment(found.id, parameters=parameters)
    except PrefectHTTPStatusError as error:
        raise ConfigError(f"{deployment} refused the parameters: {error.response.text}") from None


def _deployment(client: SyncPrefectClient, called: str) -> DeploymentResponse:
    """The one that is called so; the server looks, which may have any number of them."""
    flow, _, name = called.rpartition("/")
    found = client.read_deployments(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])),
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])) if flow else None,
    )
    if not found:
        page = client.read_deployments(sort=DeploymentSort.NAME_ASC, limit=LISTED + 1)
        names = [known.name for known in page[:LISTED]] + ["…"] * (len(page) > LISTED)
        raise ConfigError(f"no deployment is called {called!r}; there are {', '.join(names)}")
    if len(found) > 1:
        names = sorted(f"{client.read_flow(one.flow_id).name}/{one.name}" for one in found)
        raise ConfigError(f"{called!r} is a deployment of several flows: say {' or '.join(names)}")
    return found[0]


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


def cancel_and_wait(client: SyncPrefectClient, ids: Iterable[UUID], patience: float = 45.0) -> None:
    """Ask for the end of runs, as the UI's button does, and wait until they have ended."""
    resolve_name("flows._run.stop:cancel_and_wait")(client, ids, patience)


def cancel_open_runs(*, own_server: bool, patience: float = 45.0) -> int:
    """Cancel what this installation runs and wait for its end; returns how many runs that were.

    Those are the runs that a living process of this home has begun; on our own server also
    those that a worker was handed. What is only scheduled stays: it is for later, or for others.
    """
    ids: set[UUID] = set(resolve_name("flows._run.engine:runs_of_living_engines")())
    with get_client(sync_client=True) as client:
        there = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=list(ids)),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_BEGUN)),
            )
        )
        if own_server:
            there += client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))
                ),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
            )
        cancelled = {run.id for run in there}
        cancel_and_wait(client, cancelled, patience)
        return len(cancelled)


def left_alive(flow_run_id: UUID, except_pids: set[int]) -> list[dict[str, Any]]:
    """Processes of this machine that still carry the run's mark."""
    marks = (resolve_name("flows._run.procfs:RUN_MARK"), "PREFECT__FLOW_RUN_ID")
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
