"""End what runs left elsewhere and nobody will take on: their own ends are long told.

tables of the runs ──► rows still open ──► the run ──┬──► Cancelled, Failed, Completed: stop
                                                     └──► Crashed: only when long ago
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from blocks.errors import PenstockError
from flows._run.api import api
from flows._run.noted import Notes, Remote, noted
from flows._run.remote import stop

SETTLED = 60.0  # seconds after its end in which a run's own process may still be stopping its work


@dataclass(frozen=True)
class Left:
    """A piece of work elsewhere whose run is over."""

    work: Remote
    run: str  # how the run ended
    trouble: str | None = None  # why it could not be stopped


def sweep_elsewhere(*, dry_run: bool, at: datetime | None = None) -> Iterator[Left]:
    """Stop it (or, in a dry run, only tell), one by one; `at` is the time that is taken for now."""
    at = at or datetime.now(UTC)
    for artifact in noted():
        if artifact.flow_run_id is None:
            continue
        notes = Notes(str(artifact.flow_run_id), artifact)
        for row in notes.open(str(artifact.flow_run_id)):
            if (ended := _ended(row, at)) is None:
                continue
            trouble = None
            if not dry_run:
                try:
                    stop(notes, row)
                except PenstockError as error:
                    trouble = str(error)
            yield Left(row, ended, trouble)


def _ended(row: Remote, at: datetime) -> str | None:
    """How the run of a row ended, when nobody will take the work on any more; else None."""
    try:
        run = api().read_flow_run(UUID(row.root))
    except ObjectNotFound:
        return "deleted"
    if run.state is None or not run.state.is_final():
        return None
    patience = row.adopt_within if run.state.type == StateType.CRASHED else SETTLED
    return str(run.state.name) if (at - run.state.timestamp).total_seconds() > patience else None
