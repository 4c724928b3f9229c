"""`penstock stop RUN`: end a run, also one whose process is gone.

Cancelling (API) ──► engine, worker ──► Cancelled       the usual way, as in the UI
        └──► engine gone? ──► its records ──► Cancelled  nobody else would
"""

import argparse
from typing import TYPE_CHECKING
from uuid import UUID

from blocks.errors import ConfigError, NotStopped

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

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

    from flows._run.noted import notes_of
    from flows._run.remote import stop_left
    from flows._run.stop import cancel_and_wait, open_records, stop_leftovers

    with get_client(sync_client=True) as client:
        run = _find(client, options.run)
        if options.dry_run:
            print(f"{run.name} is {_word(run)}")
            for record in open_records(str(run.id)):
                print(f"would stop {record.program} of {record.key}")
            for there in notes_of(str(run.id)).open(str(run.id)):
                print(f"would stop {there.program} ({there.id or there.tag})")
            return 0
        ended = run.state is not None and run.state.is_final()
        if not ended and cancel_and_wait(client, [run.id], options.patience):
            raise NotStopped(
                f"{run.name} was asked to end {options.patience:.0f} s ago and has not: look "
                "whether the worker that runs it is up (`penstock status`), or give more --patience"
            )
        for record in stop_leftovers(str(run.id)):
            print(f"stopped {record.program} of {record.key}")
        for there in stop_left(str(run.id)):
            print(f"stopped {there.program} ({there.id or there.tag})")
        print(f"{run.name} is {_word(client.read_flow_run(run.id))}")
    return 0


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
