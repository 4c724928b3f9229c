"""A report that was changed, lost or signed by another makes `penstock run` fail."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks import ReportEndpoint, SigningKey
from blocks._load import load
from flows._reports.ledger import Ledger

pytestmark = [
    pytest.mark.full,
    pytest.mark.alone(reason="alters the endpoint that every run reports to"),
]


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


def test_a_flipped_byte_is_seen(installation, echo, between):
    def flip(path, body):
        # The middle of the signature: the last letter of a token may hold unused bits.
        at = len(body) - 60
        return body[:at] + (b"A" if body[at : at + 1] != b"A" else b"B") + body[at + 1 :]

    between.append(lambda path, body: flip(path, body) if "results" in path else body)
    done = installation.run("cwl", echo)
    assert done.code == 1
    assert installation.last["state"] == "Completed"
    assert installation.last["reports"]["forged"] >= 1  # it is sent again, and flipped again
    assert len(installation.last["reports"]["missing"]) == 1
    assert "did not pass verification" in done.out


def test_a_dropped_message_is_missed(installation, echo, between):
    between.append(lambda path, body: None if "progress" in path else body)
    done = installation.run("cwl", echo, "--within", "5")
    assert done.code == 1
    assert installation.last["reports"]["forged"] == 0
    assert len(installation.last["reports"]["missing"]) == 2
    assert "missing: progress" in done.out


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


def test_a_broken_key_sends_nothing_until_it_is_mended_and_the_run_is_not_failed_by_it(
    installation, api, echo, tmp_path
):
    endpoint = load(ReportEndpoint, "listener")
    SigningKey(path=str(tmp_path / "gone.pem")).save("gone", _sync=True)
    ours, endpoint.signing_key = endpoint.signing_key, load(SigningKey, "gone")
    endpoint.save("listener", overwrite=True, _sync=True)
    since = installation.store.size
    try:
        done = installation.run("cwl", echo, "--within", "5")
        run = installation.last["flow_run_id"]
        [place] = installation.home.glob("reports/*/ledger.db")
        waiting = {one.message for one in Ledger(place.parent).find("WHERE d.root = ?", [run])}
        came = {heard.id for heard in installation.store.read(since)}
    finally:
        endpoint.signing_key = ours
        endpoint.save("listener", overwrite=True, _sync=True)
    assert done.code == 1
    assert installation.last["state"] == "Completed"
    assert waiting
    assert not waiting & came
    assert waiting == {heard.id for heard in installation.heard(run)}
