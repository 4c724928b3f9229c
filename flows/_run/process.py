"""The place `process`: programs on this machine, which never outlive the engine.

start ──► shim ──► program        stop, find, watch: by the shim from the engine itself,
            └────► exit file      by the record alone from any other process
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
from dataclasses import asdict
from functools import cache
from json import loads
from pathlib import Path
from typing import Any

from blocks.errors import JobFailed
from flows._run import record as records
from flows._run.job import Job, Outcome, Record
from flows._run.procfs import descendants, in_session, marked, signal_all, start_ticks
from flows._run.shim_client import ShimClient

PLACE = "process"
LOG, EXIT = "log", "exit.json"
TICK = 0.1  # seconds between looks at a log that grows

OnLine = Callable[[str], None] | None
OnTick = Callable[[], object] | None


class ProcessPlace:
    """Keeps Place's five promises on this machine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shim: ShimClient | None = None
        self._mine: dict[
            str, tuple[ShimClient, str, Record]
        ] = {}  # by mark; the shim's name for it

    def start(self, job: Job) -> Record:
        before = records.latest(job.root, job.key)
        if before and before.judged != "failed":
            if before.mark in self._mine:
                return before
            before = self.stop(before)  # another engine's: it is dead or dying, and so is its job
        generation = before.generation + 1 if before else 1
        folder = records.job_folder(job.root, job.key, generation)
        with self._lock:
            if self._shim is None or not self._shim.alive:
                self._shim = ShimClient(job.root)
            shim = self._shim
        record = records.write(
            Record(
                place=PLACE,
                root=job.root,
                key=job.key,
                generation=generation,
                host=socket.gethostname(),
                boot=_boot_id(),
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
                "env": {**job.environment, "PENSTOCK_RUN": job.root, "PENSTOCK_JOB": record.mark},
                "cwd": str(job.cwd),
                "stdin": str(job.stdin) if job.stdin else None,
                "stdout": str(job.stdout or log),
                "stderr": str(job.stderr or log),
                "exit": str(folder / EXIT),
                "limit": job.time_limit,
                "grace": job.grace,
                "mark": record.mark,
            }
        )
        if error := answer.get("error"):
            records.gone(record, None)
            records.judge(job.root, job.key, "failed")
            raise JobFailed(record.program, f"could not be started: {error}")
        record = records.amend(record, pid=answer["pid"], start=answer["start"])
        self._mine[record.mark] = (shim, name, record)
        return record

    def find(self, root: str, key: str) -> Record | None:
        return records.latest(root, key)

    def watch(self, record: Record, on_line: OnLine = None, on_tick: OnTick = None) -> Outcome:
        lines = _Follower(Path(record.folder) / LOG, on_line)
        while (end := self._end(record, TICK)) is None:
            lines.advance()
            if on_tick:
                on_tick()
        lines.advance(last=True)
        if on_tick:
            on_tick()
        records.gone(record, end)
        return Outcome(**end)

    def stop(self, record: Record) -> Record:
        if record.mark in self._mine:
            self._ask_to_stop(record)
        else:
            _stop_from_record(record)
        while (end := self._end(record, TICK)) is None:
            continue
        return records.gone(record, end)

    def logs(self, record: Record) -> Iterator[str]:
        path = Path(record.folder) / LOG
        if path.exists():
            with path.open(errors="replace") as file:
                yield from (line.rstrip("\n") for line in file)

    def stop_all(self, run_id: str) -> None:
        """Stop every job that a run of this engine started, all at once: the guard's last act."""
        running = [
            record
            for mark, (shim, name, record) in list(self._mine.items())
            if mark.startswith(f"{run_id}/") and not shim.ended(name).done()
        ]
        for record in running:
            self._ask_to_stop(record)
        for record in running:
            self.stop(record)

    def close(self) -> None:
        """End the shim, and whatever is still below it."""
        with self._lock:
            if self._shim:
                self._shim.close()
            self._shim = None
            self._mine.clear()

    def _ask_to_stop(self, record: Record) -> None:
        shim, name, _ = self._mine[record.mark]
        with suppress(JobFailed):  # the shim is gone: _end sees to what it left
            shim.stop(name, record.grace)

    def _end(self, record: Record, patience: float) -> dict[str, Any] | None:
        """How the job ended, or None if it has not within `patience` seconds."""
        if record.mark in self._mine:
            shim, name, _ = self._mine[record.mark]
            try:
                return shim.ended(name).result(timeout=patience)
            except NotYet:
                return None
            except JobFailed:
                del self._mine[record.mark]  # somebody killed the shim
        end = _exit_file(record)
        if end is None and not _shim_lives(record):
            _stop_from_record(record)  # nobody else will
            end = _exit_file(record) or asdict(Outcome(code=None))
        if end is None:
            time.sleep(patience)  # another process's child: its end is a file, not an event
        return end


class _Follower:
    """Hands out the lines of a growing file."""

    def __init__(self, path: Path, on_line: OnLine) -> None:
        self._path, self._on_line = path, on_line
        self._offset = 0
        self._rest = b""

    def advance(self, *, last: bool = False) -> None:
        if self._on_line is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while chunk := file.read(1 << 20):
                self._offset += len(chunk)
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    self._on_line(line.decode(errors="replace").rstrip("\r"))
        if last and self._rest:
            self._on_line(self._rest.decode(errors="replace"))
            self._rest = b""


def tail(record: Record, lines: int = 20) -> list[str]:
    """The last lines of a job's log."""
    return list(deque(ProcessPlace().logs(record), maxlen=lines))


def living(record: Record) -> set[int]:
    """Every process of a job that is alive now, seen from any process of this machine."""
    if record.boot != _boot_id():
        return set()
    pids = marked("PENSTOCK_JOB", record.mark)
    if record.pid and record.start is not None and start_ticks(record.pid) == record.start:
        pids |= {record.pid} | descendants(record.pid) | in_session(record.pid)
    return pids


def _stop_from_record(record: Record) -> None:
    deadline = time.monotonic() + record.grace
    signal_all(living(record), signal.SIGTERM)
    while left := living(record):
        if time.monotonic() >= deadline:
            signal_all(left, signal.SIGKILL)
        time.sleep(0.02)  # not our children: there is no event for their end


def _shim_lives(record: Record) -> bool:
    if record.shim_pid is None or record.boot != _boot_id():
        return False
    return start_ticks(record.shim_pid) == record.shim_start


def _exit_file(record: Record) -> dict[str, Any] | None:
    try:
        end: dict[str, Any] = loads((Path(record.folder) / EXIT).read_text())
    except FileNotFoundError:
        return None
    return end


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


PROCESS = ProcessPlace()  # one shim per engine process
