"""Whoever is killed, however the run was started: nothing is left alive, and the end is told right.

The rows are the ways to run a flow, times what can happen to it. Each run has two trees of programs
that ignore SIGTERM, with a grandchild in a session of its own, started from tasks in threads.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.deployments.runner import RunnerDeployment
from prefect.states import Cancelling

from flows._run import record as records
from flows._run.engine import Engine, engine_of
from flows._run.process import LOG

pytestmark = pytest.mark.full

GROVE = "tests/programs/grove.py"
LONG, SHORT = 900.0, 12.0  # seconds the trees stand: until they are felled, or until they end


@dataclass
class Started:
    """A run whose trees stand, and the process that was started to run it."""

    id: UUID
    starter: subprocess.Popen[bytes]
    engine: Engine
    pids: set[int] = field(default_factory=set)

    def alive(self) -> set[int]:
        return {pid for pid in self.pids if lives(pid)}


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def grove(installation, api, eventually, monkeypatch):
    """Starts a grove in one of the four ways; ends what it started."""
    name = f"grove-{uuid4().hex[:8]}"
    processes: list[subprocess.Popen] = []

    def spawn(*argv: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *argv],
            env={
                **installation.environment,
                "PREFECT_API_URL": installation.api_url,
                "PREFECT_HOME": os.environ["PREFECT_HOME"],
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "PREFECT_RUNNER_POLL_FREQUENCY": "1",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        processes.append(process)
        return process

    def trigger(seconds: float, pool: str | None):
        deployment = RunnerDeployment.from_entrypoint(
            f"{GROVE}:grove",
            name=name,
            work_pool_name=pool,
            job_variables={"stream_output": False} if pool else None,
        )
        # A run's process copies the whole folder that the flow's file is in: not the checkout.
        deployment._path, deployment.entrypoint = (
            str(Path(GROVE).parent.resolve()),
            "grove.py:grove",
        )
        return api.create_flow_run_from_deployment(
            deployment.apply(), parameters={"name": name, "seconds": seconds}
        )

    def direct(seconds: float) -> subprocess.Popen:
        return spawn(GROVE, name, str(seconds))

    def serve(seconds: float) -> subprocess.Popen:
        server = spawn(GROVE, name, str(seconds), "serve")
        found = eventually(
            lambda: [d for d in api.read_deployments() if d.name == name], seconds=60
        )
        api.create_flow_run_from_deployment(found[0].id)
        return server

    def worker(seconds: float) -> subprocess.Popen:
        api.create_work_pool(WorkPoolCreate(name=name, type="process"))
        trigger(seconds, name)
        return spawn("-m", "prefect", "worker", "start", "--pool", name, "--type", "process")

    def execute(seconds: float, behavior: str = "crash") -> subprocess.Popen:
        run = trigger(seconds, None)
        return spawn(
            *("-m", "prefect", "flow-run", "execute", str(run.id)),
            PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR=behavior,
        )

    def trees(run_id: UUID) -> set[int]:
        """Every pid of the two trees, once both stand."""
        pids: set[int] = set()
        for record in records.of_run(str(run_id)):
            log = Path(record.folder) / LOG
            grandchild = log.read_text().split() if log.exists() else []
            if record.pid and grandchild:
                pids |= {record.pid, int(grandchild[0])}
        return pids if len(pids) == 4 else set()

    def start(way: str, seconds: float = LONG, **options) -> Started:
        ways: dict[str, Callable[..., subprocess.Popen[bytes]]] = {
            "direct": direct,
            "serve": serve,
            "worker": worker,
            "execute": execute,
        }
        starter = ways[way](seconds, **options)
        named = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        (run,) = eventually(lambda: api.read_flow_runs(flow_run_filter=named), seconds=60)
        pids = eventually(lambda: trees(run.id), seconds=60)
        engine = engine_of(str(run.id))
        assert engine
        return Started(run.id, starter, engine, pids)

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def state(api):
    return lambda run: api.read_flow_run(run.id).state


@pytest.fixture
def ended(api, eventually, state):
    """Waits until nothing of a run is left, and asserts that all that is written says so, too."""

    def wait(run: Started, name: str) -> None:
        eventually(lambda: not run.engine.alive, seconds=60)
        eventually(lambda: not run.alive(), seconds=10)
        eventually(lambda: all(r.gone_at for r in records.of_run(str(run.id))), seconds=10)
        eventually(lambda: state(run).name == name, seconds=45)

    return wait


@pytest.fixture
def told(installation, eventually):
    """Waits until the end of a run was told, and asserts that it was told once, and how."""

    def wait(run: Started, word: str) -> None:
        def ends():
            return [m for m in installation.told(run.id, "progress") if m["state"] != "running"]

        eventually(ends, seconds=30)
        assert [m["state"] for m in ends()] == [word]

    return wait


def cancel(api, run: Started) -> None:
    api.set_flow_run_state(run.id, Cancelling())


@pytest.mark.parametrize("way", ["direct", "serve", "worker", "execute"])
def test_a_cancelled_run_ends_cancelled_and_is_told_once(api, grove, ended, told, way):
    run = grove(way)
    cancel(api, run)
    ended(run, "Cancelled")
    told(run, "failed")
    states = [s.name for s in api.read_flow_run_states(run.id)]
    assert states.count("Cancelled") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_direct_call_that_gets_a_signal_ends_crashed(grove, ended, told, number):
    run = grove("direct")
    run.starter.send_signal(number)
    ended(run, "Crashed")
    told(run, "failed")


@pytest.mark.parametrize("way", ["serve", "worker"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_an_engine_that_is_killed_ends_its_run_crashed(grove, ended, told, way, number):
    run = grove(way)
    os.kill(run.engine.pid, number)
    ended(run, "Crashed")
    told(run, "failed")


def test_an_engine_in_a_container_that_runs_out_of_memory_ends_its_run_crashed(grove, ended, told):
    run = grove("execute")
    os.kill(run.engine.pid, signal.SIGKILL)
    ended(run, "Crashed")
    told(run, "failed")


def test_a_direct_call_that_is_killed_leaves_nothing_and_sweep_tells_its_end(
    installation, grove, ended, told
):
    run = grove("direct")
    run.starter.kill()
    run.starter.wait()
    ended(run, "Running")  # nobody was left to say more
    swept = installation.command("sweep", PREFECT_API_URL=installation.api_url)
    assert swept.code == 0, swept.err
    assert f"called run {run.id} Crashed" in swept.out
    ended(run, "Crashed")
    told(run, "failed")


def test_a_run_whose_server_of_flows_is_told_to_end_is_told_as_it_ends(
    eventually, grove, ended, told, state
):
    run = grove("serve", SHORT)
    run.starter.terminate()
    eventually(lambda: state(run).is_final(), seconds=60)
    name = state(run).name
    assert name in ("Cancelled", "Completed")  # Prefect 3.9 cancels; 3.8 lets the run go on
    ended(run, name)
    told(run, "success" if name == "Completed" else "failed")


@pytest.mark.parametrize("way", ["serve", "worker"])
def test_a_run_whose_starter_is_killed_goes_on_and_is_told(
    installation, eventually, grove, ended, told, way
):
    run = grove(way, SHORT)
    run.starter.kill()
    run.starter.wait()
    assert run.alive() == run.pids
    ended(run, "Completed")
    told(run, "success")
    eventually(lambda: installation.told(run.id, "results"))
    assert installation.told(run.id, "results")[0]["results"] == ["felled", "felled"]


def test_a_worker_that_is_told_to_end_leaves_nothing_and_sweep_tells_the_end(
    installation, grove, ended, told, state
):
    run = grove("worker")
    run.starter.terminate()
    run.starter.wait(timeout=45)
    ended(run, state(run).name)
    if not state(run).is_final():
        swept = installation.command("sweep", PREFECT_API_URL=installation.api_url)
        assert swept.code == 0, swept.err
    ended(run, "Crashed")
    told(run, "failed")


def test_a_container_that_is_stopped_leaves_nothing_and_sweep_tells_the_end(
    installation, grove, ended, told
):
    run = grove("execute")
    run.starter.terminate()
    run.starter.wait(timeout=45)
    os.kill(run.engine.pid, signal.SIGKILL)  # as the end of a container does
    ended(run, "Running")
    swept = installation.command("sweep", PREFECT_API_URL=installation.api_url)
    assert swept.code == 0, swept.err
    ended(run, "Crashed")
    told(run, "failed")


def test_a_rescheduled_run_leaves_nothing_and_is_run_again(api, grove, ended):
    run = grove("execute", behavior="reschedule")
    run.starter.terminate()
    assert run.starter.wait(timeout=45) == 0
    ended(run, "AwaitingRetry")


def test_a_relinquished_run_leaves_nothing_and_stays_running_for_the_next_pod(grove, ended):
    run = grove("execute", behavior="relinquish")
    run.starter.terminate()
    assert run.starter.wait(timeout=45) == 1
    ended(run, "Running")


@pytest.mark.parametrize("way", ["direct", "worker"])
def test_a_fresh_process_stops_a_run_by_its_name_and_its_end_is_told(
    installation, grove, ended, told, way
):
    run = grove(way)
    stopped = installation.command("stop", str(run.id), PREFECT_API_URL=installation.api_url)
    assert stopped.code == 0, stopped.err
    assert "is Cancelled" in stopped.out
    ended(run, "Cancelled")
    told(run, "failed")


def test_a_fresh_process_stops_a_run_whose_process_and_shim_were_killed_and_tells_its_end(
    installation, grove, ended, told
):
    run = grove("direct")
    shims = {record.shim_pid for record in records.of_run(str(run.id))}
    for pid in [*shims, run.engine.pid]:
        os.kill(pid, signal.SIGKILL)
    run.starter.wait()
    assert run.alive()
    dry = installation.command(
        "stop", str(run.id), "--dry-run", PREFECT_API_URL=installation.api_url
    )
    assert "would stop" in dry.out
    assert run.alive()
    stopped = installation.command("stop", str(run.id), PREFECT_API_URL=installation.api_url)
    assert "is Cancelled" in stopped.out
    ended(run, "Cancelled")
    told(run, "failed")
