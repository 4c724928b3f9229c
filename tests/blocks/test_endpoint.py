"""Endpoints hear what they ask for, by posts that either arrive or are said not to have."""

import json
import socket
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic import ValidationError

from blocks import ReportEndpoint, SigningKey
from blocks._messages import Failure, Message, Names
from blocks.errors import ConfigError, KeyUnusable, NotDelivered, PenstockError
from tests.receiver import Post, Receiver

NAMES = Names("flights", "run-7", root="7f", deployment="nightly", flow="flight", by="ann")
AT = "2026-11-21T09:30:00+00:00"
MESSAGE = Message("abc/status", "status", "failed", NAMES, run="7f", task="count", at=AT)
RESULTS = Message("abc/results", "results", "success", NAMES, run="7f", at=AT, results=[1, "é"])
FIELDS = {"state": "failed", "dag_id": "flights", "run_id": "run-7", "task_id": "count"}
HEADERS = {"Authorization": "Bearer hunter2", "X-Team": "blue"}


@pytest.fixture
def listener() -> Iterator[Receiver]:
    mine = Receiver()
    yield mine
    mine.down()


def unsigned(**settings: Any) -> ReportEndpoint:
    return ReportEndpoint(**{"url": "http://here", "unsigned": True, **settings})


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


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": 121}, {"title_key": "name"}])
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
    unsigned(url=listener.url, prefix="v1", headers=HEADERS).send(MESSAGE)
    [post] = listener.posts
    assert post.path == "/v1/status"
    assert json.loads(post.body) == {"payload": FIELDS}
    assert post.headers["webhook-id"] == "abc/status"
    assert post.headers["content-type"] == "application/json"
    assert post.headers["authorization"] == "Bearer hunter2"
    assert post.headers["x-team"] == "blue"


def test_a_post_says_which_attempt_it_is(listener):
    for attempt in (1, 2):
        unsigned(url=listener.url).send(MESSAGE, attempt)
    assert [post.headers["webhook-attempt"] for post in listener.posts] == ["1", "2"]


@pytest.mark.parametrize("name", ["webhook-id", "Webhook-Id", "CONTENT-TYPE", "Webhook-Attempt"])
def test_extra_headers_cannot_replace_or_double_those_of_the_message(name, listener):
    endpoint = unsigned(url=listener.url, headers={name: "forged"})
    _, headers = endpoint.request(MESSAGE)
    assert len({each.lower() for each in headers}) == len(headers)
    assert "forged" not in headers.values()
    endpoint.send(MESSAGE)
    assert listener.ids == ["abc/status"]


def key() -> tuple[SigningKey, ed25519.Ed25519PublicKey]:
    own = ed25519.Ed25519PrivateKey.generate()
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = own.private_bytes(serialization.Encoding.PEM, form, plain).decode()
    return SigningKey(algorithm="EdDSA", pem=pem), own.public_key()


def test_a_signed_post_holds_nothing_but_the_token(listener):
    signing, public = key()
    ReportEndpoint(url=listener.url, signing_key=signing, title_key="title").send(MESSAGE)
    document = json.loads(listener.posts[0].body)
    assert set(document) == {"payload"}
    claims = jwt.decode(document["payload"], public, algorithms=["EdDSA"])
    assert claims == {"title": "failed", **{n: v for n, v in FIELDS.items() if n != "state"}}


def payload(endpoint: ReportEndpoint, message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(endpoint.request(message)[0])["payload"]
    return fields


def test_older_listeners_get_the_state_as_title_and_nothing_else_changes():
    told = payload(unsigned(title_key="title"), MESSAGE)
    assert told == {"title": "failed", **{n: v for n, v in FIELDS.items() if n != "state"}}
    results = replace(RESULTS, results={"state": "of the art"})
    assert payload(unsigned(title_key="title"), results) == payload(unsigned(), results)
    assert payload(unsigned(title_key="title"), results)["results"] == {"state": "of the art"}


def test_a_result_over_the_limit_is_named_with_its_checksum_instead():
    kept = replace(RESULTS, results="x" * 100, location="/there")
    for title in ("state", "title"):
        told = payload(unsigned(max_body=101, title_key=title), kept)["results"]
        assert (told["location"], told["size"]) == ("/there", 102)
        assert payload(unsigned(max_body=102, title_key=title), kept)["results"] == "x" * 100


def test_the_format_v1_is_one_envelope_at_one_address(listener):
    end = replace(MESSAGE, error="no fuel", failure=Failure("count", ("a line",)), task_run="t1")
    unsigned(url=listener.url, prefix="in", format="v1").send(end)
    [post] = listener.posts
    assert post.path == "/in/events"
    assert post.headers["webhook-id"] == "abc/status"
    told = json.loads(post.body)
    assert (told["id"], told["type"], told["state"]) == ("abc/status", "status", "failed")
    assert told["error"] == {"message": "no fuel", "task": "count", "log": ["a line"]}
    assert (told["by"], told["deployment"], told["flow"]) == ("ann", "nightly", "flight")


@pytest.mark.parametrize("route", ["status", "progress", "results", "child", "late"])
def test_the_older_format_has_three_routes_and_v1_has_a_form_for_each(route):
    message = replace(MESSAGE, route=route)
    assert unsigned().wants(message) is (route in {"status", "progress", "results"})
    assert unsigned(format="v1").wants(message)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_2xx_is_delivered_and_an_endpoint_may_send_again(status, listener):
    listener.answer = lambda _: status
    endpoint = unsigned(url=listener.url)
    endpoint.send(MESSAGE)
    endpoint.send(MESSAGE)
    assert listener.ids == ["abc/status"] * 2


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404, 500, 503])
def test_any_other_answer_is_not_delivered_and_no_redirect_is_followed(status, listener):
    listener.answer = lambda _: (status, {"location": listener.url + "/elsewhere"})
    endpoint = unsigned(url=listener.url, headers=HEADERS)
    assert str(status) in not_delivered(endpoint, "hunter2", listener.url)
    assert [post.path for post in listener.posts] == ["/status"]


@pytest.mark.parametrize("patient", [True, False], ids=["waits", "hangs up"])
def test_no_answer_in_time_is_not_delivered(patient, listener):
    over = threading.Event()

    def answer(_: Post) -> None:
        if patient:
            over.wait(30)

    listener.answer = answer
    url = listener.url.replace("127", "me:hunter2@127")
    not_delivered(unsigned(url=url, headers=HEADERS, timeout=0.2), "hunter2", "127.0.0.1")
    over.set()
    listener.wait()


def test_a_refused_connection_is_not_delivered():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        url = f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        not_delivered(unsigned(url=url), "hunter2", "127.0.0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://[::1"},
        {"url": "http://me:hunter2@ü..example"},
        {"headers": {"Authorization": "Bearer hunter2 é"}},
        {"headers": {"Authorization": "Bearer\nhunter2"}},
        {"ca_file": "/nowhere/ca.pem"},
    ],
    ids=["address", "host", "header", "line end", "CA file"],
)
def test_what_cannot_be_sent_at_all_is_said_by_an_error_of_ours(wrong, listener):
    with pytest.raises(PenstockError) as caught:
        unsigned(**{"url": listener.url, **wrong}).send(MESSAGE)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_broken_key_sends_nothing(listener, tmp_path):
    missing = SigningKey(path=str(tmp_path / "none.pem"))
    with pytest.raises(KeyUnusable):
        ReportEndpoint(url=listener.url, signing_key=missing).send(MESSAGE)
    assert listener.posts == []


def test_people_are_shown_where_messages_go_without_the_password():
    assert unsigned(url="https://me:hunter2@here/x", prefix="y").where == "https://here/x/y"
