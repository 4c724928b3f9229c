"""Progress artifacts, written by one thread of the process: a job never waits for the server.

show(percent) ──► the latest value of each artifact ──► that thread ──► Prefect API
                                                          at most once a second for each
"""

import threading
import time
from typing import Any
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from flows._run.api import api

INTERVAL = 1.0  # seconds between two writes of the same artifact
PATIENCE = 3.0  # seconds that the end of a run waits for its last values to be written


class Published:
    """One progress artifact of a run, or of a task in it."""

    def __init__(self, flow_run_id: UUID, task_run_id: UUID | None, about: str) -> None:
        self.flow_run_id = flow_run_id
        self.due = 0.0  # by the monotonic clock; not before
        self.last = False  # its run ends: there is no second attempt any more
        self._fields = {"type": "progress", "description": about, "task_run_id": task_run_id}
        self._artifact: UUID | None = None
        self._asked = -1
        self._log = _logger()
        self._complained = False

    def show(self, percent: int, *, now: bool = False) -> None:
        """Have `percent` written: `now`, or when the interval is over. Never waits or raises."""
        if percent != self._asked:
            self._asked = percent
            _WRITER.take(self, percent, now=now)

    def write(self, percent: int) -> bool:
        """Whether the server took it; the first time that it does not is logged."""
        try:
            if self._artifact:
                api().update_artifact(self._artifact, ArtifactUpdate(data=float(percent)))
            else:
                fields: dict[str, Any] = {**self._fields, "flow_run_id": self.flow_run_id}
                new = ArtifactCreate(**fields, data=float(percent))
                self._artifact = api().create_artifact(new).id
        except Exception as error:
            # A bar in the UI is worth no job. Only the kind: the text may hold an address.
            if not self._complained:
                why = type(error).__name__
                self._log.warning("progress cannot be shown for now (%s); the run goes on", why)
            self._complained = True
            return False
        return True


def settle(flow_run_id: str, patience: float = PATIENCE) -> None:
    """Have the last values of a run and its tasks written; returns after `patience` s at most."""
    _WRITER.settle(flow_run_id, patience)


class _Writer:
    """The thread, and what it has to write."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Published, int] = {}
        self._writing: Published | None = None
        self._thread: threading.Thread | None = None

    def take(self, artifact: Published, percent: int, *, now: bool) -> None:
        with self._changed:
            self._waiting[artifact] = percent
            if now:
                artifact.due = 0.0
            if self._thread is None or not self._thread.is_alive():
                # A daemon: no process waits for a server that does not answer.
                self._thread = threading.Thread(
                    target=self._run, name="penstock-progress", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def settle(self, flow_run_id: str, patience: float) -> None:
        def open_ones() -> list[Published]:
            those = [*self._waiting, *([self._writing] if self._writing else [])]
            return [one for one in those if str(one.flow_run_id) == flow_run_id]

        with self._changed:
            for artifact in open_ones():
                artifact.due, artifact.last = 0.0, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not open_ones(), timeout=patience)

    def _run(self) -> None:
        while True:
            with self._changed:
                while (artifact := self._next()) is None:
                    self._changed.wait(self._until_due())
                self._writing, percent = artifact, self._waiting.pop(artifact)
            written = artifact.write(percent)
            with self._changed:
                self._writing = None
                if not written and not artifact.last:
                    self._waiting.setdefault(artifact, percent)  # unless a newer one has come
                artifact.due = 0.0 if artifact.last else time.monotonic() + INTERVAL
                self._changed.notify_all()

    def _next(self) -> Published | None:
        first = min(self._waiting, key=lambda one: one.due, default=None)
        return first if first and first.due <= time.monotonic() else None

    def _until_due(self) -> float | None:
        due = [one.due for one in self._waiting]
        return max(0.0, min(due) - time.monotonic()) if due else None


_WRITER = _Writer()


def _logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("penstock")
