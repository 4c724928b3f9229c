"""What no hook sees is told all the same: from the server's events, once, with the hooks' ids."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.events.schemas.events import ReceivedEvent
from prefect.states import Cancelled, Crashed, Late, Paused, Running, Scheduled

from blocks._changes import task_history
from blocks.errors import ConfigError
from flows import flow_hooks, guard, job_task
from flows._reports import events, pulse
from flows._reports.outbox import folder
from flows._reports.relay import Relay, alone
from flows._run import engine
from flows._run.stop import end_run

TASK, RUN = str(uuid4()), str(uuid4())


def event(
    name: str, kind: str, count: int = 1, of: str = "task-run", key: str = "fetch-1a2b"
) -> ReceivedEvent:
    """An event as the server has it."""
    now = datetime.now(UTC)
    above = [
        {"prefect.resource.id": f"prefect.flow-run.{RUN}", "prefect.resource.role": "flow-run"}
    ]
    return ReceivedEvent(
        id=uuid4(),
        occurred=now,
        received=now,
        event=f"prefect.{of}.{name}",
        resource={
            "prefect.resource.id": f"prefect.{of}.{TASK if of == 'task-run' else RUN}",
            "prefect.resource.name": "fetch",
            "prefect.run-count": str(count),
            "prefect.state-name": name,
            "prefect.state-type": kind,
            "prefect.state-message": "",
            "prefect.state-timestamp": now.isoformat(),
        },
        related=above if of == "task-run" else [],
        payload={"task_run": {"task_key": key}} if of == "task-run" else {},
    )


@task(retries=1, retry_delay_seconds=1)
def second_time_lucky():
    context = FlowRunContext.get()
    assert context
    if lucky.count(context.flow_run.id) < 1:
        lucky.append(context.flow_run.id)
        raise ValueError("not yet")


@task
def broken():
    raise ValueError("broken")


@task
def after(given):
    return given


lucky: list[UUID] = []


@flow
def plain():
    """A flow of others: it has none of our hooks."""
    second_time_lucky()
    after.submit(broken.submit()).wait()


# Events as changes


def test_an_attempt_has_one_id_whoever_tells_of_it():
    first = events.change_of(event("AwaitingRetry", "SCHEDULED", 1))
    again = events.change_of(event("Retrying", "RUNNING", 2))
    assert first.base == again.base == f"{TASK}.1"
    assert events.change_of(event("AwaitingRetry", "SCHEDULED", 2)).base == f"{TASK}.2"


def test_what_a_hook_has_told_calls_for_nothing_wherever_the_task_ran():
    @job_task
    def fetch(): ...

    for hooked in (fetch, fetch.with_options(name="other")):
        states = [("Running", "RUNNING"), ("Completed", "COMPLETED"), ("Cached", "COMPLETED")]
        states += [("Failed", "FAILED"), ("TimedOut", "FAILED")]
        assert not [s for s in states if events.change_of(event(*s, key=hooked.task_key))]
        assert all(events.change_of(event(*state)) for state in states)
        unseen = [("AwaitingRetry", "SCHEDULED"), ("NotReady", "PENDING"), ("Crashed", "CRASHED")]
        assert all(events.change_of(event(*s, key=hooked.task_key)) for s in unseen)


def test_the_events_of_a_task_and_its_history_agree():
    told = [event("AwaitingRetry", "SCHEDULED", 1), event("Retrying", "RUNNING", 2)]
    told += [event("AwaitingRetry", "SCHEDULED", 2), event("Running", "RUNNING", 3)]
    told += [event("Completed", "COMPLETED", 3), event("Crashed", "CRASHED", 3)]
    states = [State(id=e.id, type=e.resource["prefect.state-type"], name=e.event.split(".")[2])
              for e in told]  # fmt: skip

    class TaskRun:
        id, flow_run_id, name = TASK, RUN, "fetch"

    assert [events.change_of(e).base for e in told] == [
        change.base for change in task_history(TaskRun, states)
    ]


@pytest.mark.parametrize("name", ["Paused", "Suspended", "AwaitingRetry", "Scheduled"])
def test_a_run_that_has_not_ended_calls_for_nothing(name):
    kind = "PAUSED" if name in ("Paused", "Suspended") else "SCHEDULED"
    assert events.change_of(event(name, kind, of="flow-run")) is None


def test_a_task_outside_any_flow_calls_for_nothing():
    lonely = event("AwaitingRetry", "SCHEDULED").model_copy(update={"related": []})
    assert events.change_of(lonely) is None


def test_an_event_has_the_id_of_its_state(api, eventually):
    run = api.create_flow_run(plain, state=Running())
    state = api.set_flow_run_state(run.id, Crashed()).state
    start = datetime.now(UTC) - timedelta(minutes=1)
    found = eventually(lambda: [e for e in events.since(start, events.STATES) if e.id == state.id])
    change = events.change_of(found[0])
    assert (change.run, change.state, change.name) == (str(run.id), str(state.id), "Crashed")


def test_more_events_than_a_page_holds_come_in_order_and_once(api, eventually, monkeypatch):
    monkeypatch.setattr(events, "PAGE", 3)
    start = datetime.now(UTC)
    ids = []
    for _ in range(8):
        run = api.create_flow_run(plain, state=Running())
        ids.append(api.set_flow_run_state(run.id, Crashed()).state.id)

    def read():
        return [e.id for e in events.since(start, events.STATES) if e.id in ids]

    eventually(lambda: len(read()) == 8)
    assert read() == ids


# The relay of the installation


@pytest.mark.alone(reason="says how late the relay is when it has little else to do")
def test_every_state_of_the_tasks_of_a_plain_flow_is_told_within_ten_seconds(
    installation, api, eventually
):
    state = plain(return_state=True)
    run_id = state.state_details.flow_run_id

    def heard():
        return [h for h in installation.heard(str(run_id)) if h.route == "status"]

    eventually(lambda: len(heard()) >= 6, seconds=60)
    told: dict[str, list[str]] = {}
    for name, word in installation.words(run_id):
        told.setdefault(name.rpartition("-")[0], []).append(word)
    assert told == {
        "second_time_lucky": ["running", "up_for_retry", "success"],
        "broken": ["running", "failed"],
        "after": ["upstream_failed"],
    }
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    tasks = eventually(lambda: (t := api.read_task_runs(flow_run_filter=of_run))[2:] and t)
    made = {
        f"{one.id}/status": one.timestamp
        for task_run in tasks
        for one in api.read_task_run_states(task_run.id)
    }
    late = [datetime.fromisoformat(h.at) - made[h.id] for h in heard() if h.id in made]
    bound = 10 if os.getloadavg()[0] < 2 * (os.cpu_count() or 1) else 30
    assert len(late) >= 5
    assert max(late) < timedelta(seconds=bound), late
    ends = [m for m in installation.told(run_id, "progress") if m["state"] != "running"]
    assert [end["state"] for end in ends] == ["success"]


@pytest.mark.full
def test_a_plain_task_beside_our_hooks_is_told_once_and_never_after_the_end_as_progress(
    installation, api, eventually
):
    hooked = job_task(lambda: 1, name="hooked")

    @task
    def unhooked():
        return 2

    @flow(**flow_hooks())
    @guard
    def mixed():
        return unhooked() + hooked()

    run_id = mixed(return_state=True).state_details.flow_run_id
    eventually(lambda: len(installation.words(run_id)) >= 4, seconds=30)
    words = installation.words(run_id)
    assert [word for name, word in words if name == "hooked"] == ["running", "success"]
    assert [word for name, word in words if name != "hooked"] == ["running", "success"]
    steps = installation.told(run_id, "progress")
    assert (steps[-1]["state"], steps[-1]["progress"]) == ("success", 100)
    percents = [step["progress"] for step in steps]
    assert percents == sorted(percents)


def test_what_is_known_of_a_storm_of_events_is_not_read_again(
    api, monkeypatch, tmp_path, eventually
):
    monkeypatch.setattr(events, "PAGE", 3)
    monkeypatch.setattr(Relay, "_tell", lambda *_: None)
    read_from: list[datetime] = []
    since = events.since

    def noted(moment, names):
        read_from.append(moment)
        return since(moment, names)

    monkeypatch.setattr(events, "since", noted)
    relay = Relay(tmp_path)
    now = datetime.now(UTC)
    (tmp_path / "relay.json").write_text(json.dumps({"since": now.isoformat()}))
    for _ in range(4):
        run = api.create_flow_run(plain, state=Running())
        api.set_flow_run_state(run.id, Crashed(), force=True)
    eventually(lambda: relay.look() + len(relay._seen) >= 4)
    eventually(lambda: relay.look() + 1 and read_from[-1] >= now)
    relay._seen.popitem()  # as if it had come in late
    relay.look()
    assert read_from[-1] < now
    assert len(relay._seen) >= 4


@pytest.mark.parametrize("state", [Crashed, Cancelled], ids=["Crashed", "Cancelled"])
def test_an_end_that_is_set_from_outside_is_told_once(installation, api, eventually, state):
    @flow(**flow_hooks())
    @guard
    def guarded(): ...

    run = api.create_flow_run(guarded, state=Running())
    api.set_flow_run_state(run.id, state(message="by hand"), force=True)
    (end,) = eventually(lambda: installation.told(run.id, "progress"))
    assert (end["state"], end["error"]) == ("failed", "by hand")


@pytest.mark.parametrize("state", [Crashed, Cancelled], ids=["Crashed", "Cancelled"])
def test_an_end_that_we_set_ourselves_is_told_at_once(api, monkeypatch, state):
    put = []
    monkeypatch.setattr("flows._reports.outbox.put", put.append)
    run = api.create_flow_run(plain, state=Running())
    end_run(api, run.id, state(message="its process is gone"))
    ended = api.read_flow_run(run.id)
    now = ended.state
    base = str(now.id) if state is Crashed else f"{run.id}.{ended.run_count}.cancelled"
    assert [(c.state, c.message, c.base) for c in put] == [(str(now.id), now.message, base)]


def test_a_run_that_ends_under_its_hooks_is_told_once(installation, api, eventually):
    @flow(**flow_hooks())
    @guard
    def guarded():
        return 1

    mark = api.create_flow_run(plain, state=Running())
    run_id = guarded(return_state=True).state_details.flow_run_id
    api.set_flow_run_state(mark.id, Crashed())
    eventually(lambda: installation.told(mark.id, "progress"))  # the relay has read past our end
    assert [h.route for h in installation.heard(str(run_id))] == ["progress", "results"]


@pytest.mark.full
def test_nothing_that_ends_in_a_child_run_ends_its_root(installation, api, eventually):
    @flow
    def child():
        raise ValueError("the child fails")

    @flow
    def above():
        child(return_state=True)
        return 1

    run_id = above(return_state=True).state_details.flow_run_id
    ends = eventually(lambda: installation.told(run_id, "progress"))
    assert [end["state"] for end in ends] == ["success"]


def test_a_quiet_run_is_told_to_nobody_and_asked_nothing_about(api, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("flows._reports.relay.audience", asked.append)
    monkeypatch.setattr("flows._reports.relay.put", lambda *changes: pytest.fail(str(changes)))
    end = event("Crashed", "CRASHED", of="flow-run")
    flow_of = {"prefect.resource.id": "prefect.flow.x", "prefect.resource.role": "flow"}
    tag = {"prefect.resource.id": "prefect.tag.penstock-quiet", "prefect.resource.role": "tag"}
    quiet = ReceivedEvent(**{**end.model_dump(), "related": [flow_of, tag]})
    Relay(tmp_path)._tell(quiet)
    assert asked == []


def test_a_look_that_fails_half_way_puts_nothing_twice(api, monkeypatch, tmp_path):
    put, broken_at = [], [2]

    def tell(relay, event):
        if len(put) == broken_at[0]:
            broken_at[0] = -1
            raise ConnectionError("the server went away")
        put.append(event.id)

    soon = datetime.now(UTC) + timedelta(seconds=5)
    three = [
        event("Crashed", "CRASHED", of="flow-run").model_copy(
            update={"occurred": soon, "received": soon}
        )
        for _ in range(3)
    ]
    monkeypatch.setattr(events, "since", lambda *_: iter(three))
    monkeypatch.setattr(Relay, "_tell", tell)
    relay = Relay(tmp_path)
    with pytest.raises(ConnectionError):
        relay.look()
    assert not (tmp_path / "relay.json").exists()
    assert relay.look() == 1
    assert put == [one.id for one in three]
    assert relay.look() == 0
    since = json.loads((tmp_path / "relay.json").read_text())["since"]
    assert since == soon.isoformat()


def test_what_cannot_be_told_holds_up_nothing(api, monkeypatch, tmp_path):
    asked = []

    def fails(run):
        asked.append(run)
        raise ValueError("no such thing")

    two = [event("Crashed", "CRASHED", of="flow-run") for _ in range(2)]
    monkeypatch.setattr(events, "since", lambda *_: iter(two))
    monkeypatch.setattr(Relay, "_may_be_heard", lambda *_: True)
    monkeypatch.setattr("flows._reports.relay.audience", fails)
    assert Relay(tmp_path).look() == 2
    assert len(asked) == 2


def test_an_event_from_the_future_does_not_move_the_cursor_there(api, monkeypatch, tmp_path):
    ahead = event("Late", "SCHEDULED", of="flow-run")
    ahead = ahead.model_copy(update={"occurred": ahead.received + timedelta(hours=1)})
    monkeypatch.setattr(events, "since", lambda *_: iter([ahead]))
    monkeypatch.setattr(Relay, "_tell", lambda *_: None)
    Relay(tmp_path).look()
    since = json.loads((tmp_path / "relay.json").read_text())["since"]
    assert datetime.fromisoformat(since) < datetime.now(UTC) + timedelta(minutes=1)


def test_there_is_one_relay_for_a_server(installation, api):
    with pytest.raises(ConfigError, match="relays already"), alone(folder()):
        pass
    done = subprocess.run(
        [sys.executable, "-m", "deployments", "relay"],
        env={**installation.environment, "PREFECT_API_URL": installation.api_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "relays already" in done.stderr


# Runs that vanished


class Clock:
    """The time of a Pulse, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pulse, "time", clock)
    return clock


@pytest.fixture
def called(monkeypatch):
    """The runs that were called Crashed; the real ones of other tests are left alone."""
    called: list[UUID] = []
    monkeypatch.setattr(pulse, "call_crashed", lambda run, why: called.append(run.id))
    return called


@pytest.fixture
def one_run(monkeypatch, api):
    """One running run, as the server has it; its heartbeats; what is known of its process."""
    run = api.read_flow_run(api.create_flow_run(plain, state=Running()).id)
    monkeypatch.setattr(pulse, "_running", lambda: [run])
    monkeypatch.setattr(pulse, "_heartbeats", lambda: beats(run, 1))
    monkeypatch.setattr(events, "newest_heartbeats", lambda *_: newest)
    newest: list[ReceivedEvent] = []

    def beats(run, number):
        return {run.id: newest[0].id} if newest else {}

    def beat(every: float = 30.0):
        at = datetime.now(UTC)
        newest[:] = [
            event("heartbeat", "").model_copy(
                update={"id": uuid4(), "occurred": at - timedelta(seconds=every * n)}
            )
            for n in range(4)
        ]

    yield run, beat
    api.set_flow_run_state(run.id, Cancelled(), force=True)


def pass_time(clock: Clock, watch: pulse.Pulse, seconds: float) -> None:
    end = clock.now + seconds
    while clock.now < end:
        clock.now += pulse.EVERY
        watch.look()


def test_a_run_that_misses_three_of_its_heartbeats_has_vanished(clock, called, one_run):
    run, beat = one_run
    watch = pulse.Pulse()
    beat()
    watch.look()
    pass_time(clock, watch, 80)
    assert called == []
    pass_time(clock, watch, 20)
    assert run.id in called


def test_a_run_that_beats_lives(clock, called, one_run):
    _, beat = one_run
    watch = pulse.Pulse()
    for _ in range(10):
        beat()
        pass_time(clock, watch, 30)
    assert called == []


def test_a_run_with_the_usual_slow_heartbeat_is_given_its_time(clock, called, one_run):
    _, beat = one_run
    watch = pulse.Pulse()
    beat(every=180)
    watch.look()
    pass_time(clock, watch, 500)
    assert called == []
    pass_time(clock, watch, 60)
    assert called


def test_a_run_that_never_beats_is_not_judged(clock, called, one_run):
    watch = pulse.Pulse()
    pass_time(clock, watch, 2000)
    assert called == []


def test_silence_while_the_server_was_away_means_nothing(clock, called, one_run):
    _, beat = one_run
    watch = pulse.Pulse()
    beat()
    pass_time(clock, watch, 60)
    watch.forget()
    clock.now += 600
    pass_time(clock, watch, 80)
    assert called == []


def test_silence_while_the_relay_stood_still_means_nothing(clock, called, one_run):
    _, beat = one_run
    watch = pulse.Pulse()
    beat()
    pass_time(clock, watch, 60)
    clock.now += 600
    pass_time(clock, watch, 80)
    assert called == []


def test_a_process_of_this_machine_that_lives_may_be_silent_for_ever(clock, called, one_run):
    run, beat = one_run
    engine.begin(str(run.id))
    watch = pulse.Pulse()
    beat()
    pass_time(clock, watch, 2000)
    assert called == []


def test_a_process_of_this_machine_that_is_gone_is_no_question(clock, called, one_run):
    run, _ = one_run
    program = f"from flows._run import engine; engine.begin('{run.id}')"
    subprocess.run([sys.executable, "-c", program], check=True)
    watch = pulse.Pulse()
    pass_time(clock, watch, 60)
    assert run.id in called


@pytest.mark.parametrize(
    "state", [Paused(), Scheduled(), Running(), Cancelled(), Late()], ids=lambda state: state.name
)
def test_only_the_very_state_in_which_it_fell_silent_is_replaced(api, state):
    run = api.read_flow_run(api.create_flow_run(plain, state=Running()).id)
    api.set_flow_run_state(run.id, state, force=True)
    pulse.call_crashed(run, "of a test")
    assert api.read_flow_run(run.id).state.type == state.type
    api.set_flow_run_state(run.id, Cancelled(), force=True)


@pytest.mark.full
def test_a_vanished_run_is_called_crashed_and_told(installation, api, eventually):
    run = api.read_flow_run(api.create_flow_run(plain, state=Running()).id)
    pulse.call_crashed(run, "of a test")
    assert api.read_flow_run(run.id).state.type == StateType.CRASHED
    (end,) = eventually(lambda: installation.told(run.id, "progress"))
    assert end["error"] == "the run vanished: of a test"
