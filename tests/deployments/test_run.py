"""`penstock run`: its exit code, what it says and writes, bad input and Ctrl-C."""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.deployments.runner import RunnerDeployment
from prefect.states import Completed, Pending, Running, Scheduled

from blocks._changes import Change
from blocks._messages import Message, Names, messages
from blocks.errors import ConfigError
from deployments.listener.store import Heard
from deployments.local.judge import Verdict, judge
from deployments.local.run import _Run
from deployments.local.runs import Tree, cancel_open_runs, left_alive, trigger
from deployments.local.server import POOL

CHECKOUT = Path(__file__).parent.parent.parent
MIXED = CHECKOUT / "tests" / "programs" / "mixed.py"


def test_a_run_whose_reports_all_came_exits_with_0(installation, echo):
    done = installation.run("cwl", echo)
    assert done.code == 0, done.out + done.err
    last = installation.last
    assert last["state"] == "Completed"
    assert last["reports"] == {
        "expected": 5,
        "verified": 5,
        "missing": [],
        "unexplained": [],
        "forged": 0,
        "progress_fell": False,
    }
    assert last["left_alive"] == []
    assert {"up", "pending", "tool", "run", "trigger_to_last_report"} <= set(last["seconds"])
    assert "5 of 5 reports verified" in done.out
    assert last["flow_run_id"] in done.out


@pytest.mark.full
@pytest.mark.parametrize(("name", "states"), [("hooked", 7), ("unhooked", 5)])
def test_a_run_of_a_flow_with_plain_tasks_is_judged_complete(installation, api, name, states):
    mine = RunnerDeployment.from_entrypoint(
        f"{MIXED}:{name}", name=f"mixed-{uuid4().hex[:8]}", work_pool_name=POOL
    )
    mine._path, mine.entrypoint = str(MIXED.parent), f"{MIXED.name}:{name}"
    deployment = mine.apply()
    done = installation.run(mine.name, {})
    api.delete_deployment(deployment)
    reports = installation.last["reports"]
    assert done.code == 0, f"{reports} {done.out} {done.err}"
    assert reports["verified"] == reports["expected"]
    assert len(installation.words(installation.last["flow_run_id"])) == states


def test_progress_is_not_missed_of_a_task_that_is_told_after_the_end_and_only_then():
    at, names = "2026-11-21T09:30:00+00:00", Names("d", "r", "r")
    of_task = Change("r", "s", "COMPLETED", "Completed", at, task="t", task_run="x", progress=0)
    status, progress = messages(of_task, names)
    end, results = messages(Change("r", "e", "COMPLETED", "Completed", at), names, results=1)

    def missing(*came: Message) -> list[str]:
        heard = [Heard(at, one.id, one.route, True, one.payload) for one in came]
        return [one.id for one in judge([status, progress, end, results], heard).missing]

    assert missing(status, progress, end, results) == []
    assert missing(end, results, status) == []
    assert missing(status, end, results) == ["s/progress"]
    assert missing(end, results) == ["s/status", "s/progress"]
    assert missing(status) == ["s/progress", "e/progress", "e/results"]


def test_ctrl_c_cancels_the_run_and_leaves_what_was_up(installation, api, tmp_path, eventually):
    tree = Path(__file__).parent.parent / "programs" / "tree.py"
    (tmp_path / "long.cwl").write_text(
        "{cwlVersion: v1.2, class: CommandLineTool, inputs: [], outputs: [], "
        f"baseCommand: [python3, {tree}]}}"
    )
    parameters = json.dumps({"workflow": str(tmp_path / "long.cwl")})
    command = subprocess.Popen(
        [sys.executable, "-m", "deployments", "run", "cwl", "--parameters", parameters],
        cwd=CHECKOUT,
        env=installation.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run_id = re.search(r"/runs/flow-run/(\S+)", command.stdout.readline())[1]
    for line in command.stdout:
        if "tool" in line and "Running" in line:
            break
    command.send_signal(signal.SIGINT)
    out, _ = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "cancelling the run" in out
    assert api.read_flow_run(run_id).state.is_cancelled()
    eventually(lambda: not left_alive(run_id, set()), seconds=15)
    assert installation.command("status", "--quiet").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "no-such"), "no deployment is called 'no-such'; there are cwl, demo"),
        (("run", "cwl", "--parameters", "{"), "--parameters is no JSON"),
        (("run", "cwl", "--parameters", "[]"), "must be a JSON object"),
        (("run", "cwl", "--json", "/nowhere/x"), "--json /nowhere/x cannot be written: No such"),
    ],
)
def test_bad_input_is_one_clear_line_and_starts_nothing(installation, words, said):
    done = installation.command(*words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert done.out == "", "a run that is started is named at once"


@pytest.fixture
def flows(api):
    """Two flows whose deployments are made by the test and go with them."""
    made = {name: api.create_flow_from_name(name) for name in ("one-flow", "other-flow")}
    yield made
    for flow_id in made.values():
        api.delete_flow(flow_id)


@pytest.mark.full
@pytest.mark.alone(reason="a server with hundreds of deployments shows them to whoever asks")
def test_a_deployment_is_found_among_any_number_of_them(installation, api, flows):
    first = api.create_deployment(flows["one-flow"], "planted-first")
    for number in range(201):
        api.create_deployment(flows["one-flow"], f"planted-{number}")
    for called in ("planted-first", "one-flow/planted-first"):
        run = trigger(api, called, {})
        assert run.deployment_id == first
        api.delete_flow_run(run.id)
    with pytest.raises(ConfigError, match=r"'nope'; there are cwl, demo, .*planted-1, .*, …$"):
        trigger(api, "nope", {})


def test_a_name_that_several_flows_have_deployed_is_asked_about(api, flows):
    for flow_id in flows.values():
        api.create_deployment(flow_id, "planted-twice")
    with pytest.raises(ConfigError, match="say one-flow/planted-twice or other-flow/planted-twic"):
        trigger(api, "planted-twice", {})
    run = trigger(api, "other-flow/planted-twice", {})
    assert run.flow_id == flows["other-flow"]
    api.delete_flow_run(run.id)


@pytest.mark.full
def test_the_summary_names_the_page_and_the_files(installation, echo, tmp_path):
    done = installation.run("cwl", echo)
    run_id = installation.last["flow_run_id"]
    results = installation.home / "output" / run_id / "results.json"
    assert str(results) in done.out
    assert json.loads(results.read_text())["out"]["basename"] == "out"
    assert f"/runs/flow-run/{run_id}" in done.out


@pytest.mark.parametrize(
    ("left", "code", "colour"), [([], 0, "32"), ([{"pid": 7, "command": "java"}], 1, "31")]
)
def test_a_completed_run_that_left_something_alive_is_shown_as_the_exit_code_says(
    tmp_path, monkeypatch, capsys, left, code, colour
):
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("FORCE_COLOR", "1")
    run = object.__new__(_Run)  # one that has been followed to its end
    run.seconds, run.verdict = {}, Verdict([])
    run.tree = Tree(FlowRun(flow_id=uuid4(), state=Completed()))
    run.flow_run = run.tree.root
    run.client = SyncPrefectClient("http://127.0.0.1:9/api")
    monkeypatch.setattr(run, "_left_alive", lambda: left)
    assert run.conclude(None) == code
    assert f"\x1b[1;{colour}mCompleted" in capsys.readouterr().out
    assert json.loads((tmp_path / "last-run.json").read_text())["ok"] is (code == 0)


ENGINE = "import sys; from flows._run.engine import begin; begin(sys.argv[1]); sys.stdin.read()"


@pytest.mark.alone(reason="it cancels every pending run of the session's pool")
def test_what_is_cancelled_before_a_stop_is_what_this_home_runs_and_nothing_that_is_scheduled(
    api, tmp_path, monkeypatch, eventually
):
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    deployment = api.read_deployment_by_name("spark-job/spark").id

    def run(state):
        return api.create_flow_run_from_deployment(
            deployment, parameters={"app": "x"}, state=state
        ).id

    def states(*ids):
        return [api.read_flow_run(one).state.name for one in ids]

    mine, others = run(Running()), run(Running())
    scheduled = run(Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1)))
    pending = run(Pending())
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(mine)], stdin=subprocess.PIPE, cwd=CHECKOUT
    )
    eventually(lambda: list(tmp_path.glob("runs/*/engine.json")))
    with ThreadPoolExecutor() as pool:
        cancelled = pool.submit(cancel_open_runs, own_server=False)
        eventually(lambda: states(mine) == ["Cancelling"])
        engine.communicate()  # it ends, and says no more
        assert cancelled.result() == 1
    assert states(mine, others, scheduled, pending) == [
        "Cancelled",
        "Running",
        "Scheduled",
        "Pending",
    ]
    assert cancel_open_runs(own_server=True, patience=0.5) == 1
    assert states(others, scheduled, pending) == ["Running", "Scheduled", "Cancelling"]
    for one in (others, scheduled, pending):
        api.delete_flow_run(one)
