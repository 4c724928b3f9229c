"""Progress in the UI: the last value gets there, and a server that is away stops no job."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)

from blocks._command import Command
from flows import flow_hooks, guard, job_task
from flows._run.guard import current
from flows._run.published import Published, settle
from flows._run.run_command import run_command, scratch, task_progress

COUNT = "import time\nfor n in range(30): print(n, flush=True); time.sleep(0.1)"


def shown(api, run_id) -> dict[str, float]:
    """What the progress artifacts of a run say, by what they are about."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    found = api.read_artifacts(artifact_filter=of_run)
    return {one.description: one.data for one in found if one.type == "progress"}


@pytest.fixture
def published(api):
    """An artifact of a run that exists."""

    @flow
    def some():
        return None

    return Published(api.create_flow_run(some).id, None, "mine")


def test_a_value_that_comes_too_soon_is_postponed_not_dropped(api, published, eventually):
    for percent in (10, 20, 30):
        published.show(percent)
    eventually(lambda: shown(api, published.flow_run_id) == {"mine": 30.0}, seconds=5)


def test_the_end_of_a_run_waits_for_no_interval(api, published):
    for percent in (10, 20):
        published.show(percent)
        settle(str(published.flow_run_id))
        assert shown(api, published.flow_run_id) == {"mine": percent}


def test_the_last_values_are_written_before_the_run_ends_also_when_a_task_fails(api):
    @job_task
    def half():
        tell = task_progress("halves")
        for share in (0.1, 0.2, 0.5):
            tell(share)
        raise ValueError("no more")

    @flow(**flow_hooks())
    @guard(parts=2)
    def halves():
        half()

    run_id = halves(return_state=True).state_details.flow_run_id
    assert shown(api, run_id) == {"halves": 50.0, "progress of the run": 25.0}


@contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}/api"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, answers none
        yield f"http://127.0.0.1:{deaf.getsockname()[1]}/api"


@contextmanager
def broken() -> Iterator[str]:
    class Broken(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(500)

        do_POST = do_PATCH = do_GET

        def log_message(self, *args):
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.mark.full
@pytest.mark.parametrize("away", [refusing, silent, broken])
def test_a_job_goes_on_and_its_log_too_while_the_server_is_away(api, away, monkeypatch, eventually):
    spent: list[float] = []
    there = True

    with (
        away() as url,
        SyncPrefectClient(url, httpx_settings={"timeout": httpx.Timeout(30)}) as gone,
    ):
        monkeypatch.setattr("flows._run.published.api", lambda: api if there else gone)

        @job_task
        def counts():
            nonlocal there
            tell = task_progress("counting")
            tell(0.01)
            settle(current().id)
            there = False

            def on_tick():
                began = time.monotonic()
                tell(0.01 * len(spent))
                spent.append(time.monotonic() - began)

            with scratch() as folder:
                command = Command([sys.executable, "-c", COUNT])
                run_command(command, folder=folder, name="count", on_tick=on_tick)

        @flow(**flow_hooks())
        @guard(parts=1)
        def counting():
            counts()

        state = counting(return_state=True)
    run_id = state.state_details.flow_run_id
    assert state.is_completed(), state.message
    assert shown(api, run_id)["counting"] == 1.0
    assert len(spent) > 10
    assert max(spent) < 1, "a job waits for no server"
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))

    def logged():
        return [log.message for log in api.read_logs(of_run, limit=200)]

    eventually(lambda: "29" in logged())
    lines = logged()
    assert sum("progress cannot be shown for now" in line for line in lines) <= 2
    assert [line for line in lines if line.isdigit()] == [str(n) for n in range(30)]
