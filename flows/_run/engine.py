"""Which process runs a run: written when it begins and when it ends, for any other to look at."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from blocks._home import run_folder, run_place, runs_folder, write_private
from flows._run.procfs import boot_id, start_ticks

FILE = "engine.json"


@dataclass(frozen=True)
class Engine:
    """The process that runs, or ran, the flow run `run`."""

    run: str
    host: str
    boot: str
    pid: int
    start: int | None  # clock ticks since boot
    began: str  # ISO 8601, UTC
    ended: str | None = None  # when the guard, or who noticed, saw the end of the work

    @property
    def here(self) -> bool:
        """Whether it is this machine's: of another's nothing can be said."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether the process lives; after the guard's end it still tells how the run ended."""
        return self.boot == boot_id() and start_ticks(self.pid) == self.start


def begin(run: str) -> Engine:
    """Write down that this process runs `run` from now on."""
    return _write(
        Engine(run, socket.gethostname(), boot_id(), os.getpid(), start_ticks(os.getpid()), _now())
    )


def end(engine: Engine) -> Engine:
    """Write down that it does no more, whoever noticed."""
    return _write(replace(engine, ended=_now()))


def engine_of(run: str) -> Engine | None:
    """What was last written about the engine of a run; None when nothing was."""
    try:
        return Engine(**json.loads((run_place(run) / FILE).read_text()))
    except FileNotFoundError:
        return None


def engines_here() -> Iterator[Engine]:
    """What was last written about every engine of this home and this machine."""
    for folder in sorted(runs_folder().glob("*")):
        engine = engine_of(folder.name)
        if engine and engine.here:
            yield engine


def runs_of_living_engines() -> list[UUID]:
    """The flow runs that a living process of this machine has begun and not ended."""
    found = []
    for engine in engines_here():
        with suppress(ValueError):  # a guarded call outside any flow
            if engine.alive and engine.ended is None:
                found.append(UUID(engine.run))
    return found


def _write(engine: Engine) -> Engine:
    write_private(run_folder(engine.run) / FILE, json.dumps(asdict(engine), indent=1))
    return engine


def _now() -> str:
    return datetime.now(UTC).isoformat()
