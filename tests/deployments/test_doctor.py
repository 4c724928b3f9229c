"""`penstock doctor`: what it finds, on a machine that is well and on one that is not."""

import json
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import ReportEndpoint, SigningKey
from deployments.doctor.finding import Finding, guarded, run_all
from deployments.doctor.machine import DISTRIBUTION, ports
from deployments.doctor.server import RESULT_STORAGE, _results, _settings, server

ROOT = Path(__file__).parent.parent.parent


def by_subject(done):
    return {finding["about"]: finding for finding in json.loads(done.out)}


def alone(tmp_path, *words, cwd=ROOT, **environment):
    """The doctor of an installation that was never started."""
    done = subprocess.run(
        [sys.executable, "-m", "deployments", "doctor", "--json", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PENSTOCK_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)
    return done.returncode, {finding["about"]: finding for finding in found}


def test_an_installation_that_is_up_is_well_line_by_line(installation):
    done = installation.command("doctor")
    assert done.code == 0, done.out + done.err
    lines = {line.split()[1]: line for line in done.out.splitlines()}
    for about in ("Python", "Java", "Node", "files", "server", "listener", "Prefect", "clock"):
        assert lines[about].startswith("ok "), lines[about]
    assert f"blocks, flows, deployments from {ROOT}" in lines["imports"]
    assert f"{version('prefect')} answers at {installation.api_url}" in lines["Prefect"]


def test_it_sees_the_settings_the_worker_and_the_deployments(installation):
    found = by_subject(installation.command("doctor", "--json"))
    assert found["settings"]["level"] == "ok"
    assert "penstock has ProcessWorker" in found["work pool"]["found"]
    assert found["deployments"]["found"] == "all of prefect.yaml are on the server"


def test_a_deployment_that_is_gone_is_bad(installation, api, monkeypatch, tmp_path):
    entries = (ROOT / "prefect.yaml").read_text() + "\n  - name: planted\n"
    (tmp_path / "prefect.yaml").write_text(entries)
    monkeypatch.chdir(tmp_path)
    (finding,) = [one for one in server() if one.about == "deployments"]
    assert (finding.level, finding.found) == ("bad", "the server lacks planted")


def test_settings_that_differ_are_named(installation, api, monkeypatch, tmp_path):
    shipped = tmp_path / "server.env"
    shipped.write_text(
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED=false\nPREFECT_SERVER_ANALYTICS_ENABLED=false\n"
    )
    monkeypatch.setattr("deployments.local.server.SETTINGS", shipped)
    (finding,) = [one for one in server() if one.about == "settings"]
    assert finding.level == "warn"
    assert finding.found == "differ from ours: PREFECT_SERVER_CSRF_PROTECTION_ENABLED"


@pytest.mark.parametrize(
    ("path", "origins", "level"),
    [
        ("/api", "http://host:42", "ok"),
        ("/api", "http://elsewhere", "warn"),
        ("/team/prefect/api", "http://host:42", "ok"),
        ("/team/prefect/api", "http://127.0.0.1:4200", "ok"),
        ("/team/prefect/api", "*", "warn"),
    ],
)
def test_whose_pages_may_ask_is_right_below_a_path_unless_all_may(
    installation, api, monkeypatch, tmp_path, path, origins, level
):
    shipped = tmp_path / "server.env"
    shipped.write_text("PREFECT_SERVER_CORS_ALLOWED_ORIGINS={url}\n")
    monkeypatch.setattr("deployments.local.server.SETTINGS", shipped)
    theirs = httpx.Response(200, json={"server": {"api": {"cors_allowed_origins": origins}}})
    monkeypatch.setattr(api, "request", lambda *_: theirs)
    monkeypatch.setattr(type(api), "api_url", httpx.URL(f"http://host:42{path}/"))
    (finding,) = _settings(api)
    assert finding.level == level, finding.found


@pytest.mark.alone(reason="the doctor of another test would find fault with the pool")
def test_a_pool_whose_runs_keep_their_results_to_themselves_is_bad(api):
    def template(**more):
        properties = {"env": {"type": "object", **more}}
        return {"job_configuration": {"env": "{{ env }}"}, "variables": {"properties": properties}}

    pools = {"keeps": template(), "shares": template(default={RESULT_STORAGE: "s3/results"})}
    try:
        for name, given in pools.items():
            api.create_work_pool(WorkPoolCreate(name=name, type="ecs", base_job_template=given))
        (finding,) = _results(api)
    finally:
        for pool in api.read_work_pools():
            if pool.name in pools:
                api.delete_work_pool(pool.name)
    assert finding.level == "bad"
    assert "keeps (ecs)" in finding.found
    assert RESULT_STORAGE in finding.fix


def test_each_endpoint_gets_one_signed_test_message(installation):
    since = installation.store.size
    done = installation.command("doctor", "--send", "--json")
    assert done.code == 0, done.out + done.err
    assert "took a signed test message" in by_subject(done)["endpoint listener"]["found"]
    (heard,) = [
        one
        for one in installation.store.read(since)
        if one.payload and one.payload["dag_id"] == "penstock-doctor"
    ]
    assert heard.verified
    assert heard.route == "status"
    assert heard.payload["state"] == "running"
    assert heard.payload["run_id"].startswith("test-")


@pytest.mark.full
def test_an_endpoint_that_takes_nothing_is_bad_and_the_others_are_served(
    installation, api, tmp_path
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://me:hush@127.0.0.1:{closed.getsockname()[1]}"
        ReportEndpoint(url=url, unsigned=True).save("dead", _sync=True)
        key = SigningKey(path=str(tmp_path / "gone.pem"))
        ReportEndpoint(url=url, signing_key=key).save("keyless", _sync=True)
        try:
            done = installation.command("doctor", "--send", "--json")
        finally:
            ReportEndpoint.delete("dead", _sync=True)
            ReportEndpoint.delete("keyless", _sync=True)
    found = by_subject(done)
    assert done.code == 1
    assert found["endpoint dead"]["level"] == "bad"
    assert "no answer" in found["endpoint dead"]["found"]
    assert "gone.pem" in found["endpoint keyless"]["found"]
    assert found["endpoint listener"]["level"] == "ok"
    assert "hush" not in done.out + done.err


def test_when_nothing_is_up_it_says_so_and_checks_the_machine(tmp_path):
    code, found = alone(tmp_path)
    assert code == 0
    assert found["Prefect"]["found"] == "nothing of this checkout is up"
    assert found["Prefect"]["fix"] == "`penstock up`"
    assert found["Java"]["level"] == "ok"
    code, found = alone(tmp_path, "--send")
    assert code == 1
    assert "nothing could be sent" in found["Prefect"]["found"]


def test_another_working_directory_a_bare_path_and_an_open_home_are_seen(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    code, found = alone(home, cwd=tmp_path, PATH="")
    assert code == 1
    assert found["imports"]["level"] == "warn"
    assert str(tmp_path) in found["imports"]["fix"]
    assert found["files"]["level"] == "bad"
    assert found["files"]["fix"] == f"chmod 700 {home}"


def test_versions_that_are_not_those_of_the_constraints_are_named(tmp_path):
    pins = f"prefect==0.1\nnever-installed==1\n{DISTRIBUTION}=={version(DISTRIBUTION)}\n"
    (tmp_path / "constraints.txt").write_text(pins)
    _, found = alone(tmp_path / "home", cwd=tmp_path)
    assert found["versions"]["level"] == "warn"
    assert found["versions"]["found"] == f"prefect {version('prefect')} (pinned 0.1)"


def test_a_home_that_cannot_be_made_is_a_finding_and_the_others_are_made(tmp_path):
    (tmp_path / "file").touch()
    code, found = alone(tmp_path / "file" / "home")
    assert code == 1
    assert found["files"]["level"] == "bad"
    assert str(tmp_path / "file") in found["files"]["found"]
    assert found["Python"]["level"] == "ok"


def test_a_list_of_services_that_is_broken_is_a_finding(tmp_path):
    (tmp_path / "services.json").write_text("{")
    code, found = alone(tmp_path)
    assert code == 1
    assert found["ports"]["level"] == "bad"
    assert f"{tmp_path}/services.json does not tell what was started" in found["ports"]["found"]
    assert found["Python"]["level"] == "ok"


def test_a_check_that_breaks_does_not_stop_the_others():
    def broken():
        raise RuntimeError("http://me:hush@host")

    found = list(run_all({"one": broken, "two": lambda: [Finding("ok", "two", "fine")]}))
    assert [(one.level, one.about) for one in found] == [("bad", "one"), ("ok", "two")]
    assert "hush" not in found[0].found


def test_a_server_that_is_gone_is_bad_without_more_questions():
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        (finding,) = guarded("Prefect", server)
    assert finding.level == "bad"
    assert "no Prefect server answers at http://127.0.0.1:9/api" in finding.found


def test_a_port_that_another_program_holds_is_told_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        monkeypatch.setattr("deployments.doctor.machine.SERVER_PORT", port)
        found = {finding.about: finding for finding in ports()}
    assert found["server"].level == "warn"
    assert f"port {port} is held by" in found["server"].found
    assert f"(process {os.getpid()})" in found["server"].found
    assert found["server"].fix == "`penstock up` starts it, on another port"


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="needs user namespaces",
)
def test_a_disk_that_is_nearly_full_is_bad(tmp_path):
    inside = f'mount -t tmpfs -o size=20m small {tmp_path} && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inside, sys.executable, "-m", "deployments", "doctor"],
        cwd=ROOT,
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (disk,) = [line for line in done.stdout.splitlines() if line.split()[1] == "disk"]
    assert disk.startswith("bad ")
    assert "0.0 GB free" in disk
    assert "make room, or set PENSTOCK_HOME" in disk
