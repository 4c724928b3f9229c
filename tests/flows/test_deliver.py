"""Senders against real receivers: in order, patient, and nobody waits for another's trouble."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from blocks import ReportEndpoint, SigningKey, SlackChannel
from blocks._changes import Change
from blocks._messages import Names, messages
from blocks.errors import BlockMissing, ConfigError
from flows._reports.deliver import FIRST_DELAY, LONGEST_DELAY, LONGEST_WISH, Sender, _delay
from flows._reports.ledger import Ledger
from flows._reports.rows import Delivery, Made
from tests.receiver import Answer, Post, Receiver

AT = "2026-11-21T09:30:00+00:00"
SECRET = "hunter2"


class Desk:
    """A ledger, senders that deliver what is in it, and what they said."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ledger = Ledger(place)
        self.warned: list[tuple[str, str]] = []
        self.senders: list[Sender] = []
        self.receivers: list[Receiver] = []
        self._told = threading.Event()

    def receiver(self, answer: Callable[[Post], Answer] | None = None) -> Receiver:
        made = Receiver()
        made.answer = answer or made.answer
        self.receivers.append(made)
        return made

    def add(self, *runs: str, each: int = 2, to: tuple[str, ...] = ("here",), **of: Any) -> None:
        """`each` messages of tasks, in turn of all runs, and the end of each run."""
        tasks = [(run, str(n)) for n in range(each) for run in runs]
        changes = [
            Change(run, f"{run}-{n}", "RUNNING", "Running", AT, task=n, task_run=n)
            for run, n in tasks
        ] + [Change(run, f"{run}-end", "COMPLETED", "Completed", AT) for run in runs]
        self.ledger.take_in(changes, {})
        made = []
        for n, change in self.ledger.changes():
            built = messages(change, Names("flights", change.run, change.run), **of)
            wanted = [(message.id, key) for message in built for key in to]
            made.append(Made(n, change.run, built, wanted, change.ends_run))
        self.ledger.resolve(made)

    def send(self, load: Callable[[str], Any], endpoint: str = "here") -> Sender:
        sender = Sender(self.place, endpoint, load, self._warn, self._told.set)
        self.senders.append(sender)
        sender.start()
        return sender

    def done(self, seconds: float = 60) -> None:
        """Await that nothing waits any more."""
        deadline = time.monotonic() + seconds
        while self.ledger.endpoints():
            assert self._told.wait(deadline - time.monotonic()), self.ledger.find()
            self._told.clear()

    def status(self, status: str) -> list[str]:
        return [one.message for one in self.ledger.find("WHERE status = ?", [status])]

    def _warn(self, delivery: Delivery, why: str) -> None:
        self.warned.append((delivery.message, why))

    def close(self) -> None:
        for sender in self.senders:
            sender.end()
        for sender in self.senders:
            sender.join()
        for receiver in self.receivers:
            receiver.down()
        self.ledger.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    mine = Desk(tmp_path)
    yield mine
    mine.close()


def at(receiver: Receiver, **settings: Any) -> Callable[[str], ReportEndpoint]:
    """A load function for an endpoint at the receiver."""
    fields = {"url": receiver.url, "unsigned": True, **settings}
    return lambda _: ReportEndpoint(**fields)


def run_of(post: Post) -> str:
    return post.id.partition("-")[0]


def lane(run: str, each: int = 2) -> list[str]:
    tasks = [f"{run}-{n}/status" for n in range(each)]
    return [*tasks, f"{run}-end/progress", f"{run}-end/results"]


def of_run(receiver: Receiver, run: str) -> list[str]:
    return [post.id for post in receiver.posts if run_of(post) == run]


def first(*answers: Answer) -> Callable[[Post], Answer]:
    """Give these answers in turn, and 204 from then on."""
    left = list(answers)
    return lambda _: left.pop(0) if left else 204


# Order ----------------------------------------------------------------------------------------


def test_each_runs_messages_arrive_in_order_and_labels_are_asked_for(desk):
    receiver = desk.receiver()
    desk.add("a", "b", "c", each=30)
    desk.send(at(receiver))
    desk.done()
    for run in "abc":
        assert of_run(receiver, run) == lane(run, each=30)
    assert {post.headers["webhook-attempt"] for post in receiver.posts} == {"1"}
    assert desk.ledger.labels() == [(run, "here", f"told {run}-end/results") for run in "abc"]
    assert desk.warned == []


def test_what_is_added_later_is_sent_when_the_sender_is_woken(desk):
    receiver = desk.receiver()
    sender = desk.send(at(receiver))
    desk.add("a")
    sender.wake()
    receiver.wait(lambda: receiver.ids == lane("a"))


def test_a_message_that_is_refused_for_now_holds_its_own_run_and_no_other(desk):
    mended = threading.Event()
    receiver = desk.receiver(lambda p: 404 if run_of(p) == "a" and not mended.is_set() else 204)
    desk.add("a", "b")
    desk.send(at(receiver))
    receiver.wait(lambda: of_run(receiver, "b") == lane("b"))
    assert set(of_run(receiver, "a")) == {"a-0/status"}
    mended.set()
    desk.done()
    sent = of_run(receiver, "a")
    assert sent[sent.count("a-0/status") - 1 :] == lane("a")


def test_an_endpoint_that_is_down_or_hangs_delays_no_other(desk):
    over = threading.Event()
    down, hangs, up = (
        desk.receiver(),
        desk.receiver(lambda _: over.wait(60) and 204),
        desk.receiver(),
    )
    down.down()
    desk.add("a", "b", to=("down", "hangs", "up"))
    desk.send(at(down), "down")
    desk.send(at(hangs, timeout=100), "hangs")
    desk.send(at(up), "up")
    up.wait(lambda: sorted(up.ids) == sorted([*lane("a"), *lane("b")]))
    assert (down.posts, hangs.posts) == ([], [])
    over.set()
    down.up()
    desk.done()
    assert of_run(down, "a") == lane("a")
    assert of_run(hangs, "b") == lane("b")


# Later attempts -------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [0, 1, 2, 5, 8, 9, 16, 1000])
def test_the_wait_doubles_up_to_a_limit_and_varies_by_half(attempts):
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts, 20))
    delays = [_delay(attempts) for _ in range(1000)]
    assert longest / 2 <= min(delays) < longest * 0.6
    assert longest * 0.9 < max(delays) <= longest


@pytest.mark.parametrize("answer", [500, 502, 503, 401, 403, 404, 302, 429, None])
def test_what_may_help_is_tried_again_with_the_same_id_and_said(answer, desk):
    receiver = desk.receiver(first(answer))
    desk.add("a", each=1)
    desk.send(at(receiver))
    desk.done()
    assert receiver.ids == ["a-0/status", *lane("a", each=1)]
    assert [post.headers["webhook-attempt"] for post in receiver.posts][:2] == ["1", "2"]
    [(message, why)] = desk.warned
    assert message == "a-0/status"
    assert "it will be tried again" in why


def test_a_lane_that_waits_long_does_not_keep_another_from_its_next_attempt(desk):
    receiver = desk.receiver(lambda p: first_of_a.pop() if run_of(p) == "a" and first_of_a else 204)
    first_of_a = [404]
    desk.add("a", "b", each=1)
    [head, *_] = desk.ledger.waiting("here", "b")
    desk.ledger.postpone(head, time.time() + 300, "for long")
    desk.send(at(receiver))
    receiver.wait(lambda: of_run(receiver, "a") == ["a-0/status", *lane("a", each=1)])
    assert of_run(receiver, "b") == []


def test_the_receivers_wish_for_a_later_attempt_is_honoured_for_all_runs(desk):
    times: list[float] = []

    def answer(_: Post) -> Answer:
        times.append(time.monotonic())
        return (429, {"retry-after": "2"}) if len(times) == 1 else 204

    receiver = desk.receiver(answer)
    desk.add("a", "b", each=1)
    desk.send(at(receiver))
    desk.done()
    assert times[1] - times[0] >= 1.9
    assert len(receiver.posts) == 7


def test_a_wish_for_ten_years_is_honoured_for_an_hour(desk):
    receiver = desk.receiver(lambda _: (503, {"retry-after": "315360000"}))
    desk.add("a")
    sender = desk.send(at(receiver))
    receiver.wait()
    sender.end()
    sender.join()
    [(_, due)] = desk.ledger.lanes("here")
    assert LONGEST_WISH - 60 < due - time.time() <= LONGEST_WISH


def test_an_endpoint_that_fails_whatever_the_run_rests_is_probed_and_recovers(desk):
    times: list[float] = []
    up = threading.Event()

    def answer(_: Post) -> Answer:
        times.append(time.monotonic())
        if len(times) == 5:
            up.set()
        return 204 if up.is_set() and len(times) > 5 else 503

    receiver = desk.receiver(answer)
    desk.add(*"abcdef", each=1)
    desk.send(at(receiver))
    desk.done()
    assert times[3] - times[2] >= FIRST_DELAY / 2 * 0.9  # the fourth came after a rest,
    assert times[4] - times[3] >= FIRST_DELAY * 0.9  # and the next after a longer one
    for run in "abcdef":
        assert [*dict.fromkeys(of_run(receiver, run))] == lane(run, each=1)


@pytest.mark.parametrize("status", [400, 410, 413, 422])
def test_a_message_refused_for_good_is_dead_and_the_next_goes_on_at_once(status, desk):
    receiver = desk.receiver(lambda p: status if p.id == "a-0/status" else 204)
    desk.add("a")
    desk.send(at(receiver))
    desk.done()
    assert receiver.ids == lane("a")
    [dead] = desk.ledger.find("WHERE status = 'dead'")
    assert (dead.message, str(status) in dead.why) == ("a-0/status", True)
    assert "given up" in desk.warned[0][1]


def test_the_end_of_a_run_that_is_refused_is_labelled_as_such(desk):
    desk.add("a")
    desk.send(at(desk.receiver(lambda _: 410)))
    desk.done()
    assert desk.ledger.labels() == [("a", "here", "dead a-end/results")]


def test_a_message_is_given_up_after_its_time_and_sent_when_it_is_replayed(desk):
    receiver = desk.receiver(lambda _: 503)
    desk.add("a", each=1)
    sender = desk.send(at(receiver, give_up_after=0.2 / 3600))
    desk.done()
    assert desk.status("dead") == lane("a", each=1)
    assert "hours)" in desk.ledger.find()[0].why
    receiver.answer = lambda _: 204
    receiver.posts.clear()
    desk.ledger.replay(desk.ledger.find("WHERE status = 'dead'"))
    sender.wake()
    desk.done()
    assert receiver.ids == lane("a", each=1)


def test_a_channel_gives_up_after_its_own_time(desk):
    address = desk.receiver(lambda _: 503).url
    desk.add("a", each=1)
    desk.send(lambda _: SlackChannel(webhook=f"{address}/services/x", give_up_after=0.2 / 3600))
    desk.done()
    assert desk.status("dead") == lane("a", each=1)
    assert "hours)" in desk.ledger.find()[0].why


# Keys and blocks ------------------------------------------------------------------------------


def pair(kind: str = "RSA") -> tuple[bytes, bytes]:
    """A new private key and its public one."""
    key: Any = (
        rsa.generate_private_key(65537, 2048)
        if kind == "RSA"
        else ec.generate_private_key(ec.SECP256R1())
    )
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(pem, form, plain), key.public_key().public_bytes(pem, spki)


def claims(post: Post, *publics: bytes) -> dict[str, Any]:
    """What PyJWT reads with the one key that fits."""
    for public in publics:
        try:
            token = json.loads(post.body)["payload"]
            return jwt.decode(token, public.decode(), algorithms=["RS256"])
        except jwt.InvalidSignatureError:
            continue
    raise AssertionError("none of the keys has signed this")


@pytest.mark.parametrize("broken", [None, b"no key", pair("EC")[0]], ids=["none", "text", "EC"])
def test_without_a_usable_key_nothing_is_sent_and_nothing_is_lost(broken, desk, tmp_path):
    private, public = pair()
    path = tmp_path / "key.pem"
    if broken:
        path.write_bytes(broken)
    receiver = desk.receiver()
    desk.add("a")
    warned = threading.Event()
    desk._warn = lambda *said: (desk.warned.append(said), warned.set())
    desk.send(at(receiver, unsigned=False, signing_key=SigningKey(path=str(path))))
    assert warned.wait(30)
    assert receiver.posts == []
    path.write_bytes(private)
    desk.done()
    assert receiver.ids == lane("a")
    assert [claims(post, public)["run_id"] for post in receiver.posts] == ["a"] * 4
    assert "PRIVATE" not in str(desk.warned)


def test_a_key_rotated_in_the_middle_of_a_run_signs_what_follows(desk, tmp_path):
    (old, old_public), (new, new_public) = pair(), pair()
    path = tmp_path / "key.pem"
    path.write_bytes(old)

    def answer(post: Post) -> Answer:
        if post.id == "a-2/status":
            path.write_bytes(new)
            return 503  # signed with the old key: signed anew with the new one
        return 204

    receiver = desk.receiver(answer)
    desk.add("a", each=6)
    desk.send(at(receiver, unsigned=False, signing_key=SigningKey(path=str(path))))
    receiver.wait(lambda: receiver.ids == lane("a", each=6)[:3])
    receiver.answer = lambda _: 204
    desk.done()
    told = receiver.posts
    assert [post.id for post in told] == [*lane("a", each=6)[:3], *lane("a", each=6)[2:]]
    for post in told[:3]:
        claims(post, old_public)
    for post in told[3:]:
        claims(post, new_public)


def test_a_block_that_is_saved_anew_counts_and_one_that_was_deleted_is_told_nothing(desk):
    kept = desk.receiver()
    desk.add("a", to=("kept", "gone"))

    def deleted(_: str) -> ReportEndpoint:
        raise BlockMissing("ReportEndpoint", "gone", ["kept"])

    desk.send(deleted, "gone")
    desk.send(at(kept), "kept")
    desk.done()
    assert kept.ids == lane("a")
    assert desk.status("dead") == lane("a")
    assert {one.why for one in desk.ledger.find("WHERE status = 'dead'")} == {
        "the endpoint was deleted"
    }


@pytest.mark.parametrize(
    "trouble",
    [httpx.ConnectError("no API"), ConfigError("does not fit its type"), RuntimeError("a bug")],
    ids=repr,
)
def test_settings_that_cannot_be_read_are_read_again_later(trouble, desk):
    receiver = desk.receiver()
    left = [trouble]

    def load(_: str) -> ReportEndpoint:
        if left:
            raise left.pop()
        return at(receiver)("")

    desk.add("a")
    desk.send(load)
    desk.done()
    assert receiver.ids == lane("a")


def test_an_unforeseen_error_holds_the_message_and_does_not_end_the_sender(desk):
    receiver = desk.receiver()
    good = at(receiver)("")

    left = [ZeroDivisionError("never thought of")]

    class Odd:
        def send(self, message: Any, attempt: int) -> None:
            if left:
                raise left.pop()
            good.send(message, attempt)

    desk.add("a")
    odd = Odd()
    desk.send(lambda _: odd)
    desk.done()
    assert receiver.ids == lane("a")


def test_no_secret_of_an_endpoint_comes_into_the_ledger_a_warning_or_a_log(desk, caplog):
    caplog.set_level(logging.INFO)
    receiver = desk.receiver(first(500, None, 302, 400))
    url = receiver.url.replace("//", f"//me:{SECRET}@")
    desk.add("a")
    desk.send(at(receiver, url=url, headers={"X-Key": SECRET}))
    desk.done()
    assert len(desk.warned) == 4
    shown = f"{desk.warned} {desk.ledger.find()} {caplog.text}"
    assert [word for word in (SECRET, "127.0.0.1") if word in shown] == []


# Large results, and the end -------------------------------------------------------------------


def test_a_result_of_20_mb_is_named_unless_the_endpoint_takes_it_whole(desk, tmp_path):
    private, public = pair()
    (tmp_path / "key.pem").write_bytes(private)
    signed = {"unsigned": False, "signing_key": SigningKey(path=str(tmp_path / "key.pem"))}
    result = ["x" * 1000] * 20_000
    small, large = desk.receiver(), desk.receiver()
    desk.add("a", each=0, to=("small", "large"), results=result, location="/kept")
    desk.send(at(small, **signed), "small")
    desk.send(at(large, max_body=64 << 20, timeout=60, **signed), "large")
    desk.done()
    named = claims(small.posts[1], public)["results"]
    assert (named["location"], named["size"]) == ("/kept", len(json.dumps(result)))
    assert len(small.posts[1].body) < 2000
    assert claims(large.posts[1], public)["results"] == result


def test_a_sender_told_to_end_finishes_the_post_that_is_under_way(desk):
    came, go = threading.Event(), threading.Event()

    def answer(_: Post) -> Answer:
        came.set()
        return go.wait(60) and 204

    desk.add("a")
    sender = desk.send(at(desk.receiver(answer), timeout=100))
    assert came.wait(30)
    sender.end()
    go.set()
    sender.join()
    assert (desk.status("told"), len(desk.status("waiting"))) == (["a-0/status"], 3)
