"""Which runs were not told to the end, and telling them again: the work of `flows/redeliver.py`.

root runs that ended ──► labels: who has answered ──► history of those that nobody answered ──► put
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger

from blocks._changes import Change, change
from blocks._messages import names
from flows._reports.audience import QUIET, everyone, saved_since
from flows._reports.history import ended, history, unheard
from flows._reports.ledger import Ledger
from flows._reports.outbox import folder, put
from flows._run.api import api

SETTLED = timedelta(minutes=5)  # after a run's end its own courier is left to do it


class _Called:
    """Names of flows and deployments, each asked for once: a sweep looks at thousands of runs."""

    def __init__(self) -> None:
        self._flows: dict[Any, str] = {}
        self._deployments: dict[Any, str | None] = {}

    def of(self, run: FlowRun) -> tuple[str | None, str]:
        """A run's deployment, if it has one, and its flow."""
        if run.flow_id not in self._flows:
            self._flows[run.flow_id] = api().read_flow(run.flow_id).name
        if run.deployment_id and run.deployment_id not in self._deployments:
            try:
                name = api().read_deployment(run.deployment_id).name
            except ObjectNotFound:
                name = None
            self._deployments[run.deployment_id] = name
        return self._deployments.get(run.deployment_id), self._flows[run.flow_id]


class Sweep:
    """One look at the runs of the last days."""

    def __init__(self) -> None:
        self._hearers = everyone()
        self._saved = saved_since()
        self._called = _Called()
        self._ledger = Ledger(folder())
        self.seen = 0

    def missed(self, days: int) -> list[tuple[FlowRun, list[str]]]:
        """Root runs whose end somebody has not answered, and who; nothing is sent."""
        now = datetime.now(UTC)
        found = []
        for run in ended(now - timedelta(days=days), now - SETTLED) if self._hearers else ():
            self.seen += 1
            try:
                if keys := self._unheard(run):
                    found.append((run, keys))
            except ObjectNotFound:
                get_logger("penstock").info("run %s was deleted meanwhile", run.id)
        return found

    def _unheard(self, run: FlowRun) -> list[str]:
        if QUIET in run.tags or run.parameters.get("dry_run"):
            return []
        deployment, flow = self._called.of(run)
        hearers = {
            key: hearer
            for key, hearer in self._hearers.items()
            if hearer.matches(deployment, flow, run.tags)
        }
        end = change(run.id, run.state, attempt=run.run_count) if run.state else None
        if not hearers or end is None:
            return []
        missing = unheard(run, end, names(run.labels, run.id, deployment, flow), hearers)
        return [key for key in missing if self._is_due(run, key, end)]

    def _is_due(self, run: FlowRun, key: str, end: Change) -> bool:
        """Whether an endpoint that has not answered should be told from here."""
        saved = self._saved.get(key)
        if saved and run.end_time and saved > run.end_time:
            return False  # it is newer than the run, and need not hear of it
        # What the ledger has for it waits here, or its answer is just being written down.
        return self._ledger.may_hear(str(run.id), key) and not self._ledger.has(end.base, key)


def tell_again(run: FlowRun) -> int:
    """Put everything that a run's hooks had to tell; returns how many changes that are."""
    changes = history(run)
    put(*changes)
    return len(changes)
