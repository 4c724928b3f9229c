"""Run one piece of work on an outside system to its end: started once, found again, watched.

noted ──► submitted ──► its id noted ──► look, look, … ──► outcome
  └──► noted already: found by id or tag ──┘
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from threading import Event
from typing import Any

from prefect.logging import get_run_logger

from blocks.errors import JobFailed, JobTimedOut, JobVanished, Unreachable
from flows._run.guard import current
from flows._run.keys import program_key
from flows._run.noted import Notes, Remote, notes_of
from flows._run.remote import ENDS, LOST, Look, Outside, client, now, over, stop

BAD_ANSWERS = 10  # in a row, until the log says so; they are never a verdict


@dataclass(frozen=True)
class Work:
    """One piece of work for another machine."""

    place: str  # a key of PLACES
    where: dict[str, Any]  # what its client is made of: plain data, noted, so no secret
    program: str  # for people
    submit: Callable[[Remote], str]  # hands it over under the record's tag; returns its id
    every: float = 2.0  # seconds between two looks
    time_limit: float | None = None  # seconds since it was noted
    adopt_within: float = 24 * 3600.0  # seconds that it may go on alone after a crash
    on_look: Callable[[Look | None], object] = field(default=lambda look: None)  # None: no answer


def run_remote(work: Work) -> Remote:
    """See `work` to its end, whoever began it; returns its record with the outcome.

    What an earlier try of this task left, running or ended well, is taken on. Raises JobFailed with
    what the system says, JobTimedOut, or JobVanished when the system no longer knows it.
    """
    run, key = current(), program_key()
    notes = notes_of(run.root)
    record, adopted = _begin(work, notes, run.root, key)
    outside = client(record.place, record.where)
    stopped = ENDS.of(key.partition("/")[0])
    try:
        record = _submitted(work, notes, outside, record, adopted=adopted)
        record = _watch(work, notes, outside, record, stopped)
    except Exception:
        # A signal is no verdict; and when the run is over, the guard says what becomes of its work.
        record = notes.latest(key) or record
        if not record.gone_at and not stopped.is_set():
            stop(notes, record)
        raise
    return _verdict(record)


def tag_of(key: str, generation: int) -> str:
    """The same for the same work at every try; letters, digits and dashes, at most 63."""
    run, _, rest = key.partition("/")
    return f"penstock-{run[:36]}-{sha256(rest.encode()).hexdigest()[:10]}-{generation}"


def _begin(work: Work, notes: Notes, root: str, key: str) -> tuple[Remote, bool]:
    before = notes.latest(key)
    state = (before.outcome or {}).get("state") if before else None
    if before and before.judged != "failed" and state not in ("stopped", "lost"):
        return before, True
    generation = before.generation + 1 if before else 1
    record = Remote(
        place=work.place,
        root=root,
        key=key,
        generation=generation,
        tag=tag_of(key, generation),
        program=work.program,
        began=now(),
        where=work.where,
        adopt_within=work.adopt_within,
    )
    return notes.intend(record), False


def _submitted(
    work: Work, notes: Notes, outside: Outside, record: Remote, *, adopted: bool
) -> Remote:
    log = get_run_logger()
    if record.outcome:
        log.info("%s had ended: %s", record.program, record.outcome["word"])
        return record
    id = record.id
    if adopted and id is None:
        id = _asked(work, lambda: outside.find(record.tag), ENDS.of(record.root))
    if id:
        log.info("%s was found again: %s", record.program, id)
    else:
        id = work.submit(record)
        log.info("%s was submitted: %s", record.program, id)
    return record if id == record.id else notes.put(replace(record, id=id))


def _asked(work: Work, ask: Callable[[], str | None], stopped: Event) -> str | None:
    """The answer, however long it takes: to submit without it could start the work twice."""
    log = get_run_logger()
    bad = 0
    while True:
        try:
            return ask()
        except Unreachable as error:
            bad += 1
            if bad % BAD_ANSWERS == 1:
                log.warning(
                    "%s may have been started, and cannot be found: %s", work.program, error
                )
        if stopped.wait(work.every):
            raise JobFailed(work.program, "was not looked for: its run was stopped")


def _watch(work: Work, notes: Notes, outside: Outside, record: Remote, stopped: Event) -> Remote:
    log = get_run_logger()
    bad = missing = 0
    limit = _seconds_left(work, record)
    deadline = time.monotonic() + limit if limit is not None else None
    while record.outcome is None:
        look: Look | None = None
        try:
            look = outside.look(str(record.id))
            bad, missing = 0, missing + 1 if look.state == "lost" else 0
        except Unreachable as error:
            bad += 1
            if bad % BAD_ANSWERS == 0:
                log.warning("%d bad answers about %s, the last: %s", bad, record.id, error)
        if look and look.link and look.link != record.link:
            log.info("%s can be seen at %s", record.program, look.link)
            record = notes.put(replace(record, link=look.link))
        work.on_look(look)
        if look and look.over and (look.state != "lost" or missing >= LOST):
            return over(notes, record, look)
        if deadline is not None and time.monotonic() >= deadline:
            ended = stop(notes, record)
            why = f"was stopped at its time limit of {work.time_limit:.0f} s"
            raise JobTimedOut(record.program, f"{why} ({ended.id})")
        wait = work.every if deadline is None else min(work.every, deadline - time.monotonic())
        if stopped.wait(max(0.0, wait)):
            raise JobFailed(record.program, "was stopped with its run")
    return record


def _seconds_left(work: Work, record: Remote) -> float | None:
    if work.time_limit is None:
        return None
    gone = (datetime.now(UTC) - datetime.fromisoformat(record.began)).total_seconds()
    return max(0.0, work.time_limit - gone)


def _verdict(record: Remote) -> Remote:
    outcome = record.outcome or {}
    state, word, detail = outcome["state"], outcome["word"], outcome.get("detail")
    if state == "succeeded":
        return record
    if state == "lost":
        raise JobVanished(record.program, f"is unknown to {record.place} now ({record.id})")
    because = f": {detail}" if detail else ""
    how = "was stopped by somebody else" if state == "stopped" else f"ended as {word}"
    raise JobFailed(record.program, f"{how} ({record.id}){because}")
