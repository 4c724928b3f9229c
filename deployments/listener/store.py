"""What the listener heard: one JSON object a line, appended and never changed.

    add() ──► queue ──► one thread: write a batch, fdatasync ──► every add() of the batch is done

One process writes, any number may read. A line that a killed writer left unfinished is passed over
by readers, and cut off by the next writer.
"""

import asyncio
import errno
import fcntl
import json
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError

MOST_AT_ONCE = 1000  # lines of one batch


@dataclass(frozen=True)
class Heard:
    """One post: verified with its fields, or refused with the reason."""

    at: str  # ISO 8601, UTC
    id: str
    route: str
    verified: bool
    payload: dict[str, Any] | None = None
    why: str = ""
    format: str = "seed"  # or "v1"
    seq: int | None = None
    attempt: int | None = None
    digest: str = ""  # of the body, SHA-256, where its content makes out a repeat

    def as_line(self) -> bytes:
        try:
            return json.dumps(vars(self), ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:  # half a surrogate pair, which JSON may hold and UTF-8 may not
            return json.dumps(vars(self)).encode() + b"\n"


class Store:
    """A file of what was heard, as readers see it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """Where the file ends now: `read(since=…)` gives what came after."""
        return self.path.stat().st_size if self.path.exists() else 0

    def read(self, since: int = 0) -> Iterator[Heard]:
        """All whole lines from the byte `since` on."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(since)
            for line in file:
                if line.endswith(b"\n"):
                    yield Heard(**json.loads(line))


class Writer:
    """Appends to a store; what `add` was awaited for is on the disk."""

    def __init__(self, store: Store) -> None:
        self._path = store.path
        self._fd: int | None = None
        self._end = 0  # what is sure to be whole
        self._thread: threading.Thread | None = None
        self._queue: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )

    def open(self) -> None:
        """Take the file, cut what a killed writer left unfinished, start the thread.

        Raises ConfigError when another process writes there, OSError when nobody can.
        """
        self._take()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    async def add(self, heard: Heard) -> None:
        """Returns when `heard` is kept; raises OSError when it could not be."""
        if self._thread is None:
            self.open()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((heard.as_line(), done))
        await asyncio.shield(done)

    def close(self) -> None:
        """Write what is waiting, and let go of the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _take(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError(
                f"another listener writes to {self._path}: stop it, or name another --store"
            ) from None
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._end = fd, _whole(fd)
        os.ftruncate(fd, self._end)
        folder = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(folder)  # the name of a new file, too, must outlive a power cut
        os.close(folder)

    def _work(self) -> None:
        last = False
        while not last:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < MOST_AT_ONCE:
                batch.append(self._queue.get())
            last = None in batch
            items = [item for item in batch if item is not None]
            error: OSError | None = None
            try:
                self._commit(b"".join(line for line, _ in items))
            except Exception as failed:  # whatever it is, nobody may wait for ever
                error = failed if isinstance(failed, OSError) else OSError(errno.EIO, str(failed))
            for loop in {done.get_loop() for _, done in items}:
                mine = [done for _, done in items if done.get_loop() is loop]
                with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                    loop.call_soon_threadsafe(_settle, mine, error)

    def _commit(self, lines: bytes) -> None:
        if not lines:
            return
        if self._fd is None or not _same(self._fd, self._path):
            self._take()  # somebody moved the file away
        assert self._fd is not None  # noqa: S101  # _take sees to it
        if os.fstat(self._fd).st_size != self._end:
            os.ftruncate(self._fd, self._end)  # half of what did not fit last time
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        os.fdatasync(self._fd)
        self._end += len(lines)


def _settle(waiting: list[asyncio.Future[None]], error: OSError | None) -> None:
    for done in waiting:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _whole(fd: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - (1 << 16))
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
