"""What must not be told too early, and what must never go back: a run's failed end, its progress.

a failed end ──► Ends: until the API can say why ──► messages ──► Progress ──► ledger
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime

from blocks._changes import Change
from blocks._messages import Message
from flows._reports.build import explained
from flows._reports.ledger import ROWS_LATE, Ledger

LOOK = 0.5  # seconds between two looks for the reason of a failure
KNOWN = 1000  # runs whose progress is kept at hand


@dataclass
class _Held:
    n: int
    end: Change
    until: float
    look: float = 0.0


class Ends:
    """Failed ends that wait until the API shows what failed, and the log to its end.

    Both reach the API in batches, up to ROWS_LATE seconds after the state. Meanwhile the run's
    earlier states of tasks go first; other runs do not wait.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}  # by root run

    @property
    def patience(self) -> list[float]:
        """Seconds until the next look, if anything waits."""
        return [LOOK] if self._held else []

    def wait(self, n: int, change: Change, root: str) -> bool:
        """Whether a change has to wait: a failed end, or what came after one in its root run."""
        now, held = time.monotonic(), self._held.get(root)
        if held and held.n != n:
            if now < held.until:
                return change.task is None or _at(change) > _at(held.end)
            held = None  # that end is gone: its run was deleted
        if held is None:
            if not change.ends_run or change.word != "failed":
                return False
            left = ROWS_LATE + _at(change) - time.time()
            if left <= 0:
                return False
            held = self._held[root] = _Held(n, change, now + min(left, ROWS_LATE))
        if now < held.look:
            return True
        if now < held.until and not explained(change):
            held.look = min(now + LOOK, held.until)
            return True
        del self._held[root]
        return False


class Progress:
    """How far each root run was said to have come: the next message says no less.

    An end that is told from another process knows only what the run showed last, at most once a
    second, and the relay comes seconds after the hooks.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._reached: dict[str, tuple[int, int]] = {}  # by root run: percent, `seq` of its end

    def upheld(self, root: str, made: list[Message]) -> list[Message]:
        """The messages, none of which says less than was said; without progress after the end."""
        upheld = []
        for message in made:
            if message.route != "progress":
                upheld.append(message)
                continue
            percent, ended = self._of(root)
            if message.state == "running" and message.seq < ended:
                continue
            told = message.progress or 0
            if message.state == "success":
                ended = max(ended, message.seq)
            else:
                told = percent = max(percent, told)
                ended = max(ended, message.seq) if message.state == "failed" else ended
            self._reached[root] = percent, ended
            upheld.append(replace(message, progress=told))
        return upheld

    def _of(self, root: str) -> tuple[int, int]:
        if root not in self._reached:
            self._reached[root] = self._in_ledger(root)
            while len(self._reached) > KNOWN:
                del self._reached[next(iter(self._reached))]
        return self._reached[root]

    def _in_ledger(self, root: str) -> tuple[int, int]:
        found = self._ledger.find("WHERE d.root = ? AND message LIKE '%/progress'", [root])
        made = [self._ledger.message(name) for name in {one.message for one in found}]
        below = (one.progress or 0 for one in made if one.state != "success")
        ends = (one.seq for one in made if one.state != "running")
        return max(below, default=0), max(ends, default=0)


def _at(change: Change) -> float:
    return datetime.fromisoformat(change.at).timestamp()
