"""Who hears a run, for the courier: settled at its first report, and kept in the ledger.

run ──► root ──► ledger: names, endpoints ──► their blocks, as they are saved now
                    └── first seen: the API's answer, written down

An endpoint that was saved then, but could not be loaded, is in doubt until it can be.
"""

import time
from dataclasses import dataclass
from uuid import UUID

from prefect.logging import get_logger

from blocks._messages import Names
from blocks.errors import BlockMissing, PenstockError
from flows._reports.audience import Hearer, audience, hearer, root_of
from flows._reports.deliver import FRESH
from flows._reports.ledger import Ledger
from flows._run.api import api

MOST = 1000  # runs that are remembered


@dataclass(frozen=True)
class About:
    """A run's names, and who hears it; None if nobody should."""

    names: Names
    hearers: dict[str, Hearer] | None
    until: float = float("inf")  # when those that could not be loaded are tried again


class Circle:
    """Who hears which run, fixed for the courier after this one, too."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, About] = {}  # by flow run
        self._said: set[str] = set()  # endpoints whose trouble stands in the log

    def of(self, run: str) -> About:
        """Asks the API, and raises what it raises, when the run is new or somebody is in doubt."""
        known = self._known.get(run)
        if known is None or known.until <= time.monotonic():
            known = self._known[run] = self._look(str(root_of(UUID(run))))
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]
        return known

    def _look(self, root: str) -> About:
        if (kept := self._ledger.run(root)) is None:
            heard = audience(UUID(root))
            hearers = None if heard.silent else heard.hearers
            self._ledger.know(
                heard.names, None if hearers is None else list(hearers), heard.unusable
            )
            return About(heard.names, hearers, _until(bool(heard.unusable)))
        names, keys = kept
        if keys is None:
            return About(names, None)
        doubtful = self._ledger.doubtful(root)
        there = {key: found for key in keys if (found := self._loaded(key))}
        for key in doubtful:
            if (found := self._loaded(key)) and self._decided(root, names, key, found):
                there[key] = found
        return About(names, there, _until(bool(doubtful) or len(there) < len(keys)))

    def _decided(self, root: str, names: Names, key: str, found: Hearer) -> bool:
        hears = found.matches(names.deployment, names.flow, api().read_flow_run(UUID(root)).tags)
        self._ledger.decide(root, key, hears=hears)
        return hears

    def _loaded(self, key: str) -> Hearer | None:
        """The endpoint as it is saved now; None if it was deleted, or cannot be used."""
        try:
            found = hearer(key)
        except PenstockError as error:  # `redeliver` tells it what it misses, once it is mended
            if key not in self._said:
                why = "it was deleted" if isinstance(error, BlockMissing) else error
                get_logger("penstock").error("%s hears nothing: %s", key, why)
            self._said.add(key)
            return None
        self._said.discard(key)
        return found


def _until(doubt: bool) -> float:
    return time.monotonic() + FRESH if doubt else float("inf")
