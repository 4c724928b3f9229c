"""Endpoints hear what they ask for, by posts that either arrive or are said not to have."""

import json
import socket
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic import ValidationError

from blocks import ReportEndpoint, SigningKey
from blocks._messages import Message
from blocks.errors import ConfigError, KeyUnusable, NotDelivered, PenstockError

MESSAGE = Message("abc/status", "status", {"state": "failed", "task_id": "count"})
HEADERS = {"Authorization": "Bearer hunter2", "X-Team": "blue"}


@dataclass
class Listener:
    """A real HTTP server: what came to it, and what it answers."""

    url: str = ""
    status: int | None = 204  # None: hang up without a word
    location: str | None = None
    patient: bool = False  # never answer
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    mine = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            mine.heard.append((self.path, headers, body))
            mine.came.set()
            if mine.patient:
                mine.over.wait()
            elif mine.status is not None:
                self.send_response(mine.status)
                if mine.location:
                    self.send_header("location", mine.location)
                self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # server_close waits for every answer

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        mine.url = f"http://127.0.0.1:{server.server_port}"
        yield mine
        mine.over.set()
        server.shutdown()
        thread.join()


def not_delivered(endpoint: ReportEndpoint, *secrets: str) -> str:
    """The text of the NotDelivered that `endpoint` raises, sure to show none of `secrets`."""
    with pytest.raises(NotDelivered) as caught:
        endpoint.send(MESSAGE)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert [secret for secret in (*secrets, "http://") if secret in shown] == []
    return str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://here"},
        {"url": "http://here", "unsigned": True, "signing_key": SigningKey(path="/key")},
    ],
    ids=["neither", "both"],
)
def test_an_endpoint_is_signed_or_unsigned_on_purpose(settings):
    with pytest.raises(ConfigError, match="signing_key, or unsigned"):
        ReportEndpoint(**settings)


@pytest.mark.parametrize("url", ["", "here", "ftp://here", "file:///etc/passwd", " http://here"])
def test_an_endpoint_is_reached_by_http_only(url):
    with pytest.raises(ConfigError, match="http:// or https://"):
        ReportEndpoint(url=url, unsigned=True)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": 61}, {"title_key": "name"}])
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        ReportEndpoint(url="http://here", unsigned=True, **wrong)


RUN = ("nightly", "flights", ["eu", "big"])


@pytest.mark.parametrize(
    ("match", "heard"),
    [
        ({}, True),
        ({"match_deployments": ["hourly", "nightly"]}, True),
        ({"match_deployments": ["hourly"]}, False),
        ({"match_flows": ["flights", "other"]}, True),
        ({"match_flows": ["other"]}, False),
        ({"match_tags": ["eu"]}, True),
        ({"match_tags": ["eu", "big"]}, True),
        ({"match_tags": ["eu", "small"]}, False),
        ({"match_deployments": ["nightly"], "match_flows": ["other"]}, False),
        ({"match_deployments": ["nightly"], "match_flows": ["flights"]}, True),
        ({"match_flows": ["flights"], "match_tags": ["us"]}, False),
    ],
)
def test_an_endpoint_hears_runs_that_fit_all_it_asks_for(match, heard):
    assert ReportEndpoint(url="http://here", unsigned=True, **match).matches(*RUN) is heard


def test_a_run_without_deployment_is_heard_only_where_no_deployment_is_asked_for():
    everyone = ReportEndpoint(url="http://here", unsigned=True)
    choosy = ReportEndpoint(url="http://here", unsigned=True, match_deployments=["nightly"])
    assert everyone.matches(None, "flights", [])
    assert not choosy.matches(None, "flights", [])


@pytest.mark.parametrize(
    ("url", "prefix", "address"),
    [
        ("http://here", "", "http://here/status"),
        ("http://here/", "", "http://here/status"),
        ("https://here:1/deep/", "", "https://here:1/deep/status"),
        ("http://here", "satellite/v1", "http://here/satellite/v1/status"),
        ("http://here/", "/satellite/v1/", "http://here/satellite/v1/status"),
        ("http://here/deep", "v1/", "http://here/deep/v1/status"),
        ("http://here", "/", "http://here/status"),
    ],
)
def test_the_address_is_url_prefix_and_route_with_single_slashes(url, prefix, address):
    assert ReportEndpoint(url=url, prefix=prefix, unsigned=True).address("status") == address


def test_a_post_holds_the_message_its_id_and_the_secret_headers(listener):
    ReportEndpoint(url=listener.url, prefix="v1", headers=HEADERS, unsigned=True).send(MESSAGE)
    [(path, headers, body)] = listener.heard
    assert path == "/v1/status"
    assert json.loads(body) == {"payload": {"state": "failed", "task_id": "count"}}
    assert headers["webhook-id"] == "abc/status"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer hunter2"
    assert headers["x-team"] == "blue"


def test_extra_headers_cannot_replace_the_id(listener):
    headers = {"webhook-id": "forged"}
    ReportEndpoint(url=listener.url, headers=headers, unsigned=True).send(MESSAGE)
    assert listener.heard[0][1]["webhook-id"] == "abc/status"


def test_a_signed_post_holds_nothing_but_the_token(listener):
    key = ed25519.Ed25519PrivateKey.generate()
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, form, plain).decode()
    signing = SigningKey(algorithm="EdDSA", pem=pem)
    ReportEndpoint(url=listener.url, signing_key=signing, title_key="title").send(MESSAGE)
    document = json.loads(listener.heard[0][2])
    assert set(document) == {"payload"}
    claims = jwt.decode(document["payload"], key.public_key(), algorithms=["EdDSA"])
    assert claims == {"title": "failed", "task_id": "count"}


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_2xx_is_delivered_and_an_endpoint_may_send_again(status, listener):
    listener.status = status
    endpoint = ReportEndpoint(url=listener.url, unsigned=True)
    endpoint.send(MESSAGE)
    endpoint.send(MESSAGE)
    assert [headers["webhook-id"] for _, headers, _ in listener.heard] == ["abc/status"] * 2


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404, 500, 503])
def test_any_other_answer_is_not_delivered_and_no_redirect_is_followed(status, listener):
    listener.status, listener.location = status, listener.url + "/elsewhere"
    endpoint = ReportEndpoint(url=listener.url, headers=HEADERS, unsigned=True)
    assert str(status) in not_delivered(endpoint, "hunter2", listener.url)
    assert [path for path, _, _ in listener.heard] == ["/status"]


@pytest.mark.parametrize("how", [{"patient": True}, {"status": None}], ids=["waits", "hangs up"])
def test_no_answer_in_time_is_not_delivered(how, listener):
    vars(listener).update(how)
    url = listener.url.replace("127", "me:hunter2@127")
    endpoint = ReportEndpoint(url=url, headers=HEADERS, unsigned=True, timeout=0.2)
    not_delivered(endpoint, "hunter2", "127.0.0.1")
    assert listener.came.wait(30)


def test_a_refused_connection_is_not_delivered():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        url = f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        not_delivered(ReportEndpoint(url=url, unsigned=True), "hunter2", "127.0.0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://[::1"},
        {"url": "http://me:hunter2@ü..example"},
        {"headers": {"Authorization": "Bearer hunter2 é"}},
    ],
    ids=["address", "host", "header"],
)
def test_what_cannot_be_sent_at_all_is_said_by_an_error_of_ours(wrong, listener):
    with pytest.raises(PenstockError) as caught:
        ReportEndpoint(**{"url": listener.url, "unsigned": True, **wrong}).send(MESSAGE)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_broken_key_sends_nothing(listener, tmp_path):
    key = SigningKey(path=str(tmp_path / "none.pem"))
    with pytest.raises(KeyUnusable):
        ReportEndpoint(url=listener.url, signing_key=key).send(MESSAGE)
    assert listener.heard == []
