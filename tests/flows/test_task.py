"""`job_task` and `guard` on a real server: keys, retries, crashes, progress, and what is told."""

import asyncio
import threading
from pathlib import Path

import pytest
from prefect import flow
from prefect.futures import wait

from blocks.errors import ConfigError
from flows import flow_hooks, guard, job_task
from flows._reports.ledger import Ledger
from flows._run.guard import current, known
from flows._run.keys import current_key

TREE = Path(__file__).parent.parent / "programs" / "tree.py"


def test_the_key_is_run_name_and_order_of_submission_the_same_at_every_try(api):
    seen: dict[str, list[str]] = {"slow": [], "quick": []}
    gate = threading.Event()

    @job_task(retries=1)
    def sort(what):
        seen[what].append(current_key())
        if what == "slow":
            gate.wait(10)
        if len(seen[what]) == 1:
            raise ValueError("the first try")
        gate.set()
        return what

    @flow(**flow_hooks())
    @guard
    def keyed():
        futures = [sort.submit("slow"), sort.submit("quick")]
        return current().id, [future.result() for future in futures]

    run_id, results = keyed()
    assert results == ["slow", "quick"]
    assert seen == {"slow": [f"{run_id}/sort/0"] * 2, "quick": [f"{run_id}/sort/1"] * 2}


def test_a_task_may_name_its_own_key_and_its_runs_are_named_alike(api, installation):
    @job_task(key=lambda city, **_: city)
    def fetch(city, *, units="C"):
        return current_key()

    @flow(**flow_hooks())
    @guard
    def named():
        return current().id, fetch("oslo", units="F"), fetch("rome")

    run_id, oslo, rome = named()
    assert (oslo, rome) == (f"{run_id}/fetch/oslo", f"{run_id}/fetch/rome")
    assert {task for task, _ in installation.words(run_id)} == {"fetch-oslo", "fetch-rome"}


def test_a_finished_task_of_a_retried_flow_is_not_run_again(api):
    ran: list[str] = []

    @job_task
    def step(name):
        ran.append(name)
        return name

    @flow(retries=1, **flow_hooks())
    @guard
    def twice():
        first = step("first")
        if ran.count("broken") == 0:
            ran.append("broken")
            raise RuntimeError("between the steps")
        return first, step("second")

    assert twice() == ("first", "second")
    assert ran == ["first", "broken", "second"]


def test_every_state_of_a_task_is_told_once(api, installation):
    @job_task(retries=1)
    def flaky():
        if current_key() not in tried:
            tried.add(current_key())
            raise ValueError("no")

    @job_task
    def after(_):
        return "never"

    @job_task
    def broken():
        raise ValueError("never works")

    tried: set[str] = set()

    @flow(**flow_hooks())
    @guard
    def states():
        flaky()
        failed = broken.submit()
        after.submit(failed).wait()

    state = states(return_state=True)
    run_id = state.state_details.flow_run_id
    assert installation.words(run_id) == [
        ("flaky", "running"),
        ("flaky", "up_for_retry"),
        ("flaky", "success"),
        ("broken", "running"),
        ("broken", "failed"),
        ("after", "upstream_failed"),
    ]


def test_a_retry_with_a_delay_is_told_when_the_attempt_fails(api, installation):
    moments: list[list[str]] = []

    @job_task(retries=1, retry_delay_seconds=1)
    def later():
        moments.append([word for _, word in installation.words(current().id)])
        if len(moments) == 1:
            raise ValueError("no")

    @flow(**flow_hooks())
    @guard
    def patient():
        later()
        return current().id

    run_id = patient()
    assert moments == [["running"], ["running", "up_for_retry"]]
    assert [word for _, word in installation.words(run_id)] == [
        "running",
        "up_for_retry",
        "success",
    ]


def test_options_changed_later_keep_hooks_key_and_retry_condition(api, installation):
    extra: list[str] = []

    @job_task(key=lambda: "mine")
    def work():
        if not extra:
            extra.append("tried")
            raise ValueError("no")
        return current_key()

    changed = work.with_options(
        name="renamed",
        retries=1,
        retry_condition_fn=lambda task, run, state: True,
        on_completion=[lambda task, run, state: extra.append("theirs")],
    )

    @flow(**flow_hooks())
    @guard
    def changed_options():
        return current().id, changed()

    run_id, key = changed_options()
    assert key == f"{run_id}/renamed/mine"
    assert extra == ["tried", "theirs"]
    assert [w for _, w in installation.words(run_id)] == ["running", "up_for_retry", "success"]


def test_progress_counts_parts_and_children_and_never_falls(api, installation):
    @job_task
    def part():
        return None

    @flow(**flow_hooks())
    @guard(parts=2)
    def child():
        part()
        part()

    @flow(**flow_hooks())
    @guard(parts=3)
    def parent():
        part()
        child()
        part()
        return {"run": current().id}

    run_id = parent()["run"]
    assert [p["progress"] for p in installation.told(run_id, "progress")] == [33, 99, 100]
    assert known(run_id).progress.percent == 99
    assert [p["results"] for p in installation.told(run_id, "results")] == [{"run": run_id}]
    # A child's tasks are told under their root; its own end is not.
    assert len(installation.told(run_id)) == 8
    assert {p["dag_id"] for p in installation.told(run_id)} == {"parent"}


def test_progress_does_not_fall_when_a_flow_is_tried_again(api):
    seen = []

    @job_task
    def part():
        return None

    @flow(retries=1, **flow_hooks())
    @guard(parts=2)
    def twice():
        seen.append(current().progress.percent)
        part()
        seen.append(current().progress.percent)
        if len(seen) == 2:
            raise ValueError("once")

    twice()
    assert seen == [0, 50, 50, 50]


def test_names_on_the_wire_are_the_callers_when_he_gave_some(api, installation):
    from prefect.context import FlowRunContext

    @job_task
    def work():
        return None

    @flow(**flow_hooks())
    @guard
    def labelled():
        run = FlowRunContext.get().flow_run
        api.update_flow_run_labels(
            run.id, {"penstock.dag_id": "their-dag", "penstock.run_id": "their-run"}
        )
        work()

    labelled()
    heard = [h.payload for h in installation.heard("their-run")]
    assert [p["dag_id"] for p in heard] == ["their-dag"] * len(heard)
    assert len(heard) == 5


def test_map_is_refused_because_its_runs_would_have_no_key(api):
    @job_task
    def work(n):
        return n

    @flow(**flow_hooks())
    @guard
    def mapped():
        work.map([1, 2])

    with pytest.raises(ConfigError, match="call submit"):
        mapped()


def test_outside_a_guarded_flow_a_task_says_what_is_missing():
    @job_task
    def work():
        return None

    with pytest.raises(ConfigError, match="put @guard between @flow"):
        work()


def test_an_async_task_is_awaited_keyed_judged_and_told_like_any_other(api, installation):
    seen: list[str] = []

    @job_task(retries=1)
    async def fetch(city):
        await asyncio.sleep(0)  # sleep: none, it lets the others run
        seen.append(f"{city} {current_key()}")
        if len(seen) == 1:
            raise ValueError("the first try")
        return city

    @flow(**flow_hooks())
    @guard(parts=3)
    async def fetching():
        one = await fetch("oslo")
        two, three = await asyncio.gather(fetch("rome"), fetch("bern"))
        return current().id, current().progress.percent, [one, two, three]

    run_id, percent, results = asyncio.run(fetching())
    assert (percent, results) == (99, ["oslo", "rome", "bern"])
    wanted = ["oslo", "oslo", "rome", "bern"]
    assert sorted(seen) == sorted(
        f"{city} {run_id}/fetch/{n}" for city, n in zip(wanted, (0, 0, 1, 2), strict=True)
    )
    assert [word for task, word in installation.words(run_id) if task == "fetch"] == [
        "running",
        "up_for_retry",
        "success",
    ]


def test_a_generator_is_refused_since_nobody_could_judge_its_end():
    def counts():
        yield 1

    async def streams():
        yield 1

    for function in (counts, streams):
        with pytest.raises(ConfigError, match=f"{function.__name__} is a generator"):
            job_task(function)


def test_of_two_reports_of_a_process_the_later_one_has_the_higher_seq(api, installation):
    @job_task
    def part():
        return None

    @flow(**flow_hooks())
    @guard(parts=4)
    def four():
        wait([part.submit() for _ in range(4)])
        return current().id

    run_id = four()
    [place] = (installation.home / "reports").glob("*/ledger.db")
    installation.drain()
    ledger = Ledger(place.parent)
    told = [ledger.message(one.message) for one in ledger.find("WHERE d.root = ?", [run_id])]
    progress = [(one.seq, one.progress) for one in told if one.route == "progress"]
    assert progress == sorted(progress)
    assert len({seq for seq, _ in progress}) == len(progress)
