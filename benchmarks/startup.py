"""What a start costs: `python -m benchmarks.startup [--quick] [--rounds N] [--json FILE]`.

`scheduled_to_pending`: milliseconds from the trigger of a run until the worker has taken it.
`pending_to_running`: from there until its flow runs: a new process, imports, the flow's loading.
`help`: milliseconds of `penstock --help`, start of Python and all, held against an empty Python.
`imports`: milliseconds of CPU for Prefect and our jobs of every kind, held against Prefect alone.

Ours is a dry run of the deployment `cwl`, the peer a plain `@flow` in the same work pool. The
installation is one of its own, on a free port and in a temporary folder, and is down afterwards.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from benchmarks._table import options, row, show

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HELP = 300  # milliseconds that `penstock --help` may take
POLL = 0.3  # seconds between two looks at a run: often enough, and no load beside it
PLAIN = """
from prefect import flow

@flow
def plain(name: str = "", inputs: dict[str, str] | None = None):
    return {}
"""
IMPORTS = """
from time import process_time
began = process_time()
import prefect.flow_engine
prefects = process_time()
import flows.demo
print((prefects - began) * 1000, (process_time() - began) * 1000)
"""


def penstock(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "deployments", *words], check=True)


@contextmanager
def installation(home: str) -> Iterator["SyncPrefectClient"]:
    """One of its own at `home`, and a client of it; afterwards it is down."""
    os.environ["PENSTOCK_HOME"] = home
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    penstock("up", "--port", str(port))
    try:
        from deployments.local import service

        service.adopt_environment(f"http://127.0.0.1:{port}/api")
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            yield client
    finally:
        penstock("down")


def deploy_plain(folder: Path) -> UUID:
    """The peer, in the work pool of ours and with its job variables."""
    from prefect import Flow, flow

    from deployments.local.server import POOL

    (folder / "plain.py").write_text(PLAIN)
    loaded = flow.from_source(str(folder), "plain.py:plain")
    assert isinstance(loaded, Flow)  # noqa: S101 - for the type checker alone
    deployed = loaded.deploy(
        "plain",
        work_pool_name=POOL,
        job_variables={"stream_output": False},
        build=False,
        print_next_steps=False,
    )
    assert isinstance(deployed, UUID)  # noqa: S101 - the same
    return deployed


def started(
    client: "SyncPrefectClient", deployment: UUID, parameters: dict[str, Any]
) -> tuple[float, float]:
    """Trigger a run and await its end: milliseconds from Scheduled to Pending, and to Running."""
    from prefect.client.schemas.objects import StateType

    run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
    while not ((state := client.read_flow_run(run.id).state) and state.is_final()):
        time.sleep(POLL)
    if not state.is_completed():
        raise SystemExit(f"{run.name} ended as {state.name}: {state.message}")
    # The first of each type: a run that waits for its worker becomes Late, which is Scheduled, too.
    at = {one.type: one.timestamp for one in reversed(client.read_flow_run_states(run.id))}
    pending = (at[StateType.PENDING] - at[StateType.SCHEDULED]).total_seconds() * 1000
    return pending, (at[StateType.RUNNING] - at[StateType.PENDING]).total_seconds() * 1000


def imports() -> tuple[float, float]:
    """Milliseconds of CPU until Prefect's engine, and then our jobs too, are in a new Python."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True
    )
    prefects, both = map(float, done.stdout.split())
    return prefects, both


def helped() -> tuple[float, float]:
    """Milliseconds of `penstock --help`, and of a Python that does nothing."""

    def lasts(*words: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) * 1000

    return lasts("-m", "deployments", "--help"), lasts("-c", "")


def help_row(rounds: int) -> dict[str, Any]:
    """A goal for all of it, not for what it takes more than the peer."""
    ours, empty = map(list, zip(*(helped() for _ in range(rounds)), strict=True))
    made = row("help", ours, empty, peer_name="python -c ''", goal=HELP)
    return {**made, "met": made["ours"] <= HELP}


def measure(client: "SyncPrefectClient", rounds: int, folder: Path) -> list[dict[str, Any]]:
    hello = {"workflow": str(Path("flows/examples/hello.cwl").resolve()), "dry_run": True}
    ours = client.read_deployment_by_name("cwl-job/cwl").id
    plain = deploy_plain(folder)
    _warm, *seen = [
        (*started(client, ours, hello), *started(client, plain, {"name": "x"}), *imports())
        for _ in range(rounds + 1)
    ]
    columns = [list(column) for column in zip(*seen, strict=True)]
    pending, running, plain_pending, plain_running, prefects, both = columns
    name = "a plain @flow"
    return [
        help_row(3 * rounds),
        row("scheduled_to_pending", pending, plain_pending, peer_name=name, goal=None),
        row("pending_to_running", running, plain_running, peer_name=name, goal=None),
        row("imports", both, prefects, peer_name="import prefect.flow_engine", goal=None),
    ]


def main() -> int:
    given = options(__doc__, rounds=9, quick=2)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        with installation(home) as client:
            rows = measure(client, given.rounds, Path(folder))
        show(rows, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
