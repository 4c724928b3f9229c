"""An endpoint that behaves badly, and mends: the run ends as it would, and nothing is lost."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from prefect import flow, tags

from flows import flow_hooks, guard, job_task
from flows._reports.ledger import Ledger
from flows._reports.outbox import folder
from flows._run.guard import current
from tests.receiver import Answer

pytestmark = pytest.mark.full
OK = b"HTTP/1.1 200 OK\r\n"
BAD = 2  # answers, and then good ones


@job_task
def works() -> int:
    return 7


@flow(**flow_hooks())
@guard(parts=1)
def small() -> dict[str, str | int]:
    return {"run": current().id, "made": works()}


def drip(*head: bytes) -> Iterator[bytes]:
    yield from head
    while True:
        time.sleep(1)  # a byte each second is what it is about
        yield b"x"


HOSTILE: dict[str, Callable[[], Answer]] = {
    "hangs up": lambda: None,
    "never answers": lambda: filter(None, drip()),
    "500": lambda: 500,
    "429, later": lambda: (429, {"retry-after": "1"}),
    "302": lambda: (302, {"location": "http://127.0.0.1:1/"}),
    "401": lambda: 401,
    "garbage": lambda: iter([b"\x00\xff garbage \r\n\r\n" * 9]),
    "a byte each second": partial(drip, OK + b"content-length: 1000\r\n\r\n"),
    "a header without end": partial(drip, OK + b"x-long: "),
    "closed in mid-body": lambda: iter([OK + b"content-length: 99\r\n\r\nonly this"]),
    "closed in mid-word": lambda: iter([b"HTTP/1.1 20"]),
}


def all_is_told(ear, installation, run: str) -> None:
    """Both who heard a run have all of it, in order, signed; and who mended nothing else."""
    heard = installation.heard(run)
    assert [(h.route, h.payload.get("state")) for h in heard] == [
        ("status", "running"),
        ("status", "success"),
        ("progress", "running"),
        ("progress", "success"),
        ("results", None),
    ]
    assert all(h.verified for h in heard)
    assert heard[-1].payload["results"] == {"run": run, "made": 7}
    posts = {post.id: post for post in ear.receiver.posts}
    assert list(posts) == [h.id for h in heard]
    assert [ear.claims(post) for post in posts.values()] == [h.payload for h in heard]


@pytest.mark.parametrize("how", HOSTILE)
def test_whoever_answers_badly_and_mends_has_all_and_the_run_is_as_ever(ear, installation, how):
    def answer(_: object) -> Answer:
        return HOSTILE[how]() if len(ear.receiver.posts) < BAD else 204

    ear.save(timeout=1.5)
    ear.receiver.answer = answer
    with tags(ear.name):
        state = small(return_state=True)
    assert state.is_completed()
    run = state.result()["run"]
    ear.wait_for_results()
    assert len(ear.receiver.posts) == BAD + 5
    all_is_told(ear, installation, run)
    assert all(ear.claims(post)["run_id"] == run for post in ear.receiver.posts)


def test_a_host_that_nobody_knows_keeps_its_messages_waiting_until_it_is_mended(ear, installation):
    ear.save(url="http://nowhere.invalid")
    with tags(ear.name):
        run = small()["run"]
    heard = installation.heard(run)
    ledger = Ledger(folder())
    waiting = ledger.find(
        "WHERE status = 'waiting' AND endpoint = ?", [f"report-endpoint/{ear.name}"]
    )
    ledger.close()
    assert {one.message for one in waiting} == {h.id for h in heard}
    assert ear.receiver.posts == []
    ear.save()
    ear.wait_for_results()
    all_is_told(ear, installation, run)
