"""Work that runs elsewhere: started once, found again, stopped for sure, and never by mistake."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Running

from blocks.errors import JobFailed, JobTimedOut, JobVanished
from flows import flow_hooks, guard, job_task
from flows._reports.hooks import stop_run
from flows._reports.sheet import ABOUT
from flows._run.noted import Remote, notes_of
from flows._run.remote import PLACES, stop_left
from flows._run.run_remote import run_remote
from flows._run.sweep import sweep_elsewhere
from flows.sweep import sweep
from tests.elsewhere import CLIENT, PLACE, Elsewhere, System, sleeper, sleeps

PROGRAM = Path(__file__).parent.parent / "programs" / "elsewhere_run.py"
LONG = 600.0


@pytest.fixture
def system(api, monkeypatch):
    monkeypatch.setitem(PLACES, PLACE, CLIENT)
    system = System()
    yield system
    system.close()


@flow(**flow_hooks())
@guard(parts=1)
def elsewhere(url, seconds, code=0):
    return sleeps(url, seconds, code)


def rows(api, run_id):
    """What the server has noted about a run, as another process reads it."""
    from flows._run.noted import artifact_of, rows_of

    return rows_of(artifact_of(str(run_id)))


@pytest.fixture
def begun(api, system, installation, eventually):
    """Runs `elsewhere` in a process of its own; gives that process and the run's id."""
    processes = []

    def begin(*how, run_id=None, seconds=LONG):
        run_id = run_id or api.create_flow_run(elsewhere, parameters={}).id
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(run_id), system.url, str(seconds), *how],
            env={
                **installation.environment,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "PREFECT_API_URL": installation.api_url,
                "PREFECT_HOME": os.environ["PREFECT_HOME"],
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        eventually(lambda: system.alive or process.poll() is not None, seconds=60)
        assert system.alive, process.stdout.read()
        return process, run_id

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_work_is_noted_before_it_is_submitted_and_with_its_end(api, system):
    state = elsewhere(system.url, 0.5, return_state=True)
    (row,) = rows(api, state.state_details.flow_run_id)
    assert row.id == state.result()
    assert [row.tag] == system.tags
    assert row.outcome["state"] == "succeeded"
    assert row.gone_at
    assert row.judged == "done"
    assert row.link == f"{system.url}/{row.id}"


def test_the_run_sheet_links_to_what_was_started_elsewhere(api, system, eventually):
    state = elsewhere(system.url, 0.5, return_state=True)
    run_id = state.state_details.flow_run_id
    (row,) = rows(api, run_id)
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))

    def sheets():
        found = api.read_artifacts(artifact_filter=mine)
        return [one.data for one in found if one.description == ABOUT]

    (sheet,) = eventually(sheets, seconds=60)
    link = f"| `{row.program}` | {PLACE}: [{row.id}](<{row.link}>) | well | "
    assert link in sheet


def test_nothing_is_submitted_that_could_not_be_noted(system):
    notes = notes_of("11111111-1111-1111-1111-111111111111")
    notes._artifact = notes._root  # the server knows no such artifact
    row = Remote(PLACE, notes._root, f"{notes._root}/x/0", 1, "tag", "sleeper", "now")
    with pytest.raises(JobFailed, match="sleeper was not started: it could not be noted"):
        notes.intend(row)
    assert notes.latest(row.key) is None


def test_what_failed_is_submitted_anew_at_the_next_try_and_only_then(api, system):
    @job_task(retries=1)
    def twice():
        return run_remote(sleeper(system.url, 0.1, 3)).id

    @flow(**flow_hooks())
    @guard
    def tries():
        twice()

    with pytest.raises(JobFailed, match=r"sleeper ended as FAILED with 3 \(work-"):
        tries()
    assert len(set(system.tags)) == 2


def test_bad_answers_are_no_verdict(system):
    @job_task
    def watched():
        def on_look(look):
            if look and not asked:
                asked.append(look)
                system.mute = 5

        return run_remote(sleeper(system.url, 1, on_look=on_look)).id

    asked = []

    @flow(**flow_hooks())
    @guard
    def runs():
        return watched()

    assert runs() == next(iter(system.programs))
    assert system.mute == 0


def test_an_answer_lost_at_the_start_leaves_nothing_behind(system):
    system.swallow = True
    with pytest.raises(Exception, match="no answer from"):
        elsewhere(system.url, LONG)
    assert len(system.programs) == 1
    assert system.alive == []


def test_what_the_system_forgot_is_called_vanished(system):
    @job_task
    def forgets():
        run_remote(sleeper(system.url, LONG, on_look=lambda look: lose()))

    def lose():
        for _, program in system.programs.values():
            program.kill()
            program.wait()
        system.programs.clear()

    @flow(**flow_hooks())
    @guard
    def runs():
        forgets()

    with pytest.raises(JobVanished, match="is unknown to"):
        runs()


def test_at_its_time_limit_it_is_stopped_over_there(system):
    @job_task
    def limited():
        run_remote(sleeper(system.url, LONG, time_limit=0.5))

    @flow(**flow_hooks())
    @guard
    def runs():
        limited()

    with pytest.raises(JobTimedOut, match="at its time limit of 0 s"):
        runs()
    assert len(system.programs) == 1
    assert system.alive == []


def test_when_a_flow_fails_its_other_work_is_stopped(system, eventually):
    @flow(**flow_hooks())
    @guard
    def fails():
        sleeps.submit(system.url, LONG)
        eventually(lambda: system.alive)
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError):
        fails()
    assert system.alive == []


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_signal_stops_work_only_if_the_run_was_cancelled(api, system, eventually, cancelled):
    from flows._run.guard import current

    @flow(**flow_hooks())
    @guard
    def dies():
        sleeps.submit(system.url, LONG)
        eventually(lambda: system.alive)
        if cancelled:
            api.set_flow_run_state(current().id, Cancelling(), force=True)
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        dies()
    assert bool(system.alive) is not cancelled


@pytest.mark.full
@pytest.mark.parametrize("when", [[], ["die"]], ids=["while it ran", "before its id was noted"])
def test_after_a_kill_the_next_try_adopts_what_runs(api, system, begun, eventually, when):
    process, run_id = begun(*when, seconds=8)
    if not when:
        eventually(lambda: [row for row in rows(api, run_id) if row.id])
        process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert len(system.alive) == 1
    api.set_flow_run_state(run_id, Crashed(), force=True)
    api.set_flow_run_state(run_id, Running(), force=True)
    again, _ = begun(run_id=run_id)
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0, out
    assert "was found again" in out
    assert list(system.programs) == [out.splitlines()[-1]]


def test_a_crash_leaves_it_and_a_cancellation_ends_it_from_a_fresh_process(
    api, system, begun, eventually
):
    process, run_id = begun()
    eventually(lambda: [row for row in rows(api, run_id) if row.id])
    process.kill()
    process.wait()
    run = api.read_flow_run(run_id)
    stop_run(elsewhere, run, Crashed())
    assert system.alive
    stop_run(elsewhere, run, Cancelling())
    assert not system.alive
    assert rows(api, run_id)[0].gone_at
    assert stop_left(str(run_id)) == []


def test_a_sweep_ends_what_nobody_will_take_on(api, system):
    def left(state):
        run = api.create_flow_run(elsewhere)
        api.set_flow_run_state(run.id, state(), force=True)
        row = Remote(
            PLACE, str(run.id), f"{run.id}/sleeps/0", 1, f"tag-{run.id}", "sleeper", "",
            {"url": system.url}, adopt_within=3600,
        )  # fmt: skip
        work = sleeper(system.url, LONG).submit(row)
        notes_of(str(run.id)).intend(row)
        return work

    def swept(minutes, *, dry_run):
        later = datetime.now(UTC) + timedelta(minutes=minutes)
        found = list(sweep_elsewhere(dry_run=dry_run, at=later))
        mine = [one for one in found if one.work.where == {"url": system.url}]
        assert not any(one.trouble for one in mine)
        return {Elsewhere(system.url).find(one.work.tag) for one in mine}

    running, crashed = left(Running), left(Crashed)
    over = {left(state) for state in (Completed, Failed, Cancelled)}
    assert swept(0, dry_run=False) == set()
    assert swept(2, dry_run=True) == over
    assert set(system.alive) == {running, crashed, *over}
    assert swept(2, dry_run=False) == over
    assert set(system.alive) == {running, crashed}
    assert swept(61, dry_run=False) == {crashed}
    assert running not in [one["id"] for one in sweep()["left"]]
    assert system.alive == [running]
