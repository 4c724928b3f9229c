"""`penstock sweep`: end what runs left, here and elsewhere, and tell of runs that vanished.

runs/*/engine.json ──► process gone? ──► its records ──► programs stopped
                            └──► still Running on the server ──► Crashed
tables on the server ──► run over, work elsewhere not ──► stopped
"""

import argparse
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

    from flows._run.engine import Engine

EXAMPLES = ("sweep", "sweep --dry-run")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")


def main(options: argparse.Namespace) -> int:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from flows._run.engine import end
    from flows._run.stop import end_run, open_records, stop_leftovers
    from flows._run.sweep import sweep_elsewhere

    would = "would have " if options.dry_run else ""
    found = 0
    with get_client(sync_client=True) as client:
        for engine in vanished():
            left = open_records if options.dry_run else stop_leftovers
            for record in left(engine.run):
                print(f"{would}stopped {record.program} of {record.key}")
            found += 1
            try:
                state = _verdict(client, engine)
            except ObjectNotFound:
                # It may be another server's, which still calls it Running: it stays to be swept.
                print(f"run {engine.run} is unknown to {client.api_url}, and is left for its own")
                continue
            if state:
                print(f"{would}called run {engine.run} {state.name}")
            if not options.dry_run:
                if state:
                    end_run(client, UUID(engine.run), state)
                end(engine)
        elsewhere = failed = 0
        for one in sweep_elsewhere(dry_run=options.dry_run):
            elsewhere += 1
            failed += one.trouble is not None
            done = f"could not stop: {one.trouble};" if one.trouble else f"{would}stopped"
            print(f"{done} {one.work.program} ({one.work.id or one.work.tag}) of a {one.run} run")
    if found:
        print(f"{found} run(s) had lost their process")
    if not found and not elsewhere:
        print("nothing was left")
    return 1 if failed else 0


def vanished() -> "Iterator[Engine]":
    """The engines of this machine that ended without a word."""
    from flows._run.engine import engines_here

    for engine in engines_here():
        if engine.ended is None and not engine.alive:
            yield engine


def _verdict(client: "SyncPrefectClient", engine: "Engine") -> "State | None":
    """What the server should call the run; None when it knows, or another process runs it now.

    Raises ObjectNotFound for a run that the server does not have.
    """
    from prefect.states import Cancelled, Crashed

    try:
        run_id = UUID(engine.run)
    except ValueError:
        return None  # a guarded call outside any flow: no server ever knew it
    run = client.read_flow_run(run_id)
    running = [s.timestamp for s in client.read_flow_run_states(run.id) if s.is_running()]
    # Prefect called it Running just before our engine wrote that it began; a later one is not ours.
    if run.state is None or not running or max(running) > datetime.fromisoformat(engine.began):
        return None
    gone = "the process that ran it is gone"
    if run.state.is_cancelling():
        return Cancelled(message=gone)
    return Crashed(message=gone) if run.state.is_running() else None
