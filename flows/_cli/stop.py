"""`penstock stop RUN`: end a run, also one whose process is gone.

Cancelling (API) ──► engine, worker ──► Cancelled       the usual way, as in the UI
        └──► engine gone? ──► its records ──► Cancelled  nobody else would
"""

import argparse
import time
from typing import TYPE_CHECKING
from uuid import UUID

from blocks.errors import ConfigError, NotStopped

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

POLL = 0.5  # seconds between two looks at the run

EXAMPLES = ("stop clever-otter", "stop clever-otter --dry-run")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="name or id of a flow run")
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=float,
        default=45.0,
        help="how long its own process may take to end it (default: %(default)g)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be stopped")


def main(options: argparse.Namespace) -> int:
    from prefect.client.orchestration import get_client

    from flows._run.stop import open_records, stop_leftovers

    with get_client(sync_client=True) as client:
        run = _find(client, options.run)
        if options.dry_run:
            print(f"{run.name} is {_word(run)}")
            for record in open_records(str(run.id)):
                print(f"would stop {record.program} of {record.key}")
            return 0
        _cancel(client, run, options.patience)
        for record in stop_leftovers(str(run.id)):
            print(f"stopped {record.program} of {record.key}")
        print(f"{run.name} is {_word(client.read_flow_run(run.id))}")
    return 0


def _cancel(client: "SyncPrefectClient", run: "FlowRun", patience: float) -> None:
    """Bring the run to an end; raises NotStopped when its process, not of here, does not end it."""
    from prefect.states import Cancelled, Cancelling

    from flows._run.engine import end, engine_of
    from flows._run.stop import stop_leftovers

    if run.state and run.state.is_final():
        return
    client.set_flow_run_state(run.id, Cancelling())
    deadline = time.monotonic() + patience
    while True:
        state = client.read_flow_run(run.id).state
        if state is None or state.is_final():
            return
        engine = engine_of(str(run.id))
        if engine and engine.here and not engine.alive:
            stop_leftovers(str(run.id))
            end(engine)
            client.set_flow_run_state(run.id, Cancelled(message="its process was gone"), force=True)
            return
        if time.monotonic() > deadline:
            raise NotStopped(
                f"{run.name} was asked to end {patience:.0f} s ago and has not: look whether the "
                "worker that runs it is up (`penstock status`), or give more --patience"
            )
        time.sleep(POLL)  # the server sends us no event


def _find(client: "SyncPrefectClient", wanted: str) -> "FlowRun":
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName

    try:
        by = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(wanted)]))
    except ValueError:
        by = FlowRunFilter(name=FlowRunFilterName(any_=[wanted]))
    found = client.read_flow_runs(flow_run_filter=by)
    if not found:
        raise ConfigError(f"no run is called {wanted!r} on {client.api_url}")
    if len(found) > 1:
        ids = ", ".join(str(run.id) for run in found)
        raise ConfigError(f"{len(found)} runs are called {wanted!r}: name one by its id: {ids}")
    return found[0]


def _word(run: "FlowRun") -> str:
    return str(run.state.name) if run.state else "without a state"
