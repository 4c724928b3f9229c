"""The demo, whole, on the real flights; and cancelled while each of its parts works."""

import gzip
import hashlib
import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import psutil
import pytest
from prefect.states import Cancelling

from deployments.local.runs import look

pytestmark = pytest.mark.full


def path(file: dict[str, str]) -> Path:
    return Path(unquote(urlparse(file["location"]).path))


def test_the_demo_computes_draws_and_packs_the_flights(installation, api):
    done = installation.run("demo", {})
    assert done.code == 0, done.out + done.err
    last = installation.last
    assert last["state"] == "Completed"
    assert last["reports"]["missing"] == []
    assert last["left_alive"] == []
    heard = installation.heard(last["flow_run_id"])

    progress = [h.payload["progress"] for h in heard if h.route == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 100
    tasks = {h.payload["task_id"] for h in heard if h.route == "status"}
    assert {"submit_spark", "run_notebook", "split[0]", "compress[0]", "sum_up"} <= tasks

    (results,) = [h.payload["results"] for h in heard if h.route == "results"]
    summary = results["summary"]
    assert summary["files"] == 5
    assert summary["parts"] == len(results["compressed"])
    unpacked = 0
    for part in results["compressed"]:
        with gzip.open(path(part)) as file:
            unpacked += len(file.read())
    assert unpacked == summary["bytes"]
    lines = path(results["manifest"]).read_text().splitlines()
    sums = {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in lines}
    for part in results["compressed"]:
        digest = hashlib.sha256(path(part).read_bytes()).hexdigest()
        assert sums[part["basename"]] == digest

    folder = installation.home / "output" / last["flow_run_id"]
    report = (folder / "report.html").read_text()
    assert "336,776 flights" in report
    assert report.count("data:image/png;base64") >= 5
    assert json.loads((folder / "results.json").read_text()) == results


@pytest.mark.parametrize("part", ["submit_spark", "run_notebook", "split[0]"])
def test_the_demo_cancelled_while_a_part_works_leaves_nothing(api, eventually, part):
    program = {"submit_spark": "java", "run_notebook": "ipykernel"}.get(part, "")
    deployment = next(d for d in api.read_deployments() if d.name == "demo")
    run = api.create_flow_run_from_deployment(deployment.id)

    def programs():
        found = {}
        for process in psutil.process_iter(["environ", "cmdline"]):
            if (process.info["environ"] or {}).get("PENSTOCK_RUN") == str(run.id):
                found[process.pid] = " ".join(process.info["cmdline"] or [])
        return found

    def working():
        tasks = {task.name for task in look(api, run.id).tasks}
        return part in tasks and any(program in command for command in programs().values())

    eventually(working, seconds=90)
    before = programs()
    api.set_flow_run_state(run.id, Cancelling())
    eventually(lambda: not programs(), seconds=10)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in before), seconds=10)
    eventually(lambda: api.read_flow_run(run.id).state.is_cancelled(), seconds=30)  # noqa: PLW0108 - read anew
    assert part in {task.name for task in look(api, run.id).tasks}
