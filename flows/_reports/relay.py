"""The relay: tells what no hook sees, from the server's events.

server's events ──► Change ──► known here, or answered elsewhere? ──► outbox ──► courier
 (cursor on disk)                                    └── no message twice: ids are the hooks' own
It asks for events page by page and never listens to their stream, which loses some of them.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from httpx import HTTPError
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.events import ReceivedEvent
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger

from blocks._changes import Change
from blocks._home import write_private
from blocks.errors import ConfigError
from flows._reports import events
from flows._reports.audience import QUIET, Audience, Hearer, audience, everyone
from flows._reports.history import history, unheard
from flows._reports.ledger import Ledger
from flows._reports.outbox import call_courier, put, waits, written
from flows._reports.pulse import Pulse
from flows._run.api import api
from flows._run.progress import last_percent

BUSY, IDLE = 2.0, 4.0  # seconds between two looks: while events come, and when none came lately
LATELY = 60.0  # seconds for which it stays busy
OVERLAP = timedelta(seconds=60)  # read again at each look, for events that came in late
FRESH = 15.0  # seconds for which the list of saved endpoints is used

log = get_logger("penstock")


class Relay:
    """Follows one server for one outbox; `look` is one round, `run` goes on until `end`."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._place, self._cursor = place, place / "relay.json"
        self._ledger = Ledger(place)
        self._pulse = Pulse()
        self._seen: dict[UUID, datetime] = {}
        self._percents: dict[UUID, int] = {}  # of runs, asked for once in a look
        self._heard: dict[UUID, Audience | None] = {}  # by flow run; None: nobody is to hear it
        self._over = threading.Event()

    def end(self, *_: object) -> None:
        self._over.set()

    def run(self) -> None:
        quiet = LATELY  # seconds since something came
        failing = False
        while not self._over.is_set():
            try:
                quiet = 0.0 if self.look() else quiet + IDLE
                if self._pulse.look() and self._pulse.running and _saved_endpoints(_period(FRESH)):
                    call_courier(self._place)  # its start takes seconds: it is up before it is due
                if failing:
                    log.info("the server answers again")
                failing = False
            except Exception as error:
                self._pulse.forget()  # nothing was heard of any run meanwhile, and it means nothing
                if not failing:
                    log.warning("the server cannot be followed: %r", error)
                failing = True
            busy = quiet < LATELY or self._pulse.running
            self._over.wait(BUSY if busy and not failing else IDLE)

    def look(self) -> int:
        """Put what has come since the last look; returns how many events that were.

        Raises what Prefect's client raises, and puts nothing twice when it is called again.
        """
        start = self._since()
        number, last = 0, start
        self._percents.clear()
        for event in events.since(self._first_unknown(start), events.STATES):
            if event.id not in self._seen:
                self._tell(event)
                self._seen[event.id] = event.occurred
                number += 1
            # A task's event is dated by its machine, whose clock may be ahead of the server's.
            last = max(last, min(event.occurred, event.received))
        if last > start or not self._cursor.exists():
            write_private(self._cursor, json.dumps({"since": last.isoformat()}))
        if not self._ledger.idle or waits(self._place, self._ledger.offsets()):
            call_courier(self._place)  # it may have been killed, and nobody else may call it
        for gone in [i for i, occurred in self._seen.items() if occurred < last - 2 * OVERLAP]:
            del self._seen[gone]
        return number

    def _first_unknown(self, start: datetime) -> datetime:
        """Where to begin: OVERLAP before `start`, but not if all of many events there are known."""
        early = start - OVERLAP
        known = sum(early <= occurred <= start for occurred in self._seen.values())
        if known >= events.PAGE and events.number(early, start, events.STATES) == known:
            return start
        return early

    def _since(self) -> datetime:
        """The time of the last event that was put; now, when there never was one."""
        try:
            return datetime.fromisoformat(json.loads(self._cursor.read_text())["since"])
        except FileNotFoundError:
            return datetime.now(UTC)

    def _tell(self, event: ReceivedEvent) -> None:
        change = events.change_of(event)
        if change is None or not self._may_be_heard(event):
            return
        try:
            if not self._known(change) and (those := list(self._called_for(change))):
                put(*those)
        except ObjectNotFound:
            log.info("run %s was deleted: nobody is told of %s", change.run, event.event)
        except (HTTPError, OSError):
            raise  # the server, or the disk: it is the same for all, and passes
        except Exception:
            # It would fail for ever, and hold up all that came after; redeliver comes back to it.
            log.exception("run %s: %s could not be told", change.run, event.event)

    def _known(self, change: Change) -> bool:
        """Whether it is here: on its way, or as messages. A hook's word comes before the server's,
        which may quote a secret.
        """
        return (
            written(self._place, self._ledger.offsets(), change.state)
            or self._ledger.holds(change.state)
            or self._ledger.has(change.base)
        )

    def _may_be_heard(self, event: ReceivedEvent) -> bool:
        """Whether anybody could want it, as far as the event itself says: that costs no request."""
        hearers = _saved_endpoints(_period(FRESH))
        tags = [one.id.removeprefix("prefect.tag.") for one in events.related(event, "tag")]
        if not hearers or QUIET in tags:
            return False
        of_task = not event.resource.id.startswith("prefect.flow-run.")
        if of_task or any(events.related(event, "task-run")):
            return True  # of a child run, or maybe: its root's names decide
        deployment = next((one.name for one in events.related(event, "deployment")), None)
        flow = next((one.name for one in events.related(event, "flow")), None) or ""
        return any(hearer.matches(deployment, flow, tags) for hearer in hearers.values())

    def _called_for(self, change: Change) -> Iterator[Change]:
        """The change, if somebody hears the run and has not heard of this.

        A run that crashed may have taken with it what its hooks had written down: then all of it
        is told again.
        """
        run = UUID(change.run)
        heard = self._audience(run)
        if heard is None:
            return
        of_root = change.run == heard.names.root
        failed_run = change.ends_run and change.word == "failed"
        if failed_run or (of_root and change.task and change.word == "success"):
            change = replace(change, progress=self._percent(run))
        if not change.ends_run or not of_root:
            yield change
            return
        root: FlowRun = api().read_flow_run(run)
        if unheard(root, change, heard.names, heard.hearers):
            yield from history(root) if change.type == "CRASHED" else [change]

    def _percent(self, run: UUID) -> int:
        if run not in self._percents:
            self._percents[run] = last_percent(run)
        return self._percents[run]

    def _audience(self, run: UUID) -> Audience | None:
        if run not in self._heard:
            found = audience(run)
            self._heard[run] = None if found.silent or not found.hearers else found
            while len(self._heard) > 1000:
                del self._heard[next(iter(self._heard))]
        return self._heard[run]


def _period(seconds: float) -> int:
    return int(time.monotonic() / seconds)


@lru_cache(maxsize=1)
def _saved_endpoints(_period: int) -> dict[str, Hearer]:
    return everyone()


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Be the one relay of `place`; raises ConfigError when there is another."""
    fd = os.open(place / "relay.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 20, 0).decode()
            raise ConfigError(
                f"process {pid} relays already for {place}: one is enough, and two would only ask "
                "the server twice"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)
