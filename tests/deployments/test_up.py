"""`penstock up` and `down`: what they start, whom they leave alone, what they say."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from blocks import ReportEndpoint
from blocks._load import load
from deployments.local.service import choose_port
from deployments.local.up import point_at

ROOT = Path(__file__).parent.parent.parent


def services(installation):
    return json.loads((installation.home / "services.json").read_text())


def test_up_twice_is_harmless(installation):
    before = services(installation)
    assert set(before) == {"server", "listener", "worker", "relay"}
    done = installation.command("up")
    assert done.code == 0, done.err
    assert services(installation) == before


def test_status_tells_what_runs(installation):
    done = installation.command("status")
    assert done.code == 0
    for name, service in services(installation).items():
        assert any(name in line and service["url"] in line for line in done.out.splitlines())


def test_what_it_started_holds_no_descriptor_of_the_caller(installation):
    # `penstock up | tail` ends: the pipe closes although server, worker and listener stay.
    done = subprocess.run(
        [sys.executable, "-m", "deployments", "up"],
        cwd=ROOT,
        env=installation.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=True,
    )
    assert b"up: http://" in done.stdout
    for service in services(installation).values():
        for fd in Path(f"/proc/{service['pid']}/fd").iterdir():
            if fd.name in {"0", "1", "2"}:
                target = os.readlink(fd)
                assert target == "/dev/null" or target.startswith(str(installation.home))


def test_everything_it_wrote_is_private(installation):
    assert stat.S_IMODE(installation.home.stat().st_mode) == 0o700
    key = installation.home / "keys" / "signing.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_the_listener_has_the_public_key_only(installation):
    listener = psutil.Process(services(installation)["listener"]["pid"])
    assert any(word.endswith("signing.pub.pem") for word in listener.cmdline())
    assert not any(name.startswith("PREFECT_") for name in listener.environ())
    assert "PRIVATE" not in (installation.home / "keys" / "signing.pub.pem").read_text()


def test_the_sample_block_names_the_key_file_and_never_holds_the_key(installation, api):
    (document,) = api.read_block_documents_by_type("signing-key", include_secrets=True)[:1]
    assert document.data["path"] == str(installation.home / "keys" / "signing.pem")
    assert document.data.get("pem") is None


def test_servers_of_the_user_are_left_alone_with_one_clear_line(tmp_path):
    theirs = "http://127.0.0.1:9/api"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        done = subprocess.run(
            [sys.executable, "-m", "deployments", "up", "--port", str(taken.getsockname()[1])],
            cwd=ROOT,
            env={**os.environ, "PENSTOCK_HOME": str(tmp_path), "PREFECT_API_URL": theirs},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is taken by another program: choose another --port" in done.stderr
    assert not (tmp_path / "services.json").exists()


def test_a_server_that_does_not_answer_is_said_before_anything_is_started(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deployments", "up", "--server", "http://127.0.0.1:9/api"],
        cwd=ROOT,
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api" in done.stderr
    assert not (tmp_path / "services.json").exists()


@pytest.mark.full
@pytest.mark.alone(reason="a second worker takes runs of the same pool, and is killed")
def test_another_server_can_be_named_and_is_not_stopped(installation, tmp_path):
    environment = {**installation.environment, "PENSTOCK_HOME": str(tmp_path)}

    def penstock(*words):
        return subprocess.run(
            [sys.executable, "-m", "deployments", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert f"using the server {installation.api_url}" in penstock(
        "up", "--server", installation.api_url
    )
    assert set(json.loads((tmp_path / "services.json").read_text())) == {
        "listener",
        "worker",
        "relay",
    }
    assert "stopped the worker" in penstock("down", "--kill")
    assert "nothing of this checkout is up" in penstock("down")
    assert installation.command("status", "--quiet").code == 0


def test_an_interrupted_start_ends_what_it_started(tmp_path, eventually):
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")}
    up = subprocess.Popen(
        [sys.executable, "-m", "deployments", "up"],
        cwd=ROOT,
        env={**environment, "PENSTOCK_HOME": str(tmp_path), "PREFECT_API_URL": "http://theirs/api"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    note = tmp_path / "services.json"
    eventually(lambda: note.exists() and "listener" in note.read_text(), seconds=60)
    pids = [service["pid"] for service in json.loads(note.read_text()).values()]
    up.send_signal(signal.SIGINT)
    out, err = up.communicate(timeout=60)
    assert up.returncode == 130
    assert "interrupted" in err
    assert "PREFECT_API_URL=http://theirs/api is left alone" in out
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert json.loads(note.read_text()) == {}


def test_the_port_of_last_time_is_taken_again_if_it_is_free(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    first = choose_port(None, "server", 1)  # port 1 is never ours
    assert choose_port(None, "server", 1) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert choose_port(None, "server", 1) != first


def test_a_port_that_was_asked_for_is_taken_again_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert choose_port(port, "server", 1) == port
    assert choose_port(None, "server", 1) == port


def test_the_server_took_the_settings_we_ship(installation):
    settings = httpx.get(f"{installation.api_url}/admin/settings").json()["server"]
    assert settings["analytics_enabled"] is False
    assert settings["ui"]["api_url"] == "/api"
    assert settings["api"]["csrf_protection_enabled"] is True
    assert settings["api"]["cors_allowed_origins"] == installation.api_url.removesuffix("/api")
    assert settings["services"]["task_run_recorder"]["batch_size"] == 100
    assert settings["services"]["event_persister"]["batch_size"] == 100


PAGE = """
<!doctype html><title>elsewhere</title><script>
const api = new URLSearchParams(location.search).get("api");
async function attempt(request) {
  try { const answer = await request(); return "read " + (await answer.text()).slice(0, 80); }
  catch (error) { return "refused"; }
}
async function all() {
  const json = {"content-type": "application/json"};
  document.title = JSON.stringify({
    read: await attempt(() => fetch(api + "/health")),
    filter: await attempt(() => fetch(api + "/deployments/filter",
                                      {method: "POST", body: "{}", headers: json})),
    // A form's content type needs no pre-flight: it reaches the server, which must refuse it.
    blind: await attempt(() => fetch(api + "/flows/", {method: "POST", mode: "no-cors",
      body: '{"name": "planted"}', headers: {"content-type": "text/plain"}})),
  });
}
all();
</script>
"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium (Debian: chromium)")
def test_a_page_of_another_origin_can_neither_read_nor_write(installation, api, tmp_path):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    from playwright.sync_api import sync_playwright

    (tmp_path / "page.html").write_text(PAGE)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=elsewhere.serve_forever, daemon=True).start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page()
            page.goto(
                f"http://127.0.0.1:{elsewhere.server_port}/page.html?api={installation.api_url}"
            )
            page.wait_for_function("document.title != 'elsewhere'")
            seen = json.loads(page.title())
            # Its own UI works: the page and the API are of one origin.
            page.goto(installation.api_url.removesuffix("/api") + "/deployments")
            page.wait_for_selector("text=cwl")
            browser.close()
    finally:
        elsewhere.shutdown()
        elsewhere.server_close()
    assert seen["read"] == "refused"
    assert seen["filter"] == "refused"
    assert "planted" not in {flow.name for flow in api.read_flows()}


@pytest.mark.alone(reason="alters the endpoint that every run reports to")
def test_the_sample_endpoint_follows_a_listener_that_found_its_port_taken(
    installation, api, capsys
):
    endpoint = load(ReportEndpoint, "listener")
    there, endpoint.url = endpoint.url, "http://127.0.0.1:9"
    endpoint.save("listener", overwrite=True, _sync=True)
    point_at(there)
    assert load(ReportEndpoint, "listener").url == there
    assert "is told at" in capsys.readouterr().out
    point_at(there)
    assert capsys.readouterr().out == ""
