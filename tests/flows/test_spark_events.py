"""How far a Spark application has come, read from event logs made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows._spark.events import EventLog

Event = dict[str, Any]


def application(name: str = "local-1") -> Event:
    return {"Event": "SparkListenerApplicationStart", "App Name": "x", "App ID": name}


def job(number: int, stages: dict[int, int]) -> Event:
    infos = [{"Stage ID": s, "Number of Tasks": n, "Stage Name": "✈"} for s, n in stages.items()]
    return {"Event": "SparkListenerJobStart", "Job ID": number, "Stage Infos": infos}


def task(stage: int, reason: str = "Success") -> Event:
    ended = {"Reason": reason}
    return {"Event": "SparkListenerTaskEnd", "Stage ID": stage, "Task End Reason": ended}


def over(number: int) -> Event:
    return {"Event": "SparkListenerJobEnd", "Job ID": number, "Job Result": {}}


def other(name: str = "SparkListenerExecutorAdded") -> Event:
    return {"Event": name, "Timestamp": 1}


class Log:
    """An application's event log that is being written, and who follows it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "local-1.inprogress"
        self.follower = EventLog(folder)

    def write(self, *events: Event) -> None:
        self.append("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events).encode())

    def append(self, raw: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(raw)

    def share(self, *events: Event) -> float:
        """How far it is after `events`."""
        self.write(*events)
        self.follower.advance()
        return self.follower.share


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_before_there_is_a_log_nothing_is_known(log):
    assert log.follower.advance() is False
    assert log.follower.share == 0
    assert log.follower.application is None


def test_the_application_tells_its_id(log):
    log.share(other("SparkListenerLogStart"), application("local-42"))
    assert log.follower.application == "local-42"


def test_what_was_taken_in_once_is_not_taken_in_again(log):
    log.write(application(), job(0, {0: 2}), task(0))
    assert log.follower.advance() is True
    before = log.follower.share
    assert log.follower.advance() is False
    assert log.follower.share == before


def test_the_share_moves_with_every_task_that_ends_well(log):
    shares = [log.share(job(0, {0: 4}))] + [log.share(task(0)) for _ in range(4)]
    assert shares[0] == 0
    assert shares == sorted(set(shares))
    assert shares[2] == pytest.approx(0.5 / 4)


@pytest.mark.parametrize("reason", ["ExceptionFailure", "TaskKilled", "ExecutorLostFailure"])
def test_a_task_that_ended_badly_does_not_count_and_its_next_try_does(reason, log):
    log.share(job(0, {0: 4}))
    before = log.share(task(0))
    assert log.share(task(0, reason)) == before
    assert log.share(task(0)) > before


def test_the_share_stays_below_1_and_its_maximum_rises_with_every_job(log):
    best = [0.0]
    for number in range(50):
        log.share(job(number, {number: 2}))
        for event in (task(number), task(number), over(number)):
            assert log.share(event) < 1
        best.append(max(best[-1], log.follower.share))
    assert best == sorted(set(best))
    assert best[-1] > 0.9


def test_jobs_that_overlap_count_each_for_itself(log):
    log.share(job(0, {0: 2}), job(1, {1: 2}))
    assert log.share(task(1)) == pytest.approx(0.5 / 5)
    assert log.share(task(0), task(1)) == pytest.approx(1.5 / 5)
    assert log.share(over(1)) == pytest.approx(1.5 / 5)
    assert log.share(task(0), over(0)) == pytest.approx(2 / 5)


def test_a_stage_that_two_jobs_share_counts_for_both(log):
    log.share(job(0, {0: 2}), job(1, {0: 2, 1: 2}))
    assert log.share(task(0), task(0)) == pytest.approx((1 + 0.5) / 5)


def test_stages_that_were_skipped_are_done_when_their_job_ends(log):
    log.share(job(0, {0: 6, 1: 2}))
    assert log.share(task(1), task(1)) == pytest.approx(0.25 / 4)
    assert log.share(over(0)) == pytest.approx(1 / 4)


def test_a_job_that_fails_is_over_too(log):
    assert log.share(job(0, {0: 9}), task(0, "ExceptionFailure"), over(0)) == pytest.approx(1 / 4)


def test_more_ends_than_tasks_do_not_count_beyond_the_whole(log):
    log.share(job(0, {0: 1, 1: 1}))
    assert log.share(*[task(0)] * 5) == pytest.approx(0.5 / 4)


@pytest.mark.parametrize("stages", [{}, {0: 0}])
def test_a_job_without_tasks_is_done_at_once(stages, log):
    assert log.share(job(0, stages)) == pytest.approx(1 / 4)


def test_a_task_of_no_known_job_and_other_events_change_nothing(log):
    before = log.share(job(0, {0: 2}), task(0))
    assert log.share(task(7), other(), other("SparkListenerApplicationEnd")) == before


def test_a_half_written_last_line_waits_for_its_other_half(log):
    log.share(application())
    raw = json.dumps(job(0, {0: 2}), ensure_ascii=False).encode() + b"\n"
    cut = raw.index("✈".encode()) + 1  # in the middle of a character
    log.append(raw[:cut])
    assert log.follower.advance() is False
    log.append(raw[cut:])
    assert log.follower.advance() is True
    assert log.share(task(0)) == pytest.approx(0.5 / 4)


def test_a_log_that_comes_byte_by_byte_is_read_as_one_that_comes_at_once(log):
    events = [application(), job(0, {0: 2}), task(0), task(0), over(0), job(1, {1: 3}), task(1)]
    for byte in "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events).encode():
        log.append(bytes([byte]))
        log.follower.advance()
    assert log.follower.share == pytest.approx((1 + 1 / 3) / 5)


def test_the_log_is_followed_when_spark_renames_it_at_the_end(log):
    log.share(application(), job(0, {0: 2}), task(0))
    log.path = log.path.rename(log.path.with_suffix(""))
    assert log.share(task(0), over(0)) == pytest.approx(1 / 4)
    assert log.follower.application == "local-1"
