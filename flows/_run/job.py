"""The contract between a task and a place that runs programs, in plain data.

Job ──► Place.start ──► Record ──► Place.watch ──► Outcome
                          │
                          └── written down before anything waits: another process finds, stops
                              and reads what this one started
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A program to run: nothing in it but data, so that any place can take it."""

    key: str  # deterministic: the same work has the same key at every try
    argv: list[str]
    environment: dict[str, str] = field(repr=False)  # all of it; the place adds its marks
    cwd: Path
    root: str  # the run whose end is this job's end
    stdin: Path | None = None
    stdout: Path | None = None  # None: the job's log
    stderr: Path | None = None  # None: the job's log
    time_limit: float | None = None  # seconds
    grace: float = 2.0  # seconds between the polite signal and the last one


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    code: int | None  # exit code; None when a signal ended it, or nobody saw the end
    signal: str | None = None
    max_rss: int = 0  # bytes, the largest process
    cpu: float = 0.0  # seconds, with all children that were waited for
    seconds: float = 0.0
    timed_out: bool = False
    stopped: bool = False
    left: list[int] = field(default_factory=list)  # pids that could not be ended: another user's

    @property
    def ok(self) -> bool:
        return self.code == 0 and not (self.timed_out or self.stopped)

    def why(self) -> str:
        """The end in words, for an error."""
        if self.timed_out:
            return f"was stopped at its time limit after {self.seconds:.0f} s"
        if self.stopped:
            return "was stopped"
        if self.signal:
            peak = f", peak memory {self.max_rss / 1e6:.0f} MB"
            hint = " (out of memory?)" if self.signal == "SIGKILL" else ""
            return f"was killed by {self.signal}{hint}{peak}"
        return "vanished: nobody saw its end" if self.code is None else f"exited with {self.code}"


@dataclass(frozen=True)
class Record:
    """What was started and where, as written to disk; enough to stop it from any process."""

    place: str
    root: str
    key: str
    generation: int
    host: str
    folder: str
    program: str
    pid: int | None = None
    start: int | None = None  # the process's start, clock ticks since boot
    boot: str = ""  # the machine's boot id: after a reboot a pid means nothing
    shim_pid: int | None = None
    shim_start: int | None = None
    grace: float = 2.0
    outcome: dict[str, Any] | None = None
    judged: str | None = None  # "failed" or "done", once a task has read the outcome
    gone_at: str | None = None

    @property
    def mark(self) -> str:
        """What every process of this job carries in its environment."""
        return f"{self.key}#{self.generation}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Place(Protocol):
    """Somewhere programs run.

    1. `start` writes the record before it waits for anything, and is idempotent by key: a job that
       this engine started is adopted unless its task judged it failed; one that another engine
       left is stopped. Whatever is not adopted is started as a new generation.
    2. `find` needs the key alone, in any process.
    3. `watch` returns the outcome, calling `on_line` for each line of the log as it comes and
       `on_tick` several times a second; it may be called again, or elsewhere.
    4. `stop` returns when nothing of the job is left, and says so in the record.
    5. `logs` gives what the program has written so far, also after its end.
    """

    def start(self, job: Job) -> Record: ...
    def find(self, root: str, key: str) -> Record | None: ...
    def watch(self, record: Record, on_line: Any = None, on_tick: Any = None) -> Outcome: ...
    def stop(self, record: Record) -> Record: ...
    def logs(self, record: Record) -> Iterable[str]: ...
