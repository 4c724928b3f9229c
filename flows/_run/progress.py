"""The progress of a run: an honest integer that never falls, made in this one place.

a task's share (0..1) ──► Progress ──► percent ──► reports, artifact of the run
        a child run ──────────┘
"""

import math
import threading
from collections.abc import Callable, Iterable
from uuid import UUID

from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from flows._run.api import api
from flows._run.published import Published


class Progress:
    """How far one run has come.

    `parts` is how many tasks and child runs the run has, all of equal weight; with None the number
    is not known, and the percentage is honest about it: one more may always come. `reached` is the
    percentage that an earlier attempt of the run has told: there it begins.
    """

    def __init__(
        self,
        parts: int | None = None,
        *,
        reached: int = 0,
        above: Callable[[float], None] | None = None,
        publish: Callable[[int], None] | None = None,
    ) -> None:
        self._parts, self._above, self._publish = parts, above, publish
        self._planned: set[str] | None = None
        self._shares: dict[str, float] = {}
        self._fraction = reached / 100
        self._lock = threading.Lock()

    @property
    def percent(self) -> int:
        """0 to 99: only a run that has succeeded is at 100, and that is not known here."""
        return min(99, math.floor(100 * self._fraction + 1e-9))

    def plan(self, keys: Iterable[str]) -> None:
        """Add to what the run consists of; shares of anything else do not count from now on."""
        with self._lock:
            self._planned = {*(self._planned or ()), *keys}

    def set(self, key: str, share: float) -> None:
        """A task or child run has done `share` of its work; it never goes back."""
        with self._lock:
            if self._planned is not None and key not in self._planned:
                return
            self._shares[key] = max(self._shares.get(key, 0.0), min(1.0, share))
            number = len(self._planned) if self._planned is not None else self._parts
            whole = max(number, len(self._shares)) if number else len(self._shares) + 1
            self._fraction = max(self._fraction, sum(self._shares.values()) / whole)
        if self._above:
            self._above(self._fraction)
        if self._publish:
            self._publish(self.percent)


def run_artifact() -> Callable[[int], None] | None:
    """For the running flow: what shows its own percentage in the UI."""
    if not (run_id := flow_run.get_id()):
        return None
    return Published(UUID(run_id), None, "progress of the run").show


def last_percent(flow_run_id: UUID) -> int:
    """What a run's own progress artifact says: for a process that did not run it."""
    artifacts = api().read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    )
    own = [a.data for a in artifacts if a.type == "progress" and a.task_run_id is None]
    return int(max((float(data) for data in own if isinstance(data, int | float)), default=0))
