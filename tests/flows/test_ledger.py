"""The ledger: what waits, in which order, and what is remembered of it."""

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks._changes import Change
from blocks._messages import Message, Names, messages
from flows._reports.ledger import KEEP_DEAD, KEEP_TOLD, Ledger
from flows._reports.rows import Delivery, Made

AT = "2026-11-21T09:30:00+00:00"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    mine = Ledger(tmp_path)
    yield mine
    mine.close()


def names(root: str) -> Names:
    return Names("flights", root, root=root)


def task(root: str, n: int = 0) -> Change:
    return Change(root, f"{root}-{n}", "RUNNING", "Running", AT, task="count", task_run="t")


def end(root: str) -> Change:
    return Change(root, f"{root}-end", "COMPLETED", "Completed", AT)


def tell(ledger: Ledger, *changes: Change, to: tuple[str, ...] = ("here",)) -> None:
    """Take changes in and make of them what the courier does."""
    ledger.take_in(changes, {})
    made = []
    for n, change in ledger.changes():
        built = messages(change, names(change.run), results=[1])
        wanted = [(message.id, key) for message in built for key in to]
        made.append(Made(n, change.run, built, wanted, change.ends_run))
        ledger.know(names(change.run), list(to))
    ledger.resolve(made)


def waiting(ledger: Ledger, root: str, endpoint: str = "here") -> list[str]:
    return [one.message for one in ledger.waiting(endpoint, root)]


def test_changes_are_kept_with_how_far_was_read_both_or_none(ledger):
    ledger.take_in([task("a")], {"x.jsonl": 7})
    assert (ledger.offsets(), [c for _, c in ledger.changes()]) == ({"x.jsonl": 7}, [task("a")])
    with pytest.raises(TypeError):
        ledger.take_in([task("b"), None], {"x.jsonl": 99})
    assert (ledger.offsets(), len(ledger.changes())) == ({"x.jsonl": 7}, 1)


def test_a_run_that_waits_with_many_changes_hides_no_other_run(ledger):
    ledger.take_in([task("a", n) for n in range(600)] + [task("b")], {})
    assert {c.run for _, c in ledger.changes()} == {"a"}
    assert [c for _, c in ledger.changes(but_of={"a"})] == [task("b")]
    assert ledger.changes(but_of={"a", "b"}) == []


def test_messages_take_the_place_of_their_change_all_or_nothing(ledger):
    ledger.take_in([task("a")], {})
    [(n, change)] = ledger.changes()
    good = Made(n, "a", messages(change, names("a")), [("a-0/status", "here")], False)
    bad: Any = Made(n, "a", [None], [], False)
    with pytest.raises(AttributeError):
        ledger.resolve([good, bad])
    assert (len(ledger.changes()), waiting(ledger, "a")) == (1, [])
    ledger.resolve([good])
    assert (ledger.changes(), waiting(ledger, "a")) == ([], ["a-0/status"])


def test_a_lane_is_one_run_at_one_endpoint_in_the_order_of_its_changes(ledger):
    tell(ledger, task("a", 1), task("b", 1), task("a", 2), end("a"), to=("here", "there"))
    for endpoint in ("here", "there"):
        assert waiting(ledger, "a", endpoint) == [
            "a-1/status",
            "a-2/status",
            "a-end/progress",
            "a-end/results",
        ]
        assert waiting(ledger, "b", endpoint) == ["b-1/status"]
        assert [root for root, _ in ledger.lanes(endpoint)] == ["a", "b"]
    assert ledger.endpoints() == ["here", "there"]


def test_a_lane_is_due_when_its_head_is_whatever_follows(ledger):
    tell(ledger, task("a", 1), task("a", 2), task("b", 1))
    [head, _] = ledger.waiting("here", "a")
    ledger.postpone(head, 99.0, "no answer")
    assert ledger.lanes("here") == [("b", 0.0), ("a", 99.0)]
    assert waiting(ledger, "a") == ["a-1/status", "a-2/status"]
    [head, _] = ledger.waiting("here", "a")
    assert (head.attempts, head.why) == (1, "no answer")


def test_the_same_change_seen_twice_makes_its_messages_once(ledger):
    tell(ledger, task("a", 1))
    tell(ledger, task("a", 1), task("a", 2))
    assert waiting(ledger, "a") == ["a-1/status", "a-2/status"]
    for one in ledger.waiting("here", "a"):
        ledger.settle(one, "told")
    tell(ledger, task("a", 1))
    assert waiting(ledger, "a") == []


def test_a_message_comes_back_as_it_was_made_whatever_is_in_it(ledger):
    change = Change("a", "1", "FAILED", "Failed", AT, message="caf\udce9 ✈ '; DROP TABLE runs")
    tell(ledger, change)
    assert ledger.message("1/progress") == messages(change, names("a"))[0]


def test_the_last_answer_to_a_run_asks_for_a_label_and_for_its_sheet(ledger):
    tell(ledger, task("a"), end("a"))
    *before, last = ledger.waiting("here", "a")
    for one in before:
        ledger.settle(one, "told")
    assert ledger.labels() == []
    assert [one.last for one in before] == [False, False]
    ledger.settle(last, "told")
    assert ledger.labels() == [("a", "here", "told a-end/results")]
    assert [root for root, _ in ledger.sheets()] == ["a"]
    assert not ledger.idle
    ledger.labelled("a", "here", "told a-end/results")
    ledger.written("a")
    assert ledger.idle


def test_a_label_that_changed_while_it_was_written_is_written_again(ledger):
    tell(ledger, end("a"))
    *_, last = ledger.waiting("here", "a")
    ledger.settle(last, "dead", "gone")
    ledger.settle(last, "told")
    ledger.labelled("a", "here", "dead a-end/results")  # the answer to what was asked for before
    assert ledger.labels() == [("a", "here", "told a-end/results")]


def test_a_run_is_settled_when_its_end_came_and_all_that_hear_it_have_answered(ledger):
    assert not ledger.settled("a")
    tell(ledger, task("a"), end("a"))
    for one in ledger.waiting("here", "a"):
        assert not ledger.settled("a")
        ledger.settle(one, "told")
    assert ledger.settled("a")
    ledger.take_in([end("a")], {})
    assert not ledger.settled("a")


def test_who_hears_a_run_is_fixed_when_it_is_first_known(ledger):
    assert ledger.run("a") is None
    ledger.know(names("a"), ["here"])
    ledger.know(names("a"), ["here", "there"])
    assert ledger.run("a") == (names("a"), ["here"])
    ledger.know(names("b"), None)
    assert ledger.run("b") == (names("b"), None)


def test_who_is_in_doubt_may_hear_a_run_until_that_is_decided(ledger):
    ledger.know(names("a"), ["here"], ["there", "elsewhere"])
    ledger.know(names("a"), [], ["late"])
    assert sorted(ledger.doubtful("a")) == ["elsewhere", "there"]
    assert [ledger.may_hear("a", one) for one in ("here", "there", "late")] == [True, True, False]
    ledger.decide("a", "there", hears=True)
    ledger.decide("a", "elsewhere", hears=False)
    assert ledger.run("a") == (names("a"), ["here", "there"])
    assert ledger.doubtful("a") == []
    assert not ledger.may_hear("a", "elsewhere")
    assert ledger.may_hear("never came here", "elsewhere")


def test_a_message_that_one_endpoint_has_may_be_missing_at_another(ledger):
    tell(ledger, end("a"))
    assert ledger.has("a-end")
    assert ledger.has("a-end", "here")
    assert not ledger.has("a-end", "there")
    assert not ledger.has("a-en", "here")


def test_a_replay_sends_once_more_from_the_beginning_of_its_patience(ledger, tmp_path):
    tell(ledger, task("a", 1), task("a", 2))
    first, _ = ledger.waiting("here", "a")
    ledger.postpone(first, 99.0, "no answer")
    ledger.settle(first, "dead", "for too long")
    began = time.time()
    ledger.replay(ledger.find("WHERE status = 'dead'"))
    again, _ = ledger.waiting("here", "a")
    assert (again.message, again.attempts, again.due) == ("a-1/status", 0, 0.0)
    assert again.made >= began


def aged(ledger: Ledger, seconds: float) -> None:
    then = time.time() - seconds
    ledger._db.execute("UPDATE deliveries SET settled = ? WHERE settled IS NOT NULL", [then])
    ledger._db.execute("UPDATE messages SET made = ?", [then])


@pytest.mark.parametrize(
    ("status", "age", "kept"),
    [
        ("told", KEEP_TOLD - 60, True),
        ("told", KEEP_TOLD + 60, False),
        ("dead", KEEP_TOLD + 60, True),
        ("dead", KEEP_DEAD + 60, False),
        (None, KEEP_DEAD + 60, True),
    ],
)
def test_what_was_settled_long_ago_is_forgotten_and_what_waits_never(ledger, status, age, kept):
    tell(ledger, task("a"))
    [one] = ledger.waiting("here", "a")
    if status:
        ledger.settle(one, status)
    aged(ledger, age)
    ledger.tidy()
    assert bool(ledger.find()) is kept
    assert (ledger.run("a") is not None) is kept


def test_others_read_while_one_writes_and_nobody_else_may_look(ledger, tmp_path):
    other = Ledger(tmp_path)
    with ledger._transaction():
        ledger._db.execute("INSERT INTO changes (body) VALUES (?)", [json.dumps({})])
        assert other.changes() == []
        assert other.idle
    other.close()
    for path in tmp_path.glob("ledger.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_committed_outlives_the_connection(ledger, tmp_path):
    tell(ledger, end("a"))
    again = Ledger(tmp_path)
    assert [one.message for one in again.find()] == ["a-end/progress", "a-end/results"]
    assert isinstance(again.message("a-end/results"), Message)
    assert isinstance(again.find()[0], Delivery)
    again.close()
