"""`penstock stop` and `sweep` from outside: the server they ask, and what they leave as it is."""

import json
import subprocess
import sys
from uuid import uuid4

import pytest
from prefect import flow
from prefect.states import Running

from flows._run import engine as engines


@flow
def lost():
    return None


@pytest.fixture
def vanished(tmp_path):
    """Writes down, in a home of its own, that a process which is gone ran these runs."""

    def write(*runs):
        code = "import sys; from flows._run.engine import begin; [begin(r) for r in sys.argv[1:]]"
        environment = {"PENSTOCK_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", code, *map(str, runs)], env=environment, check=True)

    return write


def test_stop_asks_the_server_of_this_checkout_whatever_the_callers_profile_says(installation, api):
    run = api.create_flow_run(lost, name=f"lost-{uuid4().hex[:8]}", state=Running())
    done = installation.command("stop", run.name, "--dry-run")
    assert done.code == 0, done.err
    assert f"{run.name} is Running" in done.out


@pytest.mark.parametrize("command", [("stop", "clever-otter"), ("sweep",)])
def test_without_any_server_they_say_so_and_start_none(installation, tmp_path, command):
    done = installation.command(*command, PENSTOCK_HOME=str(tmp_path), PREFECT_HOME=str(tmp_path))
    assert done.code == 2
    assert "nothing of this checkout is up, and PREFECT_API_URL names no other server" in done.err


def test_sweep_ends_what_the_server_knows_and_leaves_what_it_does_not(
    installation, api, vanished, tmp_path, monkeypatch
):
    run, stranger = api.create_flow_run(lost, state=Running()), uuid4()
    vanished(run.id, stranger, "local-call")
    there = {"PENSTOCK_HOME": str(tmp_path), "PREFECT_API_URL": installation.api_url}
    done = installation.command("sweep", **there)
    assert done.code == 0, done.err
    assert api.read_flow_run(run.id).state.is_crashed()
    assert f"run {stranger} is unknown to {installation.api_url}" in done.out
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    ended = {name: engines.engine_of(str(name)).ended for name in (run.id, stranger, "local-call")}
    assert ended[run.id]
    assert ended["local-call"]
    assert ended[stranger] is None
    assert f"run {stranger} is unknown" in installation.command("sweep", **there).out
    assert json.loads((tmp_path / "runs" / str(stranger) / "engine.json").read_text())
