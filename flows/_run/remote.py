"""The contract between a task and an outside system, and the end of what was given to one.

Unlike a program of this machine, work elsewhere does not die with its engine. It is stopped when
its run was cancelled or has failed; after a crash it is left, and the next try adopts it.
"""

import importlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from prefect.logging import get_logger

from blocks.errors import ConfigError, NotStopped, Unreachable
from flows._run.api import api
from flows._run.noted import Notes, Remote, notes_here, notes_of

PLACES: dict[str, str] = {}  # place → module:class of its client, imported on use

LOST = 3  # looks in a row that do not find a piece of work, until it is called lost
STOPPING = 60.0  # seconds until work that was told to stop, and goes on, is called so
POLL = 0.2  # seconds between two looks at work that was told to stop: no system sends us an event
State = Literal["active", "succeeded", "failed", "stopped", "lost"]


@dataclass(frozen=True)
class Look:
    """What an outside system says of a piece of work; a state that we do not know is `active`."""

    state: State
    word: str  # as that system calls it
    detail: str = ""  # why it failed, if the system says so
    link: str | None = None

    @property
    def over(self) -> bool:
        return self.state != "active"


class Outside(Protocol):
    """A thin client of one outside system, for any thread.

    Raises Unreachable when there is no answer, or none that can be understood.
    """

    def find(self, tag: str) -> str | None:
        """The id of what carries the tag, running or ended; None when the system knows none."""

    def look(self, id: str) -> Look:
        """How it is now; `lost` when the system does not know it."""

    def stop(self, id: str) -> None:
        """Ask for its end; no error when it is over already."""


def client(place: str, where: dict[str, Any]) -> Outside:
    """The client of the system `place` at `where`; raises ConfigError for one unknown here."""
    if place not in PLACES:
        raise ConfigError(f"no place is called {place!r} in this version of Penstock")
    module, _, name = PLACES[place].partition(":")
    made: Outside = getattr(importlib.import_module(module), name)(**where)
    return made


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def over(notes: Notes, record: Remote, look: Look) -> Remote:
    """Note how a piece of work ended."""
    link = look.link or record.link
    return notes.put(replace(record, outcome=asdict(look), gone_at=now(), link=link))


def stop(notes: Notes, record: Remote) -> Remote:
    """End it, look until it is gone, note that; raises NotStopped after a minute.

    Nothing may be there: it was noted before it was submitted.
    """
    outside = client(record.place, record.where)
    deadline = time.monotonic() + STOPPING
    asked, why = False, "it is still there"
    while time.monotonic() < deadline:
        try:
            id = record.id or outside.find(record.tag)
            if id is None:
                return over(notes, record, Look("stopped", "never submitted"))
            if not asked:
                outside.stop(id)
                asked = True
            look = outside.look(id)
            if look.over:
                ended = (
                    look if look.state in ("succeeded", "failed") else Look("stopped", look.word)
                )
                return over(notes, replace(record, id=id), ended)
        except Unreachable as error:
            why = str(error)
        time.sleep(POLL)
    raise NotStopped(f"{record.program} ({record.id or record.tag}) was not stopped: {why}")


def stop_left(run_id: str, root: str | None = None) -> list[Remote]:
    """Stop all that a run started elsewhere and that is not known to be gone; returns it.

    `root` is the run that all of it began with, when that is another. Raises NotStopped after it
    has tried everything.
    """
    return _stop_all(notes_of(root or run_id), run_id)


def _stop_all(notes: Notes, run_id: str) -> list[Remote]:
    there = notes.open(run_id)
    if not there:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(there))) as pool:
        futures = [pool.submit(stop, notes, record) for record in there]
    failures = [error for one in futures if (error := one.exception())]
    if failures:
        raise NotStopped("; ".join(str(error) for error in failures)) from failures[0]
    return [one.result() for one in futures]


class Ends:
    """Which runs of this process are over, so that whoever watches work of theirs leaves off."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def of(self, run_id: str) -> threading.Event:
        with self._lock:
            return self._events.setdefault(run_id, threading.Event())

    def open(self, run_id: str) -> None:
        """The run begins, maybe once more."""
        self.of(run_id).clear()

    def close(self, run_id: str, root: str, error: BaseException | None) -> None:
        """The run's body has ended, with `error` or well: stop its work unless it only crashed."""
        self.of(run_id).set()
        notes = notes_here(root)
        if notes is None or not notes.open(run_id):
            return
        if error is None or isinstance(error, Exception) or cancelled(root) or cancelled(run_id):
            try:
                _stop_all(notes, run_id)
            except NotStopped as trouble:
                get_logger("penstock").error("%s; `penstock sweep` will try again", trouble)
        else:
            left = ", ".join(one.id or one.tag for one in notes.open(run_id))
            get_logger("penstock").warning("left, to be found again at the next try: %s", left)

    def cancel(self, run_id: str, root: str) -> None:
        """The run was cancelled: stop its work, wherever its threads are."""
        self.of(run_id).set()
        if notes := notes_here(root):
            _stop_all(notes, run_id)


ENDS = Ends()  # the one of this process


def cancelled(run_id: str) -> bool:
    """Whether the server calls the run cancelled; a server that cannot be asked has not said so."""
    try:
        state = api().read_flow_run(UUID(run_id)).state
    except Exception as error:
        get_logger("penstock").debug("it is not known whether %s was cancelled: %r", run_id, error)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def judge(root: str, keys: list[str], verdict: str) -> None:
    """Note what the task made of the newest outcomes: a failure raises the generation."""
    if notes := notes_here(root):
        for key in keys:
            record = notes.latest(key)
            if record and record.judged is None and record.outcome:
                notes.put(replace(record, judged=verdict))
