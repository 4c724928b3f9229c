"""The place `process`: programs on this machine, which never outlive the engine.

start ──► shim ──► program        stop, find, watch: by the shim from the engine itself,
            └────► record         by the record alone from any other process
"""

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from blocks.errors import JobFailed
from flows._run import record as records
from flows._run.follower import Follower, OnLine
from flows._run.job import Job, Outcome, Record
from flows._run.procfs import (
    JOB_MARK,
    RUN_MARK,
    boot_id,
    descendants,
    in_session,
    marked,
    signal_all,
    start_ticks,
)
from flows._run.shim import PRESSED
from flows._run.shim_client import ShimClient

PLACE = "process"
LOG = "log"
TICK = 0.1  # seconds between looks at a log that grows

OnTick = Callable[[], object] | None


class ProcessPlace:
    """Keeps Place's five promises on this machine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed: set[str] = set()  # runs that were stopped: nothing of theirs starts any more
        self._shims: dict[str, ShimClient] = {}  # by root: what a root started ends with it alone
        self._mine: dict[str, _Mine] = {}  # by mark; whoever watches or stops may be any thread

    def start(self, job: Job) -> Record:
        if self._stopped(job):
            raise JobFailed(os.path.basename(job.argv[0]), "was not started: its run was stopped")
        before = records.latest(job.root, job.key)
        if before and before.judged != "failed":
            if self._known(before):
                return before
            before = self.stop(before)  # another engine's: it is dead or dying, and so is its job
        generation = before.generation + 1 if before else 1
        folder = records.job_folder(job.root, job.key, generation)
        with self._lock:
            shim = self._shims.get(job.root)
            if shim is None or not shim.alive:
                shim = self._shims[job.root] = ShimClient(job.root)
        record = records.write(
            Record(
                place=PLACE,
                root=job.root,
                key=job.key,
                generation=generation,
                host=socket.gethostname(),
                boot=boot_id(),
                folder=str(folder),
                program=os.path.basename(job.argv[0]),
                shim_pid=shim.pid,
                shim_start=shim.start_ticks,
                grace=job.grace,
            )
        )
        log = str(folder / LOG)
        name, answer = shim.start(
            {
                "argv": job.argv,
                "env": {**job.environment, RUN_MARK: job.root, JOB_MARK: record.mark},
                "cwd": str(job.cwd),
                "stdin": str(job.stdin) if job.stdin else None,
                "stdout": str(job.stdout or log),
                "stderr": str(job.stderr or log),
                "folder": str(folder),
                "limit": job.time_limit,
                "grace": job.grace,
                "mark": record.mark,
            }
        )
        if error := answer.get("error"):
            records.gone(record, None)
            records.judge(job.root, job.key, "failed")
            raise JobFailed(record.program, f"could not be started: {error}")
        record = replace(record, pid=answer["pid"], start=answer["start"])  # as the shim wrote
        with self._lock:
            self._mine[record.mark] = _Mine(shim, name, record)
        if self._stopped(job):
            self._ask_to_stop(record)  # stop_all came between
        return record

    def find(self, root: str, key: str) -> Record | None:
        return records.latest(root, key)

    def watch(self, record: Record, on_line: OnLine = None, on_tick: OnTick = None) -> Outcome:
        lines = Follower(Path(record.folder) / LOG, on_line)
        while (gone := self._gone(record, TICK)) is None:
            lines.advance()
            if on_tick:
                on_tick()
        lines.advance(last=True)
        if on_tick:
            on_tick()
        return Outcome(**(gone.outcome or {"code": None}))

    def stop(self, record: Record) -> Record:
        if self._known(record):
            self._ask_to_stop(record)
        else:
            _stop_from_record(record)
        while (gone := self._gone(record, TICK)) is None:
            continue
        return gone

    def logs(self, record: Record) -> Iterator[str]:
        path = Path(record.folder) / LOG
        if path.exists():
            with path.open(errors="replace") as file:
                yield from (line.rstrip("\n") for line in file)

    def open(self, run_id: str) -> None:
        """Let jobs of a run start: it may have been stopped here before, and is tried again."""
        self._closed.discard(run_id)

    def stop_all(self, run_id: str) -> None:
        """Stop every job that a run of this engine started, all at once, and let none follow."""
        self._closed.add(run_id)
        with self._lock:
            mine = list(self._mine.values())
        running = [
            one.record
            for one in mine
            if (one.record.key.startswith(f"{run_id}/") or one.record.root == run_id)
            and not one.shim.ended(one.name).done()
        ]
        for record in running:
            self._ask_to_stop(record)
        for record in running:
            self.stop(record)

    def close(self, root: str | None = None) -> None:
        """End the shim of a root, or of all, and whatever is still below it."""
        with self._lock:
            closing = [root] if root else list(self._shims)
            shims = [self._shims.pop(one) for one in closing if one in self._shims]
        for shim in shims:  # other roots start and stop programs meanwhile
            shim.close()
        with self._lock:
            self._mine = {mark: one for mark, one in self._mine.items() if one.shim not in shims}

    def _stopped(self, job: Job) -> bool:
        return not self._closed.isdisjoint({job.root, job.key.partition("/")[0]})

    def _known(self, record: Record) -> "_Mine | None":
        with self._lock:
            return self._mine.get(record.mark)

    def _ask_to_stop(self, record: Record) -> None:
        if mine := self._known(record):
            with suppress(JobFailed):  # the shim is gone: _gone sees to what it left
                mine.shim.stop(mine.name, record.grace)

    def _gone(self, record: Record, patience: float) -> Record | None:
        """The record once nothing of the job is left, or None if that takes over `patience` s."""
        if mine := self._known(record):
            try:
                event = mine.shim.ended(mine.name).result(timeout=patience)
            except NotYet:
                return None
            except JobFailed:
                with self._lock:
                    self._mine.pop(record.mark, None)  # somebody killed the shim
            else:
                if event["written"]:
                    return replace(record, outcome=event["outcome"], gone_at=event["gone_at"])
                return records.gone(record, event["outcome"], event["gone_at"])
        lives = _shim_lives(record)  # asked before reading: its last act is to write
        now = records.reread(record)
        if now.gone_at:
            return now
        if not lives:
            left = _stop_from_record(record)  # nobody else will
            return records.gone(now, asdict(Outcome(code=None, left=sorted(left))))
        time.sleep(patience)  # another process's child: its end is a file, not an event
        return None


@dataclass(frozen=True)
class _Mine:
    """A program that this process started."""

    shim: ShimClient
    name: str  # the shim's for it
    record: Record


def tail(record: Record, lines: int = 20) -> list[str]:
    """The last lines of a job's log."""
    return list(deque(ProcessPlace().logs(record), maxlen=lines))


def living(record: Record) -> set[int]:
    """Every process of a job that is alive now, seen from any process of this machine."""
    if record.boot != boot_id():
        return set()
    pids = marked(JOB_MARK, record.mark)
    if record.pid and record.start is not None and start_ticks(record.pid) == record.start:
        pids |= {record.pid} | descendants(record.pid) | in_session(record.pid)
    return pids


def _stop_from_record(record: Record) -> set[int]:
    """End the job's processes; returns those that could not be ended."""
    deadline = time.monotonic() + record.grace
    forbidden = signal_all(living(record), signal.SIGTERM)
    while (now := time.monotonic()) < deadline + PRESSED:
        if not (left := living(record) - forbidden):
            break
        if now >= deadline:
            forbidden |= signal_all(left, signal.SIGKILL)
        time.sleep(0.02)  # not our children: there is no event for their end
    return living(record)


def _shim_lives(record: Record) -> bool:
    if record.shim_pid is None or record.boot != boot_id():
        return False
    return start_ticks(record.shim_pid) == record.shim_start


PROCESS = ProcessPlace()  # the one of this process
