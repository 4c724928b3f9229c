"""Whoever has not heard the end of a run hears it and what led to it, also of a lost machine."""

import fcntl
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, tags
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.events.schemas.events import ReceivedEvent
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Running, Scheduled

from blocks import ReportEndpoint
from blocks._changes import Change
from blocks._messages import Names
from blocks.errors import ConfigError
from flows import flow_hooks, guard
from flows._reports import again, events, hooks
from flows._reports.audience import QUIET
from flows._reports.history import LABEL, end_of, history, unheard
from flows._reports.relay import Relay
from flows.redeliver import redeliver
from tests.flows.test_reports import works

ENDPOINT = "report-endpoint/listener"
PROGRAM = Path(__file__).parent.parent / "programs" / "lonely.py"


@flow
def nothing(): ...


@pytest.fixture
def at_once(monkeypatch):
    """A run that has just ended is looked at, too."""
    monkeypatch.setattr(again, "SETTLED", timedelta(0))


@pytest.fixture
def lose(installation, api, tmp_path, eventually):
    """Runs on a machine of which nothing is left: its outbox was never read, and is gone."""
    home = tmp_path / "home"
    environment = {
        **installation.environment,
        "PENSTOCK_HOME": str(home),
        "PREFECT_HOME": os.environ["PREFECT_HOME"],
        "PREFECT_API_URL": installation.api_url,
    }
    which = "from flows._reports.outbox import folder; print(folder())"

    def python(*words):
        argv = [sys.executable, *words]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    def lost(*words, code, tasks):
        name = f"lost-{uuid4().hex[:8]}"
        place = Path(python("-c", which).stdout.strip())
        with (place / "courier.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # so nobody starts a courier: there seems to be one
            done = python(str(PROGRAM), name, *words)
        assert done.returncode == code, done.stderr
        assert list((place / "outbox").glob("*.jsonl"))
        shutil.rmtree(home)
        mine = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        (run,) = api.read_flow_runs(flow_run_filter=mine)

        def recorded() -> bool:
            rows = api.read_task_runs(flow_run_filter=mine)
            return len(rows) == tasks and all(row.state and row.state.is_final() for row in rows)

        eventually(recorded, seconds=60)  # the server writes the rows of tasks in batches
        return run

    return lost


def told_again(run_id: UUID, **parameters) -> list[dict[str, Any]]:
    found = redeliver(days=1, **parameters)
    return [one for one in found["told_again"] if one["run"] == str(run_id)]


@pytest.mark.alone(reason="the relay, which is quicker, stands still meanwhile")
def test_all_that_a_lost_machine_had_to_tell_arrives(
    deaf, lose, installation, api, eventually, at_once
):
    lost = lose(code=-9, tasks=2)
    api.set_flow_run_state(lost.id, Crashed(message="its machine is lost"))
    assert installation.heard(str(lost.id)) == []
    (told,) = told_again(lost.id)
    assert told["not_answered_by"] == [ENDPOINT]
    (end,) = eventually(lambda: installation.told(lost.id, "progress"))
    assert (end["state"], end["error"]) == ("failed", "its machine is lost")
    assert installation.words(lost.id) == [
        ("works", "running"),
        ("works", "success"),
        ("fails", "running"),
        ("fails", "up_for_retry"),
        ("fails", "failed"),
    ]
    eventually(lambda: LABEL + ENDPOINT in api.read_flow_run(lost.id).labels)
    assert told_again(lost.id) == []


@pytest.mark.full
@pytest.mark.alone(reason="the relay, which is quicker, stands still meanwhile")
def test_the_results_of_a_run_that_succeeded_on_a_lost_machine_are_rebuilt(
    deaf, lose, installation, api, eventually, at_once
):
    done = lose("completes", code=0, tasks=2)
    assert done.state.is_completed()
    assert installation.heard(str(done.id)) == []
    (told,) = told_again(done.id)
    assert told["not_answered_by"] == [ENDPOINT]
    (results,) = eventually(lambda: installation.told(done.id, "results"))
    assert results["results"] == {"rows": 1}
    end = installation.told(done.id, "progress")[-1]
    assert (end["state"], end["progress"], end["error"]) == ("success", 100, "")
    assert installation.words(done.id) == [
        (name, word) for name in ("works", "works-1") for word in ("running", "success")
    ]
    eventually(lambda: LABEL + ENDPOINT in api.read_flow_run(done.id).labels)
    assert told_again(done.id) == []


def test_the_history_of_a_run_has_the_ids_of_its_hooks(installation, api, eventually):
    @flow
    def plain(): ...

    run_id = plain(return_state=True).state_details.flow_run_id
    (heard,) = eventually(
        lambda: [h for h in installation.heard(str(run_id)) if h.route == "progress"]
    )
    assert [change.base for change in history(api.read_flow_run(run_id))] == [
        heard.id.removesuffix("/progress")
    ]


def test_each_cancellation_of_a_retried_run_has_one_id_whoever_tells_of_it(
    api, eventually, monkeypatch
):
    @flow(**flow_hooks())
    def cancelled(): ...

    put: list[Change] = []
    monkeypatch.setattr(hooks, "put", lambda *made: put.extend(made))
    began = datetime.now(UTC) - timedelta(minutes=1)
    run = api.create_flow_run(cancelled)
    for states in ([Cancelled], [Running, Cancelled], [Running, Cancelling, Cancelled]):
        for state in states:
            api.set_flow_run_state(run.id, state(), force=True)
            if state is not Running:
                hooks.report_run(cancelled, (run := api.read_flow_run(run.id)), run.state)
        api.set_flow_run_state(run.id, Scheduled(), force=True)
    three = [f"{run.id}.{count}.cancelled" for count in range(3)]
    assert [change.base for change in put] == [*three, three[-1]]
    assert [change.base for change in history(api.read_flow_run(run.id))] == three

    def seen() -> list[str]:
        found = [events.change_of(one) for one in events.since(began, events.STATES)]
        return [change.base for change in found if change and change.run == str(run.id)]

    assert eventually(lambda: seen() if len(seen()) == 3 else []) == three


def test_who_has_answered_the_very_end_is_not_told_again(installation, api):
    run = api.create_flow_run(nothing, state=Running())
    api.set_flow_run_state(run.id, Completed(), force=True)
    run = api.read_flow_run(run.id)
    end, names = end_of(run), Names("nothing", str(run.id), str(run.id))
    hearers = {"a": ReportEndpoint.load("listener"), "b": ReportEndpoint.load("listener")}

    def waiting(**labels):
        labels = {LABEL + key: value for key, value in labels.items()}
        return unheard(run.model_copy(update={"labels": labels}), end, names, hearers)

    assert waiting() == ["a", "b"]
    assert waiting(a=f"told {end.base}/results", b=f"told {uuid4()}/results") == ["b"]
    assert waiting(a=f"told {end.base}/results", b=f"dead {end.base}/progress") == []


@pytest.mark.alone(reason="the relay, which is quicker, stands still meanwhile")
def test_a_dry_run_only_says_who_would_be_told(deaf, api, at_once, monkeypatch):
    run = api.create_flow_run(nothing, state=Running())
    api.set_flow_run_state(run.id, Completed(), force=True)
    monkeypatch.setattr(again, "put", lambda *changes: pytest.fail("something was put"))
    (shown,) = told_again(run.id, dry_run=True)
    assert shown["not_answered_by"] == [ENDPOINT]
    assert "changes" not in shown


def test_a_quiet_run_and_one_that_has_just_ended_are_left(installation, api, monkeypatch):
    quiet = api.create_flow_run(nothing, state=Running(), tags=[QUIET])
    fresh = api.create_flow_run(nothing, state=Running())
    for run in (quiet, fresh):
        api.set_flow_run_state(run.id, Completed(), force=True)
    found = redeliver(days=1, dry_run=True)["told_again"]
    assert not {str(quiet.id), str(fresh.id)} & {one["run"] for one in found}
    monkeypatch.setattr(again, "SETTLED", timedelta(0))
    found = redeliver(days=1, dry_run=True)["told_again"]
    assert str(quiet.id) not in {one["run"] for one in found}


def test_what_waits_in_the_ledger_here_is_left_to_the_courier(installation, api, at_once):
    run = api.create_flow_run(nothing, state=Running())
    api.set_flow_run_state(run.id, Completed(), force=True)
    sweep = again.Sweep()
    sweep._ledger.has = lambda base, endpoint: True
    assert run.id not in {found.id for found, _ in sweep.missed(1)}


@pytest.mark.full
def test_an_endpoint_that_could_not_be_loaded_is_told_all_once_it_is_mended(
    ear, installation, api, eventually, at_once
):
    @flow(**flow_hooks())
    @guard
    def early():
        return works()

    ear.save()
    (document,) = [one for one in api.read_block_documents() if one.name == ear.name]
    broken = BlockDocumentUpdate(data={"url": "no address"}, merge_existing_data=True)
    api.update_block_document(document.id, broken)
    with tags(ear.name):
        run_id = early(return_state=True).state_details.flow_run_id
    eventually(lambda: LABEL + ENDPOINT in api.read_flow_run(run_id).labels)
    assert told_again(run_id) == []  # nobody can say whether it would hear the run
    ear.save()
    mine = f"report-endpoint/{ear.name}"
    (told,) = told_again(run_id)
    assert told["not_answered_by"] == [mine]
    eventually(lambda: told_again(run_id) == [] and ear.told("results"), seconds=60)
    assert ear.words() == [("works", "running"), ("works", "success")]
    assert len(installation.told(run_id, "results")) == 1
    ended = f"told {api.read_flow_run(run_id).state.id}/results"
    eventually(lambda: api.read_flow_run(run_id).labels.get(LABEL + mine) == ended)


def test_an_endpoint_that_is_newer_than_a_run_hears_nothing_of_it(ear, api, at_once):
    run = api.create_flow_run(nothing, state=Running(), tags=[ear.name])
    api.set_flow_run_state(run.id, Completed(), force=True)
    ear.save()
    mine = f"report-endpoint/{ear.name}"
    found = {one.id: keys for one, keys in again.Sweep().missed(1)}
    assert mine not in found.get(run.id, [])


def test_the_relay_leaves_to_the_hook_what_the_hook_has_written_down(api, monkeypatch, tmp_path):
    asked: list[Change] = []
    monkeypatch.setattr(Relay, "_may_be_heard", lambda *_: True)
    monkeypatch.setattr(Relay, "_called_for", lambda _, change: asked.append(change) or [])
    run = api.create_flow_run(nothing, state=Running())
    state = api.set_flow_run_state(run.id, Failed(message="with a secret"), force=True).state
    told = Change(str(run.id), str(state.id), "FAILED", "Failed", state.timestamp.isoformat())
    about = {
        "prefect.resource.id": f"prefect.flow-run.{run.id}",
        "prefect.state-type": "FAILED",
        "prefect.state-name": "Failed",
        "prefect.state-timestamp": told.at,
    }
    event = ReceivedEvent(
        id=state.id,
        occurred=state.timestamp,
        received=state.timestamp,
        event="failed",
        resource=about,
    )
    relay, outbox = Relay(tmp_path), tmp_path / "outbox"
    relay._tell(event)
    assert [change.state for change in asked] == [told.state]
    outbox.mkdir()
    (outbox / "1-x.jsonl").write_bytes(told.as_line())
    relay._tell(event)
    (outbox / "1-x.jsonl").unlink()
    relay._ledger.take_in([told], {})
    relay._tell(event)
    assert len(asked) == 1


def test_days_that_are_none_are_refused(api):
    with pytest.raises(ConfigError, match="days is 0"):
        redeliver(days=0)


@pytest.mark.full
def test_its_deployment_tells_nobody(installation, api, eventually):
    done = installation.run("redeliver", {"days": 1})
    assert done.code == 0, done.out + done.err
    run = api.read_flow_run(UUID(installation.last["flow_run_id"]))
    assert QUIET in run.tags
    assert run.state.is_completed()
    assert installation.heard(str(run.id)) == []
    assert datetime.now(UTC) - run.end_time < timedelta(minutes=5)
