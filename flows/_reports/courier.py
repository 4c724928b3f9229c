"""The courier: one small process for each outbox, started on demand, gone when idle.

outbox ──► ledger ──► messages (the API knows names, endpoints, results) ──► a sender per endpoint
                                                     labels, warnings, run sheets ◄──┘
Started by `outbox.put` as `python -m flows._reports.courier FOLDER LOCK`; it holds the lock, so
there is never a second one, and it may be killed at any moment: the next put starts another.
"""

import fcntl
import heapq
import json
import logging
import os
import signal
import sys
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.schemas.actions import LogCreate
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger

from blocks._changes import Change
from flows._reports import gaps, sheet
from flows._reports.audience import hearer
from flows._reports.bell import Bell
from flows._reports.build import build
from flows._reports.circle import Circle
from flows._reports.deliver import DEFAULT_PATIENCE, Sender
from flows._reports.history import LABEL, history
from flows._reports.ledger import ROWS_LATE, Ledger
from flows._reports.order import Ends, Progress
from flows._reports.outbox import call_courier, take, waits
from flows._reports.rows import Delivery, Made
from flows._run.api import api

IDLE = float(os.environ.get("PENSTOCK_COURIER_IDLE") or 30)  # seconds of nothing until it ends
AGAIN, LONGEST = 5.0, 60.0  # seconds until it asks a server again that did not answer
SOON = 0.5  # seconds until it asks again for what the API must have soon
PREFECT = "what Prefect is to be told"
# Seconds for which it does; then it ends, and what it has is kept for the courier after it.
PATIENCE = 3600 * float(os.environ.get("PENSTOCK_COURIER_PATIENCE") or DEFAULT_PATIENCE)


class Courier:
    """The loop of the one process that speaks for an outbox."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._bell = Bell(place)
        self._ledger = Ledger(place)
        self._senders: dict[str, Sender] = {}
        self._ends, self._progress = Ends(), Progress(self._ledger)
        self._circle = Circle(self._ledger)
        self._warned: set[tuple[str, str]] = set()
        self._warnings: deque[tuple[Delivery, str]] = deque(maxlen=1000)
        self._over = False
        self._ask_again = 0.0  # when Prefect is asked again after it did not answer
        self._waits_since: float | None = None  # what it has not answered to
        self._away = False  # whether it did not answer at the last look
        self._later: dict[str, float] = {}  # runs, and PREFECT: when they are tried again
        self._said: set[str] = set()  # what of that stands in the log

    def missed(self) -> bool:
        """Whether something came between the last look and the end, unless it was told to end."""
        return not self._over and waits(self._place, self._ledger.offsets())

    def end(self, *_: object) -> None:
        self._over = True
        self._bell.ring()

    def run(self) -> None:
        """Until it is told to end, or nothing came for IDLE seconds."""
        self._ledger.tidy()
        while not self._over:
            self._take_in()
            if time.monotonic() >= self._ask_again:
                self._ask()
            for endpoint in self._ledger.endpoints():
                self._sender(endpoint).wake()
            if self._in_vain() > PATIENCE and not self._ledger.endpoints():
                get_logger("penstock").error("given up: what waits is kept for the next courier")
                break
            idle = self._ledger.idle and not self._warnings
            if not self._bell.wait(self._patience()) and idle:
                break
        for sender in self._senders.values():
            sender.end()
        for sender in self._senders.values():
            sender.join()  # a post under way is finished, so that it is not made twice
        self._bell.close()  # before the last look: who rings from now on calls another courier

    def _ask(self) -> None:
        """Do all that needs the API, and settle when that is tried again if it did not work.

        A run alone may have to wait: it holds up no other. A server that does not answer is asked
        less and less often.
        """
        now = time.monotonic()
        still = {} if self._away else self._later
        self._later = {about: due for about, due in still.items() if due > now}
        self._away = False
        self._resolve()
        if PREFECT not in self._later and not self._away:
            self._tell_prefect()
        if not self._later:
            if self._said:
                get_logger("penstock").warning("Prefect answers again")
            self._ask_again, self._waits_since = 0.0, None
            self._said.clear()
            return
        self._waits_since = self._waits_since or now
        delay = min(LONGEST, max(AGAIN, self._in_vain() / 2)) if self._away else 0.0
        self._ask_again = time.monotonic() + delay

    def _in_vain(self) -> float:
        """Seconds since which something waits for the API."""
        return time.monotonic() - self._waits_since if self._waits_since else 0.0

    def _failed(self, about: str, error: Exception) -> None:
        """Try it later; say so once, and of a server that is away one line, however much waits."""
        self._later[about] = time.monotonic() + AGAIN
        self._away = self._away or isinstance(error, httpx.TransportError)
        key = "" if self._away else about
        if key not in self._said:
            what = about if about == PREFECT else f"run {about}"
            get_logger("penstock").warning("%s waits: %r", what, error)
        self._said.add(key)

    def _patience(self) -> float:
        """Seconds until there is something to do even if nobody rings."""
        now = time.monotonic()
        if self._ask_again > now:
            return self._ask_again - now
        due_sheets = [] if PREFECT in self._later else self._ledger.sheets()
        sheets = (due - time.time() for _, due in due_sheets)
        later = (due - now for due in self._later.values())
        return max(0.0, min([IDLE, *self._ends.patience, *later, *sheets]))

    def _take_in(self) -> None:
        writers: list[list[Change]] = []
        offsets: dict[str, int] = {}
        ended: list[Path] = []
        for path, lines, offset, done in take(self._place, self._ledger.offsets()):
            writers.append([change for line in lines if (change := _change(line))])
            if lines:
                offsets[path.name] = offset
            if done:
                ended.append(path)
        if offsets:
            # Each writer's own order stays: progress hangs on it. Writers follow one another by
            # the clock: the hook of a run that was killed after the engine's last line.
            changes = heapq.merge(*writers, key=lambda change: change.at)
            self._ledger.take_in(changes, offsets)
        for path in ended:
            path.unlink()
            self._ledger.forget_file(path.name)

    def _resolve(self) -> None:
        """Make messages of what came, but of runs for which something must wait for the API."""
        early: set[str] = set()  # runs whose end waits for its reason
        while not self._away and (batch := self._ledger.changes(but_of={*self._later, *early})):
            made: list[Made] = []
            for n, change in batch:
                # The order of a run would suffer if a later change went first.
                if change.run in self._later or self._away:
                    continue
                try:
                    if self._too_early(n, change):
                        early.add(change.run)
                    else:
                        made.append(self._made(n, change))
                except _TooSoon:
                    self._later[change.run] = time.monotonic() + SOON
                except ObjectNotFound:
                    get_logger("penstock").warning("run %s was deleted: nobody told", change.run)
                    made.append(Made(n, change.run, [], [], ends=False))
                except Exception as error:
                    self._failed(change.run, error)
            self._ledger.resolve(made)

    def _too_early(self, n: int, change: Change) -> bool:
        about = self._circle.of(change.run)
        told_why = any(hearer.explains for hearer in (about.hearers or {}).values())
        return told_why and self._ends.wait(n, change, about.names.root)

    def _made(self, n: int, change: Change) -> Made:
        about = self._circle.of(change.run)
        names, hearers = about.names, about.hearers
        ends = hearers is not None and change.ends_run and change.run == names.root
        if not hearers:
            return Made(n, names.root, [], [], ends)
        whole = _whole(change) if ends and gaps.noted(names.root) else [change]
        told = [message for one in whole for message in build(one, names)]
        built = self._progress.upheld(names.root, told)
        wanted = [(m.id, key) for m in built for key, hears in hearers.items() if hears.wants(m)]
        return Made(n, names.root, built, wanted, ends)

    def _sender(self, endpoint: str) -> Sender:
        sender = self._senders.get(endpoint)
        if sender is None or not sender.is_alive():
            sender = Sender(self._place, endpoint, hearer, self._warn, self._bell.ring)
            self._senders[endpoint] = sender
            sender.start()
        return sender

    def _warn(self, delivery: Delivery, why: str) -> None:
        """From a sender: told in the run's log, once for each run and endpoint."""
        get_logger("penstock").warning("%s: %s", delivery.endpoint, why)
        if (delivery.root, delivery.endpoint) not in self._warned:
            self._warned.add((delivery.root, delivery.endpoint))
            self._warnings.append((delivery, why))
            self._bell.ring()

    def _tell_prefect(self) -> None:
        """Warnings, labels and run sheets."""
        try:
            while self._warnings:
                delivery, why = self._warnings[0]
                api().create_logs([_log(delivery.root, f"{delivery.endpoint}: {why}")])
                self._warnings.popleft()
            for root, endpoint, value in self._ledger.labels():
                try:
                    api().update_flow_run_labels(UUID(root), {LABEL + endpoint: value})
                except ObjectNotFound:
                    get_logger("penstock").info("run %s was deleted: it gets no label", root)
                self._ledger.labelled(root, endpoint, value)
            for root, due in self._ledger.sheets():
                if due <= time.time():
                    self._write_sheet(root)
        except Exception as error:
            self._failed(PREFECT, error)

    def _write_sheet(self, root: str) -> None:
        try:
            sheet.publish(self._ledger, root)
        except ObjectNotFound:
            get_logger("penstock").info("run %s was deleted: it gets no sheet", root)
        self._ledger.written(root)


class _TooSoon(Exception):
    """The API may not have all rows of a run yet."""


def _whole(end: Change) -> list[Change]:
    """All that led to the end of a run of which something was lost, and the end."""
    if time.time() < datetime.fromisoformat(end.at).timestamp() + ROWS_LATE:
        raise _TooSoon
    before = history(api().read_flow_run(UUID(end.run)))
    return [*(one for one in before if one.base != end.base), end]


def _change(line: bytes) -> Change | None:
    try:
        return Change(**json.loads(line))
    except (ValueError, TypeError):
        get_logger("penstock").error("a line of the outbox is none: %r", line[:200])
        return None


def _log(root: str, text: str) -> LogCreate:
    return LogCreate(
        name="penstock.reports",
        level=logging.WARNING,
        message=text,
        timestamp=datetime.now(UTC),
        flow_run_id=UUID(root),
    )


def main(place: Path, lock: int) -> None:
    """Serve `place` while holding `lock`; nothing that came before the lock is let go is missed."""
    os.set_inheritable(lock, False)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    os.nice(5)  # the work goes first
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write URLs down
    courier = Courier(place)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, courier.end)
    courier.run()
    fcntl.flock(lock, fcntl.LOCK_UN)
    if courier.missed():
        call_courier(place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
