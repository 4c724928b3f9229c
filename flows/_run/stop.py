"""Stop what a run started, from its records alone, and bring runs to their end."""

import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from flows._run import record as records
from flows._run.engine import end, engine_of
from flows._run.job import Record
from flows._run.process import PROCESS
from flows._run.remote import stop_left

POLL = 0.5  # seconds between two looks at runs that end: the server sends us no event


def open_records(run: str) -> list[Record]:
    """What the records of a run, on this machine, do not call gone."""
    mine = socket.gethostname()
    return [one for one in records.of_run(run) if one.gone_at is None and one.host == mine]


def stop_leftovers(run: str) -> list[Record]:
    """Stop all of it, at once; returns when nothing is left, with what was stopped."""
    there = open_records(run)
    with ThreadPoolExecutor(max_workers=max(1, len(there))) as pool:
        return list(pool.map(PROCESS.stop, there))


def cancel_and_wait(
    client: SyncPrefectClient, flow_run_ids: Iterable[UUID], patience: float
) -> set[UUID]:
    """Cancel runs, as the UI does, and wait for their end; returns those open after `patience` s.

    A run whose process on this machine is gone is ended here, since nobody else would.
    """
    still_open = set(flow_run_ids)
    for run_id in still_open:
        with suppress(ObjectNotFound):
            client.set_flow_run_state(run_id, Cancelling())
    deadline = time.monotonic() + patience
    while True:
        still_open = {run_id for run_id in still_open if not _has_ended(client, run_id)}
        if not still_open or time.monotonic() > deadline:
            return still_open
        time.sleep(POLL)  # the server sends us no event


def _has_ended(client: SyncPrefectClient, run_id: UUID) -> bool:
    try:
        state = client.read_flow_run(run_id).state
    except ObjectNotFound:
        return True
    if state is None or state.is_final():
        return True
    engine = engine_of(str(run_id))
    if engine is None or not engine.here or engine.alive:
        return False
    stop_leftovers(str(run_id))
    stop_left(str(run_id))
    end(engine)
    end_run(client, run_id, Cancelled(message="its process was gone"))
    return True


def end_run(client: SyncPrefectClient, run_id: UUID, state: State[object]) -> None:
    """Set a run's last state, and tell it: no hook is called for a state that is set from here."""
    from flows._reports.history import end_of
    from flows._reports.outbox import put

    client.set_flow_run_state(run_id, state, force=True)
    put(end_of(client.read_flow_run(run_id)))
