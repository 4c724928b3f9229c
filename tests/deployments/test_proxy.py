"""A server that asks who we are, below a path of a reverse proxy: what a company's network has."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.doctor.server import server as doctor
from deployments.local import service
from deployments.local.server import server_settings

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx (Debian: nginx-light)"),
    pytest.mark.xdist_group("proxy"),  # one server for them all
    pytest.mark.timeout(400),
]

ROOT = Path(__file__).parent.parent.parent
PREFIX = "/team/prefect/"
WHO = ("team", "a-word-told-to-nobody")

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
  log_format request '$status $request_method $request_uri';
  access_log requests.log request;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  map $http_upgrade $hop {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 404; }}
    location {prefix} {{
      proxy_pass {server}/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $hop;
    }}
  }}
}}
"""


@dataclass
class Proxied:
    """A Prefect API behind a proxy, and a newcomer's home from which it is used."""

    api_url: str
    log: Path
    home: Path

    def penstock(self, *words, **who):
        return subprocess.run(
            [sys.executable, "-m", "deployments", *words],
            cwd=ROOT,
            env={**os.environ, "PENSTOCK_HOME": str(self.home), **who},
            capture_output=True,
            text=True,
            check=False,
        )

    def requests(self):
        """What passed the proxy: (status, method, path)."""
        return [tuple(line.split(" ", 2)) for line in self.log.read_text().splitlines()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server with an auth string and CSRF protection."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_HOME", str(folder))
        running = service.start(
            "server",
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            {
                **service.environment(f"{url}/api"),
                **server_settings(url),
                "PREFECT_SERVER_API_AUTH_STRING": ":".join(WHO),
                "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            },
            url,
        )
        try:
            with SyncPrefectClient(f"{url}/api") as client:
                service.wait_until(lambda: not client.api_healthcheck(), running, seconds=180)
            yield url
        finally:
            service.stop(running)


@pytest.fixture(scope="module")
def proxied(server, tmp_path_factory):
    """The server as it is reached through the proxy, and by no other way."""
    folder = tmp_path_factory.mktemp("proxy")
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(port=port, prefix=PREFIX, server=server))
    api_url = f"http://127.0.0.1:{port}{PREFIX}api"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_HOME", str(folder))
        running = service.start(
            "nginx",
            ["nginx", "-e", "stderr", "-p", folder, "-c", "nginx.conf"],
            os.environ,
            api_url,
        )
        try:
            with SyncPrefectClient(api_url) as client:
                service.wait_until(lambda: not client.api_healthcheck(), running, seconds=20)
            yield Proxied(api_url, folder / "requests.log", tmp_path_factory.mktemp("home"))
        finally:
            service.stop(running)


def test_who_does_not_say_who_he_is_is_told_in_one_line_how(proxied):
    done = proxied.penstock("up", "--server", proxied.api_url)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"the server at {proxied.api_url} answers 401: set PREFECT_API_AUTH_STRING" in line
    assert not (proxied.home / "services.json").exists()


def test_the_server_refuses_who_brings_no_csrf_token(proxied):
    # Else the run below would prove nothing.
    answer = httpx.post(f"{proxied.api_url}/flows/", json={"name": "planted"}, auth=WHO)
    assert answer.status_code == 403
    assert "CSRF" in answer.text


def test_the_demo_runs_and_every_report_is_verified(proxied, tmp_path):
    begun = len(proxied.requests())
    who = {"PREFECT_API_AUTH_STRING": ":".join(WHO)}
    summary = tmp_path / "run.json"
    try:
        up = proxied.penstock("up", "--server", proxied.api_url, **who)
        assert up.returncode == 0, up.stdout + up.stderr
        assert set(json.loads((proxied.home / "services.json").read_text())) == {
            "listener",
            "worker",
            "relay",
        }
        run = proxied.penstock("run", "demo", "--server", proxied.api_url, "--json", summary, **who)
        assert run.returncode == 0, run.stdout + run.stderr
    finally:
        down = proxied.penstock("down", **who)
    assert down.returncode == 0, down.stdout + down.stderr
    stopped = [f"stopped the {name}" for name in ("relay", "worker", "listener")]
    assert down.stdout.splitlines()[:3] == stopped

    last = json.loads(summary.read_text())
    assert last["state"] == "Completed"
    assert last["reports"]["verified"] == last["reports"]["expected"] > 0
    assert last["left_alive"] == []

    # All went through the client that knows the prefix, the auth string and the token.
    requests = proxied.requests()[begun:]
    assert all(path.startswith(f"{PREFIX}api/") for _, _, path in requests)
    assert not [request for request in requests if request[0] in ("401", "403")]
    assert ("101", "GET", f"{PREFIX}api/events/in") in requests
    assert any("/csrf-token" in path for _, _, path in requests)


def test_who_says_he_is_another_is_told_that_he_is_refused(proxied):
    done = proxied.penstock("up", "--server", proxied.api_url, PREFECT_API_AUTH_STRING="team:guess")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "answers 401: it refuses the PREFECT_API_AUTH_STRING that is set" in line
    assert "guess" not in line


def test_the_doctor_finds_the_settings_of_a_server_below_a_path_as_shipped(proxied):
    who = {PREFECT_API_URL: proxied.api_url, PREFECT_API_AUTH_STRING: ":".join(WHO)}
    with temporary_settings(who):
        (finding,) = [one for one in doctor() if one.about == "settings"]
    assert finding.level == "ok", finding.found


def test_the_auth_string_is_written_nowhere(proxied):
    secret = WHO[1].encode()
    files = [path for path in [proxied.log, *proxied.home.rglob("*")] if path.is_file()]
    assert proxied.home / "logs" / "worker.log" in files, "the run before this made them"
    assert not [path for path in files if secret in path.read_bytes()]
