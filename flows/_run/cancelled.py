"""Notice that a run was cancelled, where nobody else does.

A worker, `flow.serve` and `prefect flow-run execute` watch the runs that they start. A flow that is
called directly has nobody: Prefect would let it run to its end and call it Cancelling till then.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.logging import get_logger
from prefect.states import Cancelled

from flows._run.api import api

INTERVAL = 2.0  # seconds between two looks at the run's state


def has_runner(flow_run_id: UUID) -> bool:
    """Whether something started this process for that very run, and watches it."""
    return os.environ.get("PREFECT__FLOW_RUN_ID") == str(flow_run_id)


@contextmanager
def watched(flow_run_id: UUID, on_cancel: Callable[[], object]) -> Iterator[None]:
    """While the block runs, call `on_cancel` once, in another thread, if the run is cancelled."""
    if has_runner(flow_run_id):
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(INTERVAL):
            try:
                state = api().read_flow_run(flow_run_id).state
            except Exception as error:
                # The server may be restarting; the run goes on, and so does the watch.
                get_logger("penstock").debug("the run's state is not known: %r", error)
                continue
            if state and (state.is_cancelling() or state.is_cancelled()):
                on_cancel()
                return

    watcher = threading.Thread(target=watch, name="penstock-cancelled", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def settle(flow_run_id: UUID) -> None:
    """Call a run Cancelled whose work has stopped: a runner does that, and without one we do."""
    if not has_runner(flow_run_id):
        api().set_flow_run_state(flow_run_id, Cancelled())
