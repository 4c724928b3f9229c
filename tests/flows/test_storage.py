"""Results that only one machine could read are refused before anything is started."""

from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.flow_engine import run_flow

from blocks.errors import ConfigError
from flows import flow_hooks, guard

started: list[str] = []


class Other:
    """A kind of storage that no run here has."""


@flow(**flow_hooks())
@guard
def keeps(name: str):
    started.append(name)


@pytest.fixture
def run_in(api):
    """Runs a flow as a run of a work pool of some type; gives its last state."""
    pools = []

    def run_in(kind: str, job):
        name = f"pool-{uuid4().hex[:8]}"
        api.create_work_pool(WorkPoolCreate(name=name, type=kind))
        pools.append(name)
        made = api.create_deployment(api.create_flow(job), name, work_pool_name=name)
        run = api.create_flow_run_from_deployment(made, parameters={"name": name})
        return name, run_flow(job, flow_run=run, parameters={"name": name}, return_type="state")

    yield run_in
    for name in pools:
        api.delete_work_pool(name)


@pytest.mark.alone(reason="the doctor finds fault with such a pool")
def test_a_local_folder_is_refused_where_runs_are_on_other_machines(run_in):
    name, state = run_in("kubernetes", keeps)
    with pytest.raises(ConfigError, match=rf"work pool '{name}' \(kubernetes\) are on others"):
        state.result()
    assert name not in started


@pytest.mark.alone(reason="the doctor finds fault with such a pool")
def test_a_store_that_all_can_reach_is_taken(run_in, monkeypatch):
    monkeypatch.setattr("flows._run.storage.LocalFileSystem", Other)
    name, state = run_in("kubernetes", keeps)
    assert state.is_completed()
    assert name in started


def test_a_local_folder_is_right_for_a_pool_of_this_machine(run_in):
    name, state = run_in("process", keeps)
    assert state.is_completed()
    assert name in started
