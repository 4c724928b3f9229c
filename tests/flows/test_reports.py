"""Reports of real runs, from the hook to the receiver: complete, in order, signed, in no way."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from prefect import flow, tags
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.logging import get_run_logger

from blocks import NotebookConfig
from flows import flow_hooks, guard, job_task
from flows._run.guard import current
from tests.receiver import Answer, Post

ROOT = Path(__file__).parents[2]
TERMINAL = {"success", "failed"}
THREE = [(f"works{n}", word) for n in ("", "-1", "-2") for word in ("running", "success")]


@job_task
def works(n: int = 0) -> int:
    return n


@job_task(retries=1)
def flaky(tried: list[int]) -> None:
    tried.append(1)
    if len(tried) == 1:
        raise ValueError("not yet")


@job_task
def broken() -> None:
    raise ValueError("never works")


def courier(home: Path) -> psutil.Process | None:
    """The courier of the session's home, if there is one."""
    for lock in home.glob("reports/*/courier.lock"):
        pid = int(lock.read_text() or 0)
        if pid and psutil.pid_exists(pid):
            return psutil.Process(pid)
    return None


def test_all_five_states_of_tasks_arrive_signed_and_the_runs_end_after_them(ear):
    @flow(**flow_hooks())
    @guard
    def states():
        flaky([])
        failed = broken.submit()
        works.submit(failed).wait()
        raise RuntimeError("no fuel")

    ear.save()
    with tags(ear.name):
        state = states(return_state=True)
    ear.receiver.wait(lambda: {p["state"] for p in ear.told("progress")} & TERMINAL, seconds=90)
    assert ear.words() == [
        ("flaky", "running"),
        ("flaky", "up_for_retry"),
        ("flaky", "success"),
        ("broken", "running"),
        ("broken", "failed"),
        ("works", "upstream_failed"),
    ]
    run = str(state.state_details.flow_run_id)
    assert {fields["run_id"] for fields in ear.told("status")} == {run}
    end = ear.told("progress")[-1]
    assert (end["state"], end["run_id"], "no fuel" in end["error"]) == ("failed", run, True)


def test_nothing_terminal_is_told_of_a_run_before_its_root_has_ended(ear, api):
    seen: list[str] = []

    def answer(post: Post) -> Answer:
        fields = ear.claims(post)
        if post.path != "/status" and fields.get("state", "success") in TERMINAL:
            seen.append(api.read_flow_run(fields["run_id"]).state.type.value)
        return 204

    @flow(**flow_hooks())
    @guard
    def child(good: bool):
        return works() if good else broken()

    @flow(**flow_hooks())
    @guard(parts=3)
    def root():
        child(True)
        child(False, return_state=True)
        works(1)
        return {"it": "is over"}

    ear.save()
    ear.receiver.answer = answer
    with tags(ear.name):
        root()
    ear.wait_for_results()
    assert seen == ["COMPLETED", "COMPLETED"]
    assert [p["state"] for p in ear.told("progress")][-1] == "success"
    steps = [p["progress"] for p in ear.told("progress")]
    assert steps == sorted(steps)
    assert ear.told("results")[0]["results"] == {"it": "is over"}


def test_a_run_whose_endpoint_was_down_is_told_completely_once_it_is_back(ear):
    @flow(**flow_hooks())
    @guard(parts=3)
    def unheard():
        return [works(n) for n in range(3)]

    ear.save()
    ear.receiver.down()
    with tags(ear.name):
        assert unheard() == [0, 1, 2]
    assert ear.receiver.posts == []
    ear.receiver.up()
    ear.wait_for_results()
    assert ear.words() == THREE
    assert [p["progress"] for p in ear.told("progress")] == [33, 66, 99, 100]


def test_refusals_are_warned_of_once_in_the_log_of_the_run(ear, api, eventually):
    refused = threading.Event()

    def answer(_: Post) -> Answer:
        if len(ear.receiver.posts) >= 2:
            refused.set()
            return 204
        return 403

    @flow(**flow_hooks())
    @guard
    def forbidden():
        works()
        return current().id

    ear.save()
    ear.receiver.answer = answer
    with tags(ear.name):
        run = forbidden()
    ear.wait_for_results()
    assert refused.is_set()
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    warnings = eventually(
        lambda: [log for log in api.read_logs(of_run) if log.name == "penstock.reports"]
    )
    assert len(warnings) == 1
    assert "403" in warnings[0].message
    assert ear.receiver.url not in warnings[0].message


def test_the_last_acknowledged_message_is_a_label_of_the_run(ear, api, eventually):
    @flow(**flow_hooks())
    @guard
    def labelled():
        works()
        return current().id

    ear.save()
    with tags(ear.name):
        run = labelled()
    name = f"penstock.told.report-endpoint/{ear.name}"
    label = eventually(lambda: api.read_flow_run(run).labels.get(name), seconds=60)
    assert label == f"told {ear.receiver.ids[-1]}"
    assert ear.receiver.posts[-1].path == "/results"


def test_a_courier_killed_while_it_posts_loses_nothing(ear, installation):
    came, killed = threading.Event(), threading.Event()

    def answer(post: Post) -> Answer:
        if not killed.is_set() and ear.claims(post).get("task_id") == "works-1":
            came.set()
            killed.wait(60)
            return None
        return 204

    @flow(**flow_hooks())
    @guard
    def interrupted():
        works()
        works()
        assert came.wait(60)
        if victim := courier(installation.home):
            victim.kill()
        killed.set()
        return works()

    ear.save(timeout=100)
    ear.receiver.answer = answer
    with tags(ear.name):
        interrupted()
    ear.wait_for_results()
    assert ear.words() == THREE


@pytest.mark.parametrize("format_", ["seed", "v1"])
def test_no_secret_of_a_run_is_told_though_its_errors_and_log_quote_it(ear, api, format_):
    secret, name = f"hunter2-{uuid4().hex}", f"secretive-{uuid4().hex[:8]}"
    NotebookConfig(secret_environment={"TOKEN": secret}).save(name)

    @job_task
    def leaks():
        held = current().settings.get(NotebookConfig, name)
        get_run_logger().warning("the token is %s", held.environment_secrets()["TOKEN"])
        raise ValueError(f"refused: {held.environment_secrets()}")

    @flow(**flow_hooks())
    @guard
    def leaky():
        leaks()

    ear.save(format=format_)
    with tags(ear.name):
        state = leaky(return_state=True)
    assert secret in state.message
    ended = b'"type": "progress"' if format_ == "v1" else b"payload"
    path = "/events" if format_ == "v1" else "/progress"
    ear.receiver.wait(
        lambda: [p for p in ear.receiver.posts if p.path == path and ended in p.body], seconds=90
    )
    if format_ == "v1":
        told = [json.loads(post.body) for post in ear.receiver.posts]
        ends = [one for one in told if one["type"] == "progress"]
        assert "refused" in ends[-1]["error"]["message"]
        lines = "\n".join(ends[-1]["error"]["log"])
        assert "the token is ***" in lines
        assert "refused: {'TOKEN': '***" in lines
    else:
        assert "refused: {'TOKEN': '***" in ear.told("progress")[-1]["error"]
        told = [ear.claims(post) for post in ear.receiver.posts]
    assert len(told) > 2
    assert secret not in json.dumps(told)
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    assert not [log for log in api.read_logs(of_run) if secret in log.message]


class Unusual:
    def __repr__(self) -> str:
        return "an unusual thing"


@pytest.mark.parametrize(
    ("serializer", "result"),
    [("compressed/json", {"caf\udce9": float("inf")}), ("pickle", [Unusual()])],
)
def test_a_run_whose_result_is_no_json_is_told_to_its_end(ear, serializer, result):
    hooks = {**flow_hooks(), "result_serializer": serializer}

    @flow(**hooks)
    @guard
    def odd():
        works()
        return result

    ear.save()
    with tags(ear.name):
        odd()
    ear.wait_for_results()
    assert ear.told("progress")[-1]["state"] == "success"


def test_no_trouble_of_an_endpoint_changes_how_a_run_ends(ear):
    @flow(**flow_hooks())
    @guard
    def unmoved():
        return works(7)

    ear.save(ca_file="/nowhere", url="https://me:hunter2@localhost:1")
    with tags(ear.name):
        assert unmoved() == 7
    ear.key.unlink()
    ear.save()
    with tags(ear.name):
        assert unmoved(return_state=True).is_completed()
    assert ear.receiver.posts == []


PROGRAM = """
import sys, threading
from prefect import flow, tags
from flows import flow_hooks, guard, job_task

@job_task
def works(n):
    return n

@flow(**flow_hooks())
@guard(parts=3)
def goes_on():
    works(0)
    print("ready", flush=True)
    sys.stdin.readline()
    return [works(n) for n in (1, 2)]

with tags(sys.argv[1]):
    print(goes_on(), flush=True)
"""


@pytest.mark.alone("restarts the server that the others use")
@pytest.mark.full
def test_a_run_is_told_completely_though_the_server_was_away_meanwhile(ear, installation):
    ear.save()
    environment = {
        **installation.environment,
        "PREFECT_API_URL": installation.api_url,
        "PREFECT_HOME": os.environ["PREFECT_HOME"],
        "PYTHONPATH": str(ROOT),
    }
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, ear.name],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdin
    assert run.stdout
    assert run.stdout.readline() == "ready\n"
    services = json.loads((installation.home / "services.json").read_text())
    server = psutil.Process(services["server"]["pid"])
    processes = [*server.children(recursive=True), server]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=30)  # `up` would take one that is just dying for alive
    run.stdin.write("on\n")
    run.stdin.flush()
    port = installation.api_url.split(":")[2].removesuffix("/api")
    done = installation.command("up", "--port", port)
    assert done.code == 0, done.out + done.err
    assert run.communicate(timeout=100)[0] == "[1, 2]\n"
    ear.wait_for_results()
    assert ear.words() == THREE
