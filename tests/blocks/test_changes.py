"""Changes of state as plain data: the same change gets the same ids, whoever saw it."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State, StateType

from blocks._changes import ERROR_LENGTH, Change, change, run_counts, task_history

RUN, TASK = UUID(int=7), UUID(int=8)
OF_TASK = {"task": "count", "task_run": str(TASK)}
AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


def state(kind: str, name: str | None = None, message: str | None = None) -> State[Any]:
    return State(type=StateType(kind), name=name, message=message, timestamp=AT)


def history(*states: State[Any]) -> list[Change]:
    task_run = SimpleNamespace(id=TASK, flow_run_id=RUN, name="count")
    return list(task_history(task_run, states))


def test_a_state_becomes_plain_data_that_is_one_line_of_json_and_back():
    failed = state("FAILED", message="no fuel\nat all ✈")
    made = change(RUN, failed, **OF_TASK, attempt=2, progress=40)
    assert made == Change(
        run=str(RUN),
        state=str(failed.id),
        type="FAILED",
        name="Failed",
        at="2026-11-21T09:30:00+00:00",
        message="no fuel\nat all ✈",
        task="count",
        task_run=str(TASK),
        attempt=2,
        progress=40,
    )
    assert made.as_line().count(b"\n") == 1
    assert Change(**json.loads(made.as_line())) == made


def test_text_that_is_no_unicode_does_not_keep_a_change_from_being_written():
    made = change(RUN, state("FAILED", message="no file named caf\udce9"))
    assert made.message == "no file named caf?"
    assert Change(**json.loads(made.as_line())) == made


def test_a_message_is_carried_of_a_failure_only_and_cut_to_a_length():
    assert change(RUN, state("COMPLETED", message="all fine")).message == ""
    assert change(RUN, state("RUNNING", message="on it")).message == ""
    assert change(RUN, state("FAILED", message="x" * 9999)).message == "x" * ERROR_LENGTH
    assert change(RUN, state("CRASHED")).message == "Crashed"
    assert change(RUN, state("CANCELLING")).message == "cancelled"


@pytest.mark.parametrize(
    ("kind", "name", "more", "base"),
    [
        ("COMPLETED", "Completed", {}, "the state"),
        ("COMPLETED", "Completed", OF_TASK, "the state"),
        ("RUNNING", "Running", OF_TASK, "the state"),
        ("SCHEDULED", "AwaitingRetry", {**OF_TASK, "attempt": 2}, f"{TASK}.2"),
        ("RUNNING", "Retrying", {**OF_TASK, "attempt": 3}, f"{TASK}.2"),
        ("CRASHED", "Crashed", OF_TASK, f"{TASK}.crashed"),
        ("CANCELLED", "Cancelled", OF_TASK, "the state"),
        ("CANCELLING", "Cancelling", {}, f"{RUN}.1.cancelled"),
        ("CANCELLED", "Cancelled", {}, f"{RUN}.1.cancelled"),
        ("CANCELLED", "Cancelled", {"attempt": 0}, f"{RUN}.0.cancelled"),
        ("CANCELLED", "Cancelled", {"attempt": 2}, f"{RUN}.2.cancelled"),
        ("CRASHED", "Crashed", {}, "the state"),
    ],
)
def test_ids_begin_with_the_state_or_with_what_is_known_before_it_is_made(kind, name, more, base):
    seen = state(kind, name)
    assert change(RUN, seen, **more).base == base.replace("the state", str(seen.id))


def test_a_retry_with_a_delay_has_one_id_whether_it_is_seen_before_or_after_the_delay():
    _, awaiting, retrying, _ = history(
        state("RUNNING"),
        state("SCHEDULED", "AwaitingRetry"),
        state("RUNNING", "Retrying"),
        state("COMPLETED"),
    )
    assert awaiting.base == retrying.base == f"{TASK}.1"
    assert awaiting.word == retrying.word == "up_for_retry"


def test_attempts_are_counted_from_the_order_of_a_tasks_states():
    made = history(
        state("PENDING"),
        state("RUNNING"),
        state("RUNNING", "Retrying"),  # at once
        state("SCHEDULED", "AwaitingRetry"),  # with a delay
        state("RUNNING", "Retrying"),
        state("FAILED"),
    )
    assert [one.attempt for one in made] == [1, 1, 2, 2, 3, 3]
    assert [one.base for one in made if one.word == "up_for_retry"] == [
        f"{TASK}.1",
        f"{TASK}.2",
        f"{TASK}.2",
    ]


@pytest.mark.parametrize(
    ("kinds", "counts"),
    [
        ("SCHEDULED CANCELLED", [0, 0]),
        ("PENDING RUNNING CANCELLING CANCELLED", [0, 1, 1, 1]),
        ("RUNNING CANCELLED SCHEDULED PENDING RUNNING CANCELLED", [1, 1, 1, 1, 2, 2]),
        ("RUNNING PAUSED SCHEDULED PENDING RUNNING COMPLETED", [1, 1, 1, 1, 1, 1]),
        ("RUNNING PAUSED SCHEDULED CANCELLED SCHEDULED RUNNING", [1, 1, 1, 1, 1, 2]),
    ],
)
def test_a_run_count_is_how_often_a_run_began_and_no_pause_counts(kinds, counts):
    assert run_counts([state(kind) for kind in kinds.split()]) == counts


@pytest.mark.parametrize(
    ("kind", "more", "ends"),
    [
        ("COMPLETED", {}, True),
        ("FAILED", {}, True),
        ("CANCELLING", {}, True),
        ("RUNNING", {}, False),
        ("SCHEDULED", {}, False),
        ("COMPLETED", OF_TASK, False),
    ],
)
def test_a_run_ends_with_its_own_last_state_and_never_with_a_tasks(kind, more, ends):
    assert change(RUN, state(kind), **more).ends_run is ends
