"""What was started elsewhere, noted on the server: one table for each run, in its Artifacts tab.

intend, put ──► rows of the run ──► one artifact, written whole; threads share a write
latest, open ◄── the same rows, read by any process

A machine's disk would not do: a container's is gone with it, and what it started is not.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from prefect.logging import get_logger

from blocks.errors import JobFailed
from flows._run.api import api

KEY = "started-elsewhere"
PAGE = 200  # what the server gives at most


@dataclass(frozen=True)
class Remote:
    """One piece of work that was given to an outside system; enough to stop it from anywhere."""

    place: str
    root: str
    key: str
    generation: int
    tag: str  # what the work is marked with over there: finds one whose id was never noted
    program: str
    began: str  # ISO 8601, UTC
    where: dict[str, Any] = field(default_factory=dict)
    adopt_within: float = 0.0  # seconds that it may go on alone after its run crashed
    id: str | None = None
    link: str | None = None
    outcome: dict[str, Any] | None = None
    judged: str | None = None  # "failed" or "done", once a task has read the outcome
    gone_at: str | None = None

    def of(self, run_id: str) -> bool:
        """Whether the work ends with that run: its own, or the one that all of it began with."""
        return self.root == run_id or self.key.startswith(f"{run_id}/")


class Notes:
    """The rows of one run."""

    def __init__(self, root: str, artifact: Artifact | None = None) -> None:
        self._root = root
        self._artifact = artifact.id if artifact else None
        self._rows = {(row.key, row.generation): row for row in rows_of(artifact)}
        self._changed = threading.Condition()
        self._asked = self._written = 0
        self._writing = False

    def intend(self, row: Remote) -> Remote:
        """Note what is about to be started; returns when the server has it.

        Raises JobFailed when the server does not take it: nobody could ever stop what is not noted.
        """
        try:
            return self._put(row)
        except Exception as error:
            with self._changed:
                del self._rows[row.key, row.generation]
            why = type(error).__name__
            raise JobFailed(
                row.program, f"was not started: it could not be noted ({why})"
            ) from error

    def put(self, row: Remote) -> Remote:
        """Note what became of it. What the server does not take now goes with the next note.

        If that was the last one, whoever looks finds the work by its tag, and sees the same.
        """
        try:
            return self._put(row)
        except Exception as error:
            get_logger("penstock").warning(
                "what became of %s is not noted yet: %s", row.program, type(error).__name__
            )
            return row

    def _put(self, row: Remote) -> Remote:
        with self._changed:
            self._rows[row.key, row.generation] = row
            self._asked += 1
            mine = self._asked
            self._changed.wait_for(lambda: self._written >= mine or not self._writing)
            if self._written >= mine:
                return row
            self._writing = True
            asked, data = self._asked, [asdict(one) for one in self._rows.values()]
        try:
            self._write(json.dumps(data))
        except BaseException:
            asked = 0
            raise
        finally:
            with self._changed:
                self._writing, self._written = False, max(self._written, asked)
                self._changed.notify_all()
        return row

    def latest(self, key: str) -> Remote | None:
        """The newest generation of `key`; None when it was never started."""
        with self._changed:
            found = [row for row in self._rows.values() if row.key == key]
        return max(found, key=lambda row: row.generation, default=None)

    def open(self, run_id: str) -> list[Remote]:
        """What was started for that run and is not known to be gone."""
        with self._changed:
            return [row for row in self._rows.values() if row.gone_at is None and row.of(run_id)]

    def _write(self, data: str) -> None:
        try:
            run = UUID(self._root)
        except ValueError:
            return  # a guarded call outside any flow: there is no run to note it at
        if self._artifact:
            api().update_artifact(self._artifact, ArtifactUpdate(data=data))
            return
        new = ArtifactCreate(
            key=KEY,
            type="table",
            description="what this run started elsewhere",
            flow_run_id=run,
            data=data,
        )
        self._artifact = api().create_artifact(new).id


def rows_of(artifact: Artifact | None) -> list[Remote]:
    """What an artifact holds; fields that a newer release may add are passed over."""
    data = json.loads(str(artifact.data or "[]")) if artifact else []
    known = {one.name for one in fields(Remote)}
    return [Remote(**{k: v for k, v in row.items() if k in known}) for row in data]


_notes: dict[str, Notes] = {}
_lock = threading.Lock()


def notes_of(root: str) -> Notes:
    """The rows of a run, read from the server the first time this process asks."""
    with _lock:
        if root not in _notes:
            _notes[root] = Notes(root, artifact_of(root))
        return _notes[root]


def notes_here(root: str) -> Notes | None:
    """The rows of a run if this process had to do with them."""
    return _notes.get(root)


def noted(page: int = PAGE) -> Iterator[Artifact]:
    """The table of every run that started something elsewhere, the newest first."""
    seen = 0
    mine = ArtifactFilter(key=ArtifactFilterKey(any_=[KEY]))
    while found := api().read_artifacts(
        artifact_filter=mine, sort=ArtifactSort.UPDATED_DESC, limit=page, offset=seen
    ):
        yield from found
        seen += len(found)


def artifact_of(root: str) -> Artifact | None:
    """Where the rows of a run are; None when it started nothing elsewhere."""
    try:
        run = UUID(root)
    except ValueError:
        return None
    of_run = ArtifactFilter(
        key=ArtifactFilterKey(any_=[KEY]), flow_run_id=ArtifactFilterFlowRunId(any_=[run])
    )
    found = api().read_artifacts(artifact_filter=of_run)
    return max(found, key=lambda one: str(one.created), default=None)
