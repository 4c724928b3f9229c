"""A failed end waits for its reason, progress never goes back, and of two ends the later wins."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, tags
from prefect.states import Completed, Crashed, Failed, Running

from blocks import ReportEndpoint
from blocks._changes import Change, change
from blocks._messages import Names, messages
from flows import flow_hooks, guard, job_task
from flows._reports.build import build
from flows._reports.history import end_of
from flows._reports.ledger import ROWS_LATE, Ledger
from flows._reports.order import Ends, Progress
from flows._reports.outbox import put
from flows._reports.rows import Made
from flows._run.guard import current
from tests.receiver import Receiver


class Ear:
    """A receiver of v1 that hears the runs with its tag."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.name = f"order-{uuid4().hex[:8]}"
        ReportEndpoint(
            url=self.receiver.url, format="v1", unsigned=True, match_tags=[self.name]
        ).save(self.name)

    def told(self, run: object, kind: str = "progress") -> list[dict[str, Any]]:
        """The envelopes of one type of a run, once each, in the order of arrival."""
        every = [json.loads(post.body) for post in self.receiver.posts]
        once = {one["id"]: one for one in every if one["run"] == str(run) and one["type"] == kind}
        return list(once.values())

    def ends(self, run: object) -> list[dict[str, Any]]:
        return [one for one in self.told(run) if one["state"] != "running"]

    def wait_for_end(self, run: object, number: int = 1) -> dict[str, Any]:
        self.receiver.wait(lambda: len(self.ends(run)) >= number, seconds=90)
        return self.ends(run)[-1]


@pytest.fixture
def ear(api) -> Iterator[Ear]:
    mine = Ear()
    with tags(mine.name):
        yield mine
    mine.receiver.down()
    for one in api.read_block_documents():
        if one.name == mine.name:
            api.delete_block_document(one.id)


@job_task
def works() -> None: ...


@job_task
def broken() -> None:
    raise ValueError("never works")


@flow(**flow_hooks())
@guard
def fine() -> str:
    return current().id


@flow(**flow_hooks())
@guard
def fails_without_a_task() -> None:
    raise ValueError("no task did it")


def test_a_failed_run_names_its_task_and_shows_its_whole_log_though_the_courier_is_warm(ear, api):
    @flow(**flow_hooks())
    @guard
    def fails() -> None:
        works()
        ear.receiver.wait(lambda: len(ear.told(current().id, "status")) == 2, seconds=60)
        broken()

    run = fails(return_state=True).state_details.flow_run_id
    end = ear.wait_for_end(run)
    assert "never works" in end["error"]["message"]
    assert end["error"]["task"] == "broken"
    assert end["error"]["log"][-1].startswith("Finished in state Failed(")
    again = build(end_of(api.read_flow_run(run)), Names("fails", str(run), str(run)))
    assert (again[0].id, again[0].failure.task) == (end["id"], "broken")
    assert list(again[0].failure.log) == end["error"]["log"]


@pytest.mark.full
def test_an_end_that_waits_for_its_reason_delays_no_other_run(ear):
    ear.wait_for_end(fine())
    failed = fails_without_a_task(return_state=True).state_details.flow_run_id
    other = fine()
    end = ear.wait_for_end(failed)
    assert end["error"]["task"] is None
    assert end["error"]["log"][-1].startswith("Finished in state Failed(")
    order = [one["run"] for post in ear.receiver.posts if (one := json.loads(post.body))]
    assert order.index(other) < order.index(str(failed))


def test_what_came_before_an_end_goes_before_it_and_what_came_after_waits(api):
    root, now = str(uuid4()), datetime.now(UTC)

    def made(kind: str, seconds: float, **more: Any) -> Change:
        at = (now + timedelta(seconds=seconds)).isoformat()
        return Change(root, str(uuid4()), kind, kind.capitalize(), at, **more)

    ends = Ends()
    end = made("FAILED", 0)
    assert ends.patience == []
    assert ends.wait(1, end, root)
    assert ends.patience
    assert not ends.wait(2, made("COMPLETED", -1, task="a", task_run="t"), root)
    assert ends.wait(3, made("RUNNING", 1, task="a", task_run="t"), root)
    assert ends.wait(4, made("COMPLETED", 1), root)
    assert not ends.wait(5, made("FAILED", -2 * ROWS_LATE), str(uuid4()))
    assert not ends.wait(6, made("COMPLETED", 0), str(uuid4()))


def test_an_end_waits_no_longer_than_rows_are_late(api, eventually):
    root, ends = str(uuid4()), Ends()
    end = Change(root, str(uuid4()), "CRASHED", "Crashed", datetime.now(UTC).isoformat())
    assert ends.wait(1, end, root)
    eventually(lambda: not ends.wait(1, end, root), seconds=ROWS_LATE + 1)
    assert ends.patience == []


def test_progress_that_was_told_is_not_taken_back_by_who_knows_less(ear, api):
    run = api.create_flow_run(fine, state=Running(), tags=[ear.name]).id
    for percent in (50, 25):
        of_task = {"task": "works", "task_run": str(uuid4())}
        put(change(run, Completed(), progress=percent, **of_task))
    put(change(run, Crashed(message="killed"), progress=25))
    ear.wait_for_end(run)
    assert [one["progress"] for one in ear.told(run)] == [50, 50, 50]
    api.set_flow_run_state(run, Crashed(), force=True)


def test_the_next_courier_knows_what_was_told(tmp_path: Path):
    def tell(*changes: Change) -> list[tuple[str, int | None]]:
        ledger = Ledger(tmp_path)
        progress, told = Progress(ledger), []
        ledger.take_in(changes, {})
        for n, one in ledger.changes():
            built = progress.upheld("r", messages(one, Names("d", "r", "r")))
            ledger.resolve([Made(n, "r", built, [(m.id, "here") for m in built], one.ends_run)])
            told += [(m.state, m.progress) for m in built if m.route == "progress"]
        ledger.close()
        return told

    def task(percent: int, at: str = "2026-11-21T09:30:00+00:00") -> Change:
        state = str(uuid4())
        return Change("r", state, "COMPLETED", "Completed", at, "", "t", "x", 1, percent)

    def end(kind: str, at: str, percent: int) -> Change:
        return Change("r", str(uuid4()), kind, kind, at, progress=percent)

    assert tell(task(40), task(60)) == [("running", 40), ("running", 60)]
    assert tell(task(10)) == [("running", 60)]
    assert tell(end("FAILED", "2026-11-21T09:31:00+00:00", 7)) == [("failed", 60)]
    assert tell(task(70)) == []  # it came after the end, and was before it
    assert tell(task(20, "2026-11-21T09:32:00+00:00")) == [("running", 60)]
    assert tell(end("COMPLETED", "2026-11-21T09:33:00+00:00", 100)) == [("success", 100)]
    assert tell(task(99, "2026-11-21T09:32:30+00:00")) == []


@pytest.mark.full
@pytest.mark.parametrize("mistake", [Crashed, Failed], ids=["Crashed", "Failed"])
def test_a_run_that_was_called_ended_by_mistake_may_complete_and_that_end_has_the_higher_seq(
    ear, api, mistake
):
    @flow(**flow_hooks())
    @guard
    def lives_on() -> str:
        works()
        run = UUID(current().id)
        api.set_flow_run_state(run, mistake(message="by mistake"), force=True)
        ear.wait_for_end(run)
        return str(run)

    run = lives_on()
    ear.wait_for_end(run, number=2)
    assert api.read_flow_run(run).state.is_completed()
    wrong, right = ear.ends(run)
    assert (wrong["state"], right["state"]) == ("failed", "success")
    assert right["seq"] > wrong["seq"]
    assert (wrong["progress"] < 100, right["progress"]) == (True, 100)
    ear.receiver.wait(lambda: ear.told(run, "results"), seconds=90)
    (result,) = ear.told(run, "results")
    assert (result["result"], result["seq"]) == (run, right["seq"])
