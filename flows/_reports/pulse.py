"""Runs that vanished: their process is gone, and nobody could tell the server.

Running now, and silent ──► its process is gone from this machine ─────────────────┐
   (while we were able to hear)                                                    ├──► Crashed
        └──► of another machine: three of its own heartbeats are missing ──────────┘
Prefect's automation cannot do it safely: it takes no look at the state that it replaces, and after
an outage of the server every healthy run has been silent.
"""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import OrchestrationResult
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventNameFilter
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.states import Crashed

from flows._reports import events
from flows._reports.audience import root_of
from flows._run.api import api
from flows._run.engine import Engine, engine_of

EVERY = 10.0  # seconds between two looks
GONE = 45.0  # seconds of silence until it is asked whether the process lives here
SILENT = 90.0  # seconds of silence, at least, after which a run of another machine has vanished
UNKNOWN = 180.0  # seconds between two heartbeats as Prefect has it, where only one was heard
MISSED = 3  # heartbeats

log = get_logger("penstock")


class Pulse:
    """How long each running run has been silent, counted only while the server could be heard.

    The time is this process's own: no clock of another machine has a say in it.
    """

    def __init__(self) -> None:
        self._looked: float | None = None
        self._alive: dict[tuple[UUID, UUID], float] = {}  # (run, state) → when it was last heard
        self._last: dict[UUID, UUID] = {}  # run → its newest heartbeat that we know

    def forget(self) -> None:
        """Begin anew: for some time nothing could be heard."""
        self._looked = None
        self._alive.clear()

    @property
    def running(self) -> bool:
        """Whether any run was running at the last look."""
        return bool(self._alive)

    def look(self) -> bool:
        """If it is time, listen, and call Crashed what has vanished; whether it was time."""
        now = time.monotonic()
        if self._looked is not None and now - self._looked < EVERY:
            return False
        if self._looked is not None and now - self._looked > 3 * EVERY:
            self.forget()  # this process was held up
        self._looked = now
        running = _running()
        beats = _heartbeats() if running else {}
        before, self._alive = self._alive, {}
        for run in running:
            key = (run.id, run.state_id or run.id)
            heard = before.get(key, now)
            if self._last.get(run.id) != (last := beats.get(run.id, self._last.get(run.id))):
                heard = now
            if last:
                self._last[run.id] = last
            self._alive[key] = heard
            if now - heard >= GONE and (why := self._vanished(run, now - heard)):
                call_crashed(run, why)
        self._last = {run.id: self._last[run.id] for run in running if run.id in self._last}
        return True

    def _vanished(self, run: FlowRun, silent: float) -> str | None:
        """Why the run is known to have vanished; None when it lives, or nobody can know."""
        engine = engine_here(run)
        if engine is not None:
            return None if engine.alive else f"its process {engine.pid} on {engine.host} is gone"
        if silent < SILENT:
            return None
        beats = events.newest_heartbeats(run.id, 6)
        if not beats:
            return None  # it never sent any, so that their absence says nothing
        if beats[0].id != self._last.get(run.id):  # dated by a clock that is behind ours
            self._last[run.id] = beats[0].id
            self._alive[run.id, run.state_id or run.id] = time.monotonic()
            return None
        interval = _interval([beat.occurred for beat in beats])
        if silent < MISSED * interval:
            return None
        return f"no heartbeat came for {silent:.0f} s, and one was due every {interval:.0f} s"


def engine_here(run: FlowRun) -> Engine | None:
    """The process of this machine that runs it; None when that is, or may be, another machine's."""
    # A child run that was not sent to a worker is in the process of its root.
    runs = run.id if run.deployment_id else root_of(run.id)
    engine = engine_of(str(runs))
    if engine is None or not engine.here:
        return None
    states = api().read_flow_run_states(runs)
    running = [state.timestamp for state in states if state.is_running()]
    # Prefect calls it Running just before the engine writes that it began; a later one is not ours.
    began = datetime.fromisoformat(engine.began)
    return engine if running and max(running) <= began else None


def call_crashed(run: FlowRun, why: str) -> None:
    """Set the run Crashed, if it is still in the very state in which it fell silent.

    Without force: the server's rules have the last word. A run that lives after all may still end
    otherwise, and what is told of that is newer.
    """
    try:
        state = api().read_flow_run(run.id).state
        if state is None or not state.is_running() or state.id != run.state_id:
            return
        answer: OrchestrationResult[Any] = api().set_flow_run_state(
            run.id, Crashed(message=f"the run vanished: {why}")
        )
    except ObjectNotFound:
        return
    log.warning("run %s (%s): %s; %s", run.name, run.id, why, answer.status.value)


def _interval(beats: list[datetime]) -> float:
    """Seconds between two heartbeats, from the last ones, newest first."""
    gaps = [(newer - older).total_seconds() for newer, older in pairwise(beats)]
    return median(gaps) if gaps else UNKNOWN


def _heartbeats() -> dict[UUID, UUID]:
    """The newest heartbeat of each run that sent one lately."""
    start = datetime.now(UTC) - timedelta(seconds=4 * EVERY)
    found: dict[UUID, UUID] = {}
    for event in events.since(start, EventNameFilter(name=[events.HEARTBEAT])):
        if run := events.flow_run_of(event):
            found[run] = event.id
    return found


def _running() -> list[FlowRun]:
    found: list[FlowRun] = []
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    while page := api().read_flow_runs(
        flow_run_filter=FlowRunFilter(state=state),
        sort=FlowRunSort.ID_DESC,
        limit=200,
        offset=len(found),
    ):
        found += page
    return found
