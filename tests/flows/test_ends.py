"""Ways for a run to end that no other test tells: its own time-out, Prefect's CLI, all killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow, tags
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment

from flows import flow_hooks, guard, job_task
from flows._run import record as records
from flows._run.engine import engine_of
from flows._run.process import LOG
from tests.conftest import Installation

PROGRAMS = Path(__file__).parent.parent / "programs"


@job_task
def works(seconds: float = 0) -> int:
    threading.Event().wait(seconds)
    return 1


def prefect(*words: str) -> list[str]:
    """What runs Prefect's own command."""
    return [sys.executable, "-m", "prefect", *words]


@contextmanager
def alarms() -> Iterator[None]:
    """As outside pytest: for a time-out Prefect takes SIGALRM, unless somebody else has it."""
    theirs = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, theirs)


def environment(installation: Installation, **more: str) -> dict[str, str]:
    return {
        **installation.environment,
        "PREFECT_API_URL": installation.api_url,
        "PREFECT_HOME": os.environ["PREFECT_HOME"],
        **more,
    }


def all_gone(run_id: object) -> bool:
    there = list(records.of_run(str(run_id)))
    return bool(there) and all(record.gone_at for record in there)


@pytest.mark.parametrize(
    "where", ["in a task", pytest.param("in the flow", marks=pytest.mark.full)]
)
def test_a_run_that_takes_longer_than_its_flow_allows_is_told_as_failed(ear, where):
    @flow(timeout_seconds=3, **flow_hooks())
    @guard
    def slow():
        works()
        works(60) if where == "in a task" else threading.Event().wait(60)

    ear.save()
    with tags(ear.name), alarms():
        state = slow(return_state=True)
    run = str(state.state_details.flow_run_id)
    assert (state.name, state.is_failed()) == ("TimedOut", True)
    ear.receiver.wait(lambda: any(p["state"] == "failed" for p in ear.told("progress")), seconds=60)
    end = ear.told("progress")[-1]
    assert (end["run_id"], end["state"]) == (run, "failed")
    assert "timed out" in end["error"].lower() or "timeout" in end["error"].lower()
    assert end["progress"] < 100
    assert ear.told("results") == []


@pytest.mark.full
def test_a_run_of_the_worker_that_is_cancelled_by_prefects_command_is_told(
    installation, api, eventually, tmp_path
):
    (tmp_path / "long.cwl").write_text(
        "{cwlVersion: v1.2, class: CommandLineTool, inputs: [], outputs: [], "
        f"baseCommand: [python3, {PROGRAMS / 'tree.py'}]}}"
    )
    deployment = api.read_deployment_by_name("cwl-job/cwl")
    run = api.create_flow_run_from_deployment(
        deployment.id, parameters={"workflow": str(tmp_path / "long.cwl")}
    )
    eventually(lambda: any(r.pid for r in records.of_run(str(run.id))), seconds=90)
    cancel = prefect("flow-run", "cancel", str(run.id))
    done = subprocess.run(cancel, env=environment(installation), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    eventually(lambda: all_gone(run.id), seconds=20)
    eventually(lambda: api.read_flow_run(run.id).state.is_cancelled(), seconds=30)  # noqa: PLW0108 - read anew
    (end,) = eventually(lambda: installation.told(run.id, "progress"), seconds=30)
    assert (end["state"], end["progress"] < 100) == ("failed", True)
    assert [state for _, state in installation.words(run.id)] == ["running", "failed"]


@pytest.fixture
def own_worker(installation, api):
    """A worker that may be killed, for a pool of its own; gives the pool's name."""
    pool = f"own-{uuid4().hex[:8]}"
    api.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    worker = subprocess.Popen(
        prefect("worker", "start", "--pool", pool, "--type", "process"),
        env=environment(installation, PREFECT_WORKER_QUERY_SECONDS="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield pool, worker
    worker.kill()
    worker.wait()


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_run_whose_worker_and_engine_are_killed_together_is_called_crashed_and_told(
    installation, api, eventually, own_worker
):
    pool, worker = own_worker
    deployment = RunnerDeployment.from_entrypoint(
        f"{PROGRAMS.relative_to(Path.cwd())}/grove.py:grove",
        name=pool,
        work_pool_name=pool,
        job_variables={"stream_output": False},
    )
    # A run's process copies the whole folder that the flow's file is in: not the checkout.
    deployment._path, deployment.entrypoint = str(PROGRAMS), "grove.py:grove"
    parameters = {"name": pool, "seconds": 900}
    run = api.create_flow_run_from_deployment(deployment.apply(), parameters=parameters)

    def trees() -> bool:
        there = list(records.of_run(str(run.id)))
        return len(there) == 2 and all(r.pid and (Path(r.folder) / LOG).exists() for r in there)

    eventually(trees, seconds=90)
    engine = engine_of(str(run.id))
    assert engine
    worker.kill()  # first: it must not see what became of the engine
    os.kill(engine.pid, signal.SIGKILL)
    worker.wait()
    eventually(lambda: all_gone(run.id), seconds=10)
    eventually(lambda: api.read_flow_run(run.id).state.is_crashed(), seconds=180, every=1)  # noqa: PLW0108 - read anew
    (end,) = eventually(lambda: installation.told(run.id, "progress"))
    assert end["state"] == "failed"
    assert end["error"].startswith("the run vanished: ")
