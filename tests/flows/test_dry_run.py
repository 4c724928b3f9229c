"""A dry run shows exactly what would be done, and touches nothing."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import nbformat
import pytest
import yaml
from prefect import flow
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Completed, Running

from blocks import SparkConfig
from blocks.errors import ConfigError
from flows._plan import Plan
from flows._reports import again
from flows._run.noted import Remote, notes_of
from flows._run.remote import now
from flows.cwl import cwl_job
from flows.notebook import notebook_job
from flows.redeliver import redeliver
from flows.spark import spark_job
from flows.sweep import sweep

ROOT = Path(__file__).parent.parent.parent
AUDITED = ROOT / "tests" / "programs" / "audited.py"
FLIGHTS = "flows/examples/flights"

JOBS = {
    "flows.spark.spark_job": {"app": f"{FLIGHTS}/delays.py", "args": ["tables"]},
    "flows.notebook.notebook_job": {
        "notebook": "flows/examples/hello.ipynb",
        "parameters": {"a": 2},
    },
    "flows.cwl.cwl_job": {
        "workflow": "flows/examples/hello.cwl",
        "inputs": {"words": ["one", "two"]},
    },
    "flows.demo.demo": {},
    "flows.redeliver.redeliver": {"days": 1},
    "flows.sweep.sweep": {},
}
OF_RUNS = {"flows.redeliver.redeliver", "flows.sweep.sweep"}  # they start nothing, and tell nobody


@flow
def nothing(): ...


def markdown(api, run_id) -> str:
    """The text of the one artifact of a run."""
    of_run = ArtifactFilterFlowRunId(any_=[run_id])
    found = api.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=of_run))
    (artifact,) = [one for one in found if one.type == "markdown"]
    return str(artifact.data)


def test_every_kind_of_job_has_its_dry_run_tried_here():
    configured = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {entry["entrypoint"] for entry in configured} == JOBS.keys()


@pytest.mark.alone(reason="the listener must hear nothing meanwhile")
@pytest.mark.parametrize("name", JOBS)
def test_a_dry_run_starts_writes_and_tells_nothing(installation, api, name, tmp_path):
    environment = {**os.environ, "PENSTOCK_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-B", str(AUDITED), name, json.dumps({**JOBS[name], "dry_run": True})],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    noted = json.loads(done.stdout.splitlines()[-1])
    port = installation.api_url.split(":")[2].split("/")[0]
    prefects_own = os.environ["PREFECT_HOME"]
    beyond = [
        (event, what)
        for event, what in noted["seen"]
        if not (event == "socket.connect" and f", {port}" in what)
        and not what.startswith((prefects_own, "/dev/null"))
    ]
    if name == "flows.redeliver.redeliver":  # it looks for what waits here, in an empty ledger
        own = (str(tmp_path / "home"), *"0123456789")  # a number: a file that was opened before
        beyond = [(event, what) for event, what in beyond if not what.startswith(own)]
        made = {path.name for path in (tmp_path / "home").rglob("*") if path.is_file()}
        assert {one.partition("-")[0] for one in made} <= {"api", "ledger.db"}
    else:
        assert not (tmp_path / "home").exists()
    assert beyond == []
    assert installation.heard(noted["run"]) == []
    assert noted["result"]["dry_run"]
    if name not in OF_RUNS:
        assert "report-endpoint/listener" in noted["result"]["would_be_told"]
    assert "Nothing was" in markdown(api, noted["run"])


def test_the_watch_of_a_dry_run_sees_what_a_real_run_does(installation, api, tmp_path):
    environment = {**os.environ, "PENSTOCK_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    parameters = {"workflow": "flows/examples/hello.cwl", "inputs": {"words": ["one"]}}
    done = subprocess.run(
        [sys.executable, "-B", str(AUDITED), "flows.cwl.cwl_job", json.dumps(parameters)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    events = {event for event, _ in json.loads(done.stdout.splitlines()[-1])["seen"]}
    assert {"subprocess.Popen", "os.mkdir", "open", "socket.connect"} <= events


def test_a_dry_run_of_spark_shows_command_files_and_names_but_no_secret(installation, api):
    SparkConfig(
        master="local[2]", secret_conf={"spark.my.token": "hush-hush-7"}, environment={"DAY": "1"}
    ).save("dry", overwrite=True)
    made = spark_job(f"{FLIGHTS}/delays.py", ["a b"], "dry", dry_run=True)
    (plan,) = made["dry_run"]
    assert plan["argv"][0].endswith("/bin/spark-submit")
    assert plan["argv"][-2:] == [f"{FLIGHTS}/delays.py", "a b"]
    assert {"DAY", "JAVA_HOME", "PENSTOCK_RESULT"} <= set(plan["environment"])
    assert "spark.master=local[2]" in plan["files"]["spark.properties"]
    assert "spark.my.token=********" in plan["files"]["spark.properties"]
    assert "hush-hush-7" not in json.dumps(made)


@pytest.mark.parametrize(
    "secret", ["back\\slash-7", "käse ✈ 🚀", " two\nlines", "a=b:c\t#d", "abc"]
)
def test_no_spelling_of_a_secret_is_seen_in_the_plan_of_a_dry_run(secret, tmp_path):
    config = SparkConfig(secret_conf={"spark.my.token": secret})
    homes = {"spark_home": "/spark", "java_home": "/java", "python": "python"}
    command = config.command("app.py", folder=tmp_path, **homes)
    properties = Plan("submit_spark", command).as_dict()["files"]["spark.properties"]
    assert "spark.my.token=********\n" in properties
    without = config.model_copy(update={"secret_conf": None})
    bare = without.command("app.py", folder=tmp_path, **homes).files["spark.properties"]
    assert (
        len(properties.splitlines()) == len(bare.splitlines()) + 2
    )  # it, and what Spark is to hide


def test_a_dry_run_of_a_workflow_shows_the_first_commands_and_names_the_later_steps(api):
    made = cwl_job("flows/examples/hello.cwl", {"words": ["one", "two words"]}, dry_run=True)
    plans = {plan["task"]: plan for plan in made["dry_run"]}
    assert list(plans) == ["say[0]", "say[1]", "join"]
    assert plans["say[1]"]["argv"] == ["echo", "two words"]
    assert plans["say[1]"]["environment"] == ["HOME", "PATH", "TMPDIR"]
    assert plans["join"]["argv"] == ["cat"]
    assert any("made from what the steps before it give" in n for n in plans["join"]["notes"])


def test_a_dry_run_of_a_workflow_starts_no_node_for_its_expressions(api):
    files = {"files": [{"class": "File", "path": "README.md"}]}
    made = cwl_job(f"{FLIGHTS}/results.cwl", files, dry_run=True)
    plans = {plan["task"]: plan for plan in made["dry_run"]}
    assert plans["name"]["notes"] == ["an expression: it runs no program"]
    assert plans["compress"]["argv"][0] == "gzip"
    assert "a job for each of: part" in plans["compress"]["notes"]


def test_a_dry_run_is_seen_as_an_artifact_of_its_run(api):
    state = spark_job(f"{FLIGHTS}/delays.py", ["tables"], dry_run=True, return_state=True)
    shown = markdown(api, state.state_details.flow_run_id)
    assert "Nothing was started" in shown
    assert "spark-submit" in shown
    assert "`report-endpoint/listener` at http://127.0.0.1:" in shown


@pytest.mark.alone(reason="the relay, which is quicker, stands still meanwhile")
def test_a_dry_run_of_redeliver_shows_the_run_that_somebody_has_not_heard_of(
    deaf, api, monkeypatch
):
    monkeypatch.setattr(again, "SETTLED", timedelta(0))
    missed = api.create_flow_run(nothing, state=Running())
    api.set_flow_run_state(missed.id, Completed(), force=True)
    state = redeliver(days=1, dry_run=True, return_state=True)
    assert str(missed.id) in [one["run"] for one in state.result()["told_again"]]
    (row,) = [
        line
        for line in markdown(api, state.state_details.flow_run_id).splitlines()
        if str(missed.id) in line
    ]
    assert "report-endpoint/listener" in row
    assert missed.name in row


def test_a_dry_run_of_sweep_shows_what_it_would_stop_and_leaves_it(api, monkeypatch):
    monkeypatch.setattr("flows._run.sweep.SETTLED", 0.0)
    run = api.create_flow_run(nothing, state=Running())
    api.set_flow_run_state(run.id, Completed(), force=True)
    row = Remote("nowhere|place", str(run.id), f"{run.id}/sleeps/0", 1, "a tag", "sleeper", "")
    notes = notes_of(str(run.id))
    notes.intend(row)
    try:
        state = sweep(dry_run=True, return_state=True)
        (left,) = [one for one in state.result()["left"] if one["run"] == str(run.id)]
        assert (left["program"], left["id"], left["run_ended"]) == ("sleeper", "a tag", "Completed")
        shown = markdown(api, state.state_details.flow_run_id)
        assert "Would be stopped:" in shown
        assert f"| sleeper | nowhere\\|place | a tag | {run.id} | Completed |  |" in shown
        assert not notes_of(str(run.id)).latest(row.key).gone_at
    finally:
        notes.put(replace(row, gone_at=now()))  # or every later sweep would speak of it


def test_a_dry_run_refuses_what_the_run_would_refuse(api, tmp_path):
    with pytest.raises(ConfigError, match=r"'nowhere\.py' is no file"):
        spark_job("nowhere.py", dry_run=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 1")])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, tmp_path / "one.ipynb")
    with pytest.raises(ConfigError, match="has no parameter b"):
        notebook_job(str(tmp_path / "one.ipynb"), {"b": 1}, dry_run=True)
    with pytest.raises(ConfigError, match="unknown input"):
        cwl_job("flows/examples/hello.cwl", {"nope": 1}, dry_run=True)
