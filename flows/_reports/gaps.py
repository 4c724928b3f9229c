"""What a hook could not write down, on a full disk say: the run is told whole at its end.

put() fails ──► label of the root run, on the server ──► courier, at the run's end ──► history()
                └── it cannot be reached: remembered, and noted at the end of the run

The server is asked since the disk is no place to keep it, and whoever tells the end of the run may
be another process, of another machine.
"""

from uuid import UUID

from prefect.logging import get_logger

from flows._reports.audience import root_of
from flows._run.api import api

LABEL = "penstock.untold"

_unnoted: set[UUID] = set()


def lost(flow_run_id: UUID) -> None:
    """A state of that run, or of a task in it, could not be put."""
    first = flow_run_id not in _unnoted
    _unnoted.add(flow_run_id)
    if first:  # a server that does not answer is not asked for each state
        note()


def note() -> None:
    """Tell the server of which runs something was lost, as far as it does not know."""
    for run in [*_unnoted]:
        try:
            api().update_flow_run_labels(root_of(run), {LABEL: "some states"})
        except Exception as error:
            why = type(error).__name__
            get_logger("penstock").warning(
                "run %s: it is not noted yet that states of it could not be reported: %s", run, why
            )
        else:
            _unnoted.discard(run)


def noted(root: str) -> bool:
    """Whether somebody lost a state of that root run, or of what is below it."""
    return LABEL in api().read_flow_run(UUID(root)).labels
