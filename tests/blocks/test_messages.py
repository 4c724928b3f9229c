"""What is told when, and what it looks like on the wire: the seed's table, written out by hand."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import blocks._messages as wire
from blocks import ReportEndpoint, SigningKey, VerifyKey
from blocks._changes import Change
from blocks.errors import NotVerified

FIELDS = {
    "progress": {"state", "dag_id", "run_id", "progress", "error"},
    "status": {"state", "dag_id", "run_id", "task_id"},
    "results": {"dag_id", "run_id", "results"},
}
EVENTS = {
    "task starts": ("RUNNING", "Running", ["status"]),
    "task succeeded": ("COMPLETED", "Completed", ["progress", "status"]),
    "task failed": ("FAILED", "Failed", ["status"]),
    "task up for retry": ("SCHEDULED", "AwaitingRetry", ["status"]),
    "run succeeded": ("COMPLETED", "Completed", ["progress", "results"]),
    "run failed": ("FAILED", "Failed", ["progress"]),
}
WORDS = [
    ("RUNNING", "Running", "running"),
    ("COMPLETED", "Completed", "success"),
    ("COMPLETED", "Cached", "success"),
    ("COMPLETED", "Skipped", "success"),
    ("FAILED", "Failed", "failed"),
    ("FAILED", "TimedOut", "failed"),
    ("CRASHED", "Crashed", "failed"),
    ("CANCELLED", "Cancelled", "failed"),
    ("RUNNING", "Retrying", "up_for_retry"),
    ("SCHEDULED", "AwaitingRetry", "up_for_retry"),
    ("PENDING", "NotReady", "upstream_failed"),
    ("FAILED", "UpstreamFailed", "upstream_failed"),
]
NOT_TOLD = [
    ("PENDING", "Pending"),
    ("SCHEDULED", "Scheduled"),
    ("SCHEDULED", "Late"),
    ("PAUSED", "Paused"),
    ("PAUSED", "Suspended"),
]
RUN, CHILD, TASK = "7f", "9c", "t1"
AT = "2026-11-21T09:30:00.000001+00:00"
NAMES = wire.Names("flights", "run-7", root=RUN)
IDS = {"dag_id": "flights", "run_id": "run-7"}
FAIR = {**IDS, "results": {"naïve": [1, 2.5, None, "✈"]}}


def of_task(kind: str, name: str = "", **more: Any) -> list[wire.Message]:
    of = {"run": RUN, "task": "count", "task_run": TASK, "progress": 40, **more}
    return wire.messages(Change(state="s1", type=kind, name=name, at=AT, **of), NAMES)


def of_run(kind: str, name: str = "", progress: int = 100, run: str = RUN) -> list[wire.Message]:
    change = Change(run, "s1", kind, name, AT, message="no fuel", progress=progress)
    return wire.messages(change, NAMES, results=[1])


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_gives_the_messages_of_the_table_with_exactly_their_fields(event):
    kind, name, routes = EVENTS[event]
    messages = (of_task if "task" in event else of_run)(kind, name)
    assert sorted(m.route for m in messages) == routes
    assert all(set(m.payload) == FIELDS[m.route] for m in messages)


@pytest.mark.parametrize(("kind", "name", "word"), WORDS)
def test_each_state_of_a_task_has_its_word(kind, name, word):
    status = next(m for m in of_task(kind, name) if m.route == "status")
    assert status.payload == {"state": word, **IDS, "task_id": "count"}


@pytest.mark.parametrize(("kind", "name"), [*NOT_TOLD, ("CANCELLING", "Cancelling")])
def test_other_states_of_a_task_are_told_to_nobody(kind, name):
    assert of_task(kind, name) == []


@pytest.mark.parametrize("run", [RUN, CHILD])
@pytest.mark.parametrize(("kind", "name"), [*NOT_TOLD, ("RUNNING", "Running")])
def test_a_run_that_goes_on_or_has_not_begun_tells_existing_listeners_nothing(kind, name, run):
    endpoint = ReportEndpoint(url="http://here", unsigned=True)
    assert [m for m in of_run(kind, name, run=run) if endpoint.wants(m)] == []


def test_a_run_that_has_not_started_in_time_is_late():
    [late] = of_run("SCHEDULED", "Late")
    assert (late.route, late.state, late.id) == ("late", "late", "s1/late")
    assert "not started in time" in late.error


def test_a_cancelled_run_tells_the_same_before_and_after_prefect_makes_it_so():
    [before], [after] = of_run("CANCELLING", progress=40), of_run("CANCELLED", progress=40)
    assert before == after
    assert before.id == "7f.1.cancelled/progress"
    assert before.payload == {"state": "failed", **IDS, "progress": 40, "error": "no fuel"}


def test_with_a_task_that_succeeded_its_run_is_running_at_that_percentage():
    told = {m.route: m.payload for m in of_task("COMPLETED", progress=40)}
    assert told["progress"] == {"state": "running", **IDS, "progress": 40, "error": ""}


def test_a_task_of_unknown_progress_or_of_a_child_run_sends_its_status_only():
    assert [m.route for m in of_task("COMPLETED", progress=None)] == ["status"]
    [of_child] = of_task("COMPLETED", run=CHILD)
    assert (of_child.route, of_child.run, of_child.parent) == ("status", CHILD, RUN)
    assert of_child.payload == {"state": "success", **IDS, "task_id": "count"}


@pytest.mark.parametrize("kind", ["COMPLETED", "FAILED", "CRASHED", "CANCELLING"])
def test_the_end_of_a_child_run_is_no_progress_and_no_results_of_its_root(kind):
    [end] = of_run(kind, run=CHILD)
    assert (end.route, end.run, end.parent) == ("child", CHILD, RUN)
    assert not ReportEndpoint(url="http://here", unsigned=True).wants(end)
    assert end.results is None


@pytest.mark.parametrize("progress", [0, 40, 99, 100])
def test_a_run_is_at_100_when_it_succeeded_and_only_then(progress):
    good = {m.route: m.payload for m in of_run("COMPLETED", progress=progress)}
    assert good["progress"] == {"state": "success", **IDS, "progress": 100, "error": ""}
    assert good["results"] == {**IDS, "results": [1]}
    [bad] = of_run("FAILED", progress=progress)
    assert bad.payload["progress"] == min(progress, 99)


@pytest.mark.parametrize("tell", [of_task, of_run])
@pytest.mark.parametrize("kind", ["COMPLETED", "FAILED"])
def test_the_id_of_a_message_is_the_state_and_the_route(tell, kind):
    assert [m.id for m in tell(kind)] == [f"s1/{m.route}" for m in tell(kind)]


def test_a_retry_and_a_crash_are_known_by_the_task_since_their_states_come_late():
    assert [m.id for m in of_task("SCHEDULED", "AwaitingRetry", attempt=2)] == ["t1.2/status"]
    assert [m.id for m in of_task("RUNNING", "Retrying", attempt=3)] == ["t1.2/status"]
    assert [m.id for m in of_task("CRASHED", "Crashed")] == ["t1.crashed/status"]


def test_a_later_state_gives_a_higher_seq_to_the_microsecond():
    [before], [after] = of_task("RUNNING"), of_task("FAILED")
    after = replace(after, at="2026-11-21T10:30:00.000002+01:00")  # another zone
    assert after.seq - before.seq == 1
    assert before.seq == datetime(2026, 11, 21, 9, 30, tzinfo=UTC).timestamp() * 1_000_000 + 1


def test_results_are_the_roots_alone_with_the_place_where_they_are_kept():
    change = Change(RUN, "s1", "COMPLETED", "Completed", AT)
    progress, results = wire.messages(change, NAMES, results=[1], location="/there")
    assert (progress.results, progress.location) == (None, None)
    assert (results.results, results.location) == ([1], "/there")


def test_a_failed_run_carries_what_it_says_of_itself():
    why = wire.Failure("count", ("a line", "and another"))
    change = Change(RUN, "s1", "FAILED", "Failed", AT, message="no fuel")
    [end] = wire.messages(change, NAMES, failure=why)
    assert (end.error, end.failure) == ("no fuel", why)


@pytest.mark.parametrize("message", [*of_run("COMPLETED"), *of_run("FAILED"), *of_task("FAILED")])
def test_a_message_kept_as_json_comes_back_as_it_was(message):
    message = replace(message, failure=wire.Failure("count", ("✈", "caf\udce9")))
    assert wire.Message.from_json(message.as_json()) == message


class Plane:
    def __str__(self) -> str:
        return "a plane"

    __repr__ = __str__  # an address in a test's name would be another in each process


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"naïve": [1, 2.5, None, "✈", True]}, {"naïve": [1, 2.5, None, "✈", True]}),
        ([float("nan"), float("inf")], [None, None]),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (datetime(2026, 11, 21, tzinfo=UTC), "2026-11-21T00:00:00Z"),
        ([Plane()], ["a plane"]),
        ({"caf\udce9": ["caf\udce9"]}, {"caf?": ["caf?"]}),
        (b"caf\xe9", "caf�"),
        (2**70, 2**70),
    ],
    ids=ascii,
)
def test_a_result_is_told_as_json_has_it_whatever_it_was(result, told):
    assert wire.plain(result) == told
    json.dumps(told, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("labels", "deployment", "told"),
    [
        ({}, None, ("flow", "42")),
        ({}, "nightly", ("nightly", "42")),
        ({"penstock.dag_id": "theirs"}, "nightly", ("theirs", "42")),
        ({"penstock.run_id": "r1"}, "nightly", ("nightly", "r1")),
        ({"penstock.dag_id": "theirs", "penstock.run_id": 7}, None, ("theirs", "7")),
        ({"penstock.dag_id": "", "other": "x"}, None, ("flow", "42")),
    ],
)
def test_a_run_is_called_by_its_labels_then_its_deployment_then_its_flow(labels, deployment, told):
    names = wire.names(labels, 42, deployment, "flow", "ann")
    assert names == wire.Names(*told, root="42", deployment=deployment, flow="flow", by="ann")


def results() -> wire.Message:
    return wire.Message("1/results", "results", "success", NAMES, at=AT, results=FAIR["results"])


def pair() -> tuple[str, str]:
    """A new private key and its public one."""
    key = rsa.generate_private_key(65537, 2048)
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private, public = key.private_bytes(pem, form, plain), key.public_key().public_bytes(pem, spki)
    return private.decode(), public.decode()


@pytest.fixture(scope="module")
def own() -> tuple[str, str]:
    return pair()


@pytest.fixture(scope="module")
def body(own: tuple[str, str]) -> bytes:
    endpoint = ReportEndpoint(url="http://here", signing_key=SigningKey(pem=own[0]))
    return endpoint.request(results())[0]


def refused(own: tuple[str, str], body: bytes, max_body: int = 1 << 20) -> bool:
    with pytest.raises(NotVerified):
        wire.decode(body, VerifyKey(pem=own[1]).verify, max_body=max_body)
    return True


def test_a_signed_body_is_one_token_that_pyjwt_alone_reads_as_exactly_the_fields(own, body):
    document = json.loads(body)
    assert list(document) == ["payload"]
    assert jwt.decode(document["payload"], own[1], algorithms=["RS256"]) == FAIR
    assert wire.decode(body, VerifyKey(pem=own[1]).verify, max_body=len(body)) == FAIR


def test_an_unsigned_body_holds_the_fields_in_the_clear_and_is_refused(own):
    body, _ = ReportEndpoint(url="http://here", unsigned=True).request(results())
    assert json.loads(body) == {"payload": FAIR}
    assert refused(own, body)


def test_a_body_over_the_limit_is_refused(own, body):
    assert refused(own, body, max_body=len(body) - 1)


GARBAGE = {
    "empty": lambda token: b"",
    "no JSON": lambda token: token.encode(),
    "no UTF-8": lambda token: b"\xff\xfe\xfa",
    "cut": lambda token: wrapped(token)[:-1],
    "endlessly nested": lambda token: b"[" * 200_000,
    "a list": lambda token: json.dumps([{"payload": token}]).encode(),
    "no payload": lambda token: b"{}",
    "another key": lambda token: json.dumps({"Payload": token}).encode(),
    "one key more": lambda token: json.dumps({"payload": token, "route": "x"}).encode(),
    "a list as payload": lambda token: json.dumps({"payload": [token]}).encode(),
    "null as payload": lambda token: b'{"payload": null}',
    "half a surrogate": lambda token: b'{"payload": "\\ud800"}',
    "without signature": lambda token: wrapped(token.rpartition(".")[0] + "."),
    "with a tail": lambda token: wrapped(token + "A"),
}


def wrapped(token: str) -> bytes:
    return json.dumps({"payload": token}).encode()


@pytest.mark.parametrize("make", GARBAGE.values(), ids=GARBAGE)
def test_whatever_is_not_one_signed_payload_is_refused(own, body, make):
    assert refused(own, make(json.loads(body)["payload"]))


def test_a_token_with_any_one_character_changed_is_refused(own, body):
    token = json.loads(body)["payload"]
    for at, char in enumerate(token):
        other = "B" if char == "A" else "A"
        assert refused(own, wrapped(token[:at] + other + token[at + 1 :]))


def test_a_token_of_another_key_is_refused(own):
    assert refused(own, wrapped(SigningKey(pem=pair()[0]).sign(FAIR)))


def unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS512"])
def test_a_token_cannot_choose_its_algorithm(own, algorithm):
    parts: list[dict[str, Any]] = [{"alg": algorithm, "typ": "JWT"}, FAIR]
    signed = ".".join(unpadded(json.dumps(part).encode()) for part in parts)
    # The old trick: the public key, which everybody has, used as a shared secret.
    shared = hmac.new(own[1].encode(), signed.encode(), hashlib.sha256).digest()
    assert refused(own, wrapped(f"{signed}."))
    assert refused(own, wrapped(f"{signed}.{unpadded(shared)}"))
