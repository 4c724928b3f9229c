"""`run_command` and `guard`: what a program sees and shows, and that it never stays behind."""

import asyncio
import sys
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType

from blocks._command import Command
from blocks.errors import JobFailed
from flows import flow_hooks, guard, job_task
from flows._run import record
from flows._run.guard import current
from flows._run.keys import current_key
from flows._run.process import living
from flows._run.run_command import run_command, scratch

TREE = Path(__file__).parent.parent / "programs" / "tree.py"


def test_a_dying_task_is_told_and_what_it_started_is_gone(api, installation):
    started = []

    @job_task
    def dies():
        with scratch() as folder:
            run_command(
                Command([sys.executable, str(TREE)]),
                folder=folder,
                name="tree",
                on_tick=die_when_up,
            )

    def die_when_up():
        found = record.latest(current().root, current_key())
        if found and len(living(found)) == 2:
            started.append(found)
            raise SystemExit(3)

    @flow(**flow_hooks())
    @guard
    def crashing():
        dies()

    with pytest.raises(SystemExit):
        crashing()
    (found,) = started
    assert not living(found)
    run = api.read_flow_run(found.root)
    assert run.state.type == StateType.CRASHED
    assert installation.words(run.id) == [("dies", "running"), ("dies", "failed")]
    (end,) = installation.told(run.id, "progress")
    assert end["state"] == "failed"
    assert end["error"]


@pytest.mark.full
def test_an_async_flow_is_guarded_too(api, installation):
    found = []

    @job_task
    def works():
        with scratch() as folder:
            run_command(Command(["sleep", "600"]), folder=folder, name="sleep")

    @flow(**flow_hooks())
    @guard
    async def asynchronous():
        works.submit()
        while not found:
            found.extend(r for r in record.of_run(current().root) if r.pid)
            await asyncio.sleep(0.05)  # the task's thread sends us no event
        raise RuntimeError("while the program runs")

    with pytest.raises(RuntimeError):
        asyncio.run(asynchronous())
    assert not living(found[0])
    assert installation.words(found[0].root) == [("works", "running"), ("works", "failed")]


def test_a_child_sees_the_allowed_environment_and_nothing_else(api, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-children")
    monkeypatch.setenv("NAMED_BY_THE_BLOCK", "yes")
    lines: list[str] = []

    @job_task
    def show():
        command = Command(
            [sys.executable, "-c", "import os, sys; [print(k) for k in os.environ]; sys.exit(1)"],
            environment={"SET": "1"},
            pass_environment=["NAMED_BY_THE_BLOCK", "NOT_THERE"],
        )
        with scratch() as folder:
            try:
                run_command(command, folder=folder, name="show")
            except JobFailed as error:
                lines.extend(error.tail)

    @flow(**flow_hooks())
    @guard
    def environment():
        show()

    environment()
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"}
    allowed |= {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    named = {"SET", "NAMED_BY_THE_BLOCK", "PENSTOCK_RUN", "PENSTOCK_JOB"}
    seen = {line for line in lines if not line.startswith("LC_")}
    assert named <= seen
    assert seen <= allowed | named


def test_a_failure_shows_exit_code_and_last_lines_with_secrets_masked(api, eventually):
    @job_task
    def leaks():
        command = Command(
            ["sh", "-c", "echo first; echo token=$TOKEN; echo in-a-file=hunter2; exit 7"],
            secrets={"TOKEN": "s3cr3t-value"},
            masked=["hunter2"],
        )
        with scratch() as folder:
            run_command(command, folder=folder, name="the leaky program")

    @flow(**flow_hooks())
    @guard
    def leaking():
        leaks()

    state = leaking(return_state=True)
    assert "the leaky program exited with 7" in state.message
    assert "token=********" in state.message
    assert "in-a-file=********" in state.message
    run_id = state.state_details.flow_run_id
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    logs = eventually(
        lambda: [log.message for log in api.read_logs(of_run) if "token" in log.message]
    )
    assert not any("s3cr3t-value" in line or "hunter2" in line for line in logs)


def test_every_program_of_a_task_runs_at_every_try_under_a_key_of_its_own(api, tmp_path):
    ran = tmp_path / "ran"
    keys: list[list[str]] = []

    @job_task(retries=1)
    def several():
        with scratch() as folder:
            for number in (1, 2, 3):
                command = Command(["sh", "-c", f"echo {number} >> '{ran}'; echo {number}"])
                run_command(command, folder=folder, name="echo")
        found = sorted(record.of_run(current().root), key=lambda one: one.key)
        keys.append([f"{one.key}#{one.generation}" for one in found])
        if len(keys) == 1:
            raise ValueError("the first try")

    @flow(**flow_hooks())
    @guard
    def threefold():
        several()
        return current().id, [one.judged for one in record.of_run(current().root)]

    run_id, judged = threefold()
    assert ran.read_text().split() == ["1", "2", "3"] * 2
    names = [f"{run_id}/several/{index}" for index in ("0", "0/2", "0/3")]
    assert keys[0] == [f"{name}#1" for name in names]
    assert keys[1] == [f"{name}#{generation}" for name in names for generation in (1, 2)]
    assert judged == ["failed", "done"] * 3
