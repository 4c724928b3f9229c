"""A run whose process is gone becomes Crashed and is told; a run that lives, or waits, does not."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.states import AwaitingRetry, Running, Suspended

from flows._reports.pulse import SILENT
from tests.conftest import Installation, clean_environment

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parent.parent / "programs" / "pulse.py"


@flow
def nothing(): ...


@pytest.fixture
def own(tmp_path) -> Iterator[Installation]:
    """An installation whose server may be taken away: no other test's events are lost with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mine = Installation(
        tmp_path / "own",
        {**clean_environment(), "PENSTOCK_HOME": str(tmp_path / "own")},
        f"http://127.0.0.1:{port}/api",
    )
    up(mine)
    yield mine
    assert mine.command("down", "--kill").code == 0


def up(mine: Installation) -> None:
    port = mine.api_url.split(":")[2].removesuffix("/api")
    done = mine.command("up", "--port", port)
    assert done.code == 0, done.out + done.err


@pytest.fixture
def start(eventually, tmp_path) -> Iterator[Callable[..., Any]]:
    """Starts a run, here or as if on another machine; gives its id and its process."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(
        installation: Installation, api: Any, how: str, *, here: bool = False
    ) -> tuple[Any, subprocess.Popen[bytes]]:
        name = f"{how}-{uuid4().hex[:8]}"
        environment = {
            **installation.environment,
            "PREFECT_API_URL": installation.api_url,
            "PREFECT_HOME": os.environ["PREFECT_HOME"],
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PENSTOCK_HOME": str(installation.home if here else tmp_path / "elsewhere"),
        }
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), name, how],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        processes.append(process)
        named = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        (run,) = eventually(lambda: api.read_flow_runs(flow_run_filter=named), seconds=60)
        return run.id, process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def beaten(api, state):
    """A run that sent a heartbeat, and waits now: its process has ended, as it should."""
    run = api.create_flow_run(nothing, state=Running())
    of_run = {"prefect.resource.id": f"prefect.flow-run.{run.id}"}
    emit_event("prefect.flow-run.heartbeat", resource=of_run)
    api.set_flow_run_state(run.id, state, force=True)
    return run.id


def test_what_is_gone_is_called_crashed_and_what_lives_or_waits_is_not(
    start, installation, api, eventually
):
    def state(run_id):
        return api.read_flow_run(run_id).state

    begin = partial(start, installation, api)
    waiting = [beaten(api, Suspended(timeout_seconds=3600)), beaten(api, AwaitingRetry())]
    living = [begin("retries")[0], begin("busy", here=True)[0], begin("lives")[0]]
    gone = [begin("dies", here=True), begin("dies")]
    time.sleep(40)  # two heartbeats: how often they come is known from then on
    for _, process in gone:
        process.kill()
    killed = time.monotonic()
    for run_id, _ in gone:
        eventually(lambda run_id=run_id: state(run_id).is_crashed(), seconds=180, every=1)
        print(f"Crashed {time.monotonic() - killed:.0f} s after its end: {state(run_id).message}")
        (end,) = eventually(lambda run_id=run_id: installation.told(run_id, "progress"))
        # The sweep of another test may see first that the process of the one that ran here is gone.
        assert end["error"].startswith(("the run vanished: ", "the process that ran it is gone"))
    time.sleep(max(0.0, killed + 1.7 * SILENT - time.monotonic()))  # the others were silent so long
    assert [state(run_id).type for run_id in waiting] == [StateType.PAUSED, StateType.SCHEDULED]
    assert {state(run_id).type for run_id in living} <= {StateType.RUNNING, StateType.SCHEDULED}


def test_no_run_is_called_crashed_because_the_server_was_away(start, own):
    with SyncPrefectClient(own.api_url) as api:
        run_id, _ = start(own, api, "lives")
    time.sleep(40)  # two heartbeats
    services = json.loads((own.home / "services.json").read_text())
    server = psutil.Process(services["server"]["pid"])
    server.kill()
    server.wait()
    time.sleep(120)  # as long as it is to be away
    up(own)
    time.sleep(1.5 * SILENT)  # so long a silence would be enough
    with SyncPrefectClient(own.api_url) as api:
        assert api.read_flow_run(run_id).state.is_running()
