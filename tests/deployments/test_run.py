"""`penstock run` judges: a report that was changed, lost or signed by another makes it fail."""

import json
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks import ReportEndpoint, SigningKey
from blocks._load import load
from deployments.local.runs import left_alive

ALONE = pytest.mark.alone(reason="every run of the installation reports to the endpoint it alters")

CHECKOUT = Path(__file__).parent.parent.parent

ECHO = (
    "{cwlVersion: v1.2, class: CommandLineTool, inputs: [], baseCommand: [echo, hello], "
    "stdout: out, outputs: {out: stdout}}"
)


@pytest.fixture
def echo(tmp_path):
    (tmp_path / "echo.cwl").write_text(ECHO)
    return {"workflow": str(tmp_path / "echo.cwl")}


@pytest.fixture
def between(installation, api):
    """Puts a proxy between the endpoint and the listener; `spoil` sees every request's body."""
    endpoint = load(ReportEndpoint, "listener")
    real = endpoint.url
    spoil = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            changed = spoil[0](self.path, body)
            status = 204
            if changed is not None:
                headers = {"webhook-id": self.headers["webhook-id"]}
                status = httpx.post(real + self.path, content=changed, headers=headers).status_code
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    endpoint.save("listener", overwrite=True, _sync=True)
    yield spoil
    endpoint.url = real
    endpoint.save("listener", overwrite=True, _sync=True)
    server.shutdown()
    server.server_close()


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


@ALONE
def test_a_flipped_byte_is_seen(installation, echo, between):
    def flip(path, body):
        # The middle of the signature: the last letter of a token may hold unused bits.
        at = len(body) - 60
        return body[:at] + (b"A" if body[at : at + 1] != b"A" else b"B") + body[at + 1 :]

    between.append(lambda path, body: flip(path, body) if "results" in path else body)
    done = installation.run("cwl", echo)
    assert done.code == 1
    assert installation.last["state"] == "Completed"
    assert installation.last["reports"]["forged"] == 1
    assert len(installation.last["reports"]["missing"]) == 1
    assert "did not pass verification" in done.out


@ALONE
def test_a_dropped_message_is_missed(installation, echo, between):
    between.append(lambda path, body: None if "progress" in path else body)
    done = installation.run("cwl", echo, "--within", "5")
    assert done.code == 1
    assert installation.last["reports"]["forged"] == 0
    assert len(installation.last["reports"]["missing"]) == 2
    assert "missing: progress" in done.out


@ALONE
def test_another_key_is_refused(installation, api, echo, tmp_path):
    theirs = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = tmp_path / "theirs.pem"
    pem.write_bytes(
        theirs.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    endpoint = load(ReportEndpoint, "listener")
    SigningKey(path=str(pem)).save("theirs", _sync=True)
    ours, endpoint.signing_key = endpoint.signing_key, load(SigningKey, "theirs")
    endpoint.save("listener", overwrite=True, _sync=True)
    try:
        done = installation.run("cwl", echo)
    finally:
        endpoint.signing_key = ours
        endpoint.save("listener", overwrite=True, _sync=True)
    assert done.code == 1
    assert installation.last["reports"]["verified"] == 0
    assert installation.last["reports"]["forged"] > 0


@ALONE
def test_a_broken_key_sends_nothing_and_the_run_is_not_failed_by_it(
    installation, api, echo, tmp_path
):
    endpoint = load(ReportEndpoint, "listener")
    SigningKey(path=str(tmp_path / "gone.pem")).save("gone", _sync=True)
    ours, endpoint.signing_key = endpoint.signing_key, load(SigningKey, "gone")
    endpoint.save("listener", overwrite=True, _sync=True)
    since = installation.store.size
    try:
        done = installation.run("cwl", echo, "--within", "5")
    finally:
        endpoint.signing_key = ours
        endpoint.save("listener", overwrite=True, _sync=True)
    assert done.code == 1
    assert installation.last["state"] == "Completed"
    assert list(installation.store.read(since)) == []


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


def test_the_summary_names_the_page_and_the_files(installation, echo, tmp_path):
    done = installation.run("cwl", echo)
    run_id = installation.last["flow_run_id"]
    results = installation.home / "output" / run_id / "results.json"
    assert str(results) in done.out
    assert json.loads(results.read_text())["out"]["basename"] == "out"
    assert f"/runs/flow-run/{run_id}" in done.out
