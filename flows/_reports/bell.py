"""The bell of an outbox: a named pipe that its courier reads and every hook writes to."""

import atexit
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Self


class Bell:
    """The courier's end."""

    def __init__(self, place: Path) -> None:
        # Open for writing, too: so it never reads as closed when the last ringer goes.
        self._fd = os.open(_pipe(place), os.O_RDWR | os.O_NONBLOCK)
        self._open = True

    def wait(self, seconds: float) -> bool:
        """Whether it rang within `seconds`."""
        heard, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        if heard:
            with suppress(BlockingIOError):
                while os.read(self._fd, 65536):
                    continue
        return bool(heard)

    def ring(self) -> None:
        if self._open:
            _ring(self._fd)

    def close(self) -> None:
        """From now on who rings knows that nobody is there."""
        self._open = False
        os.close(self._fd)


class Ringer:
    """A hook's end, kept open: as long as it rings a courier is there, and one call tells it.

    For a courier closes its own end before it looks into the outbox for the last time.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._fd: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def ring(self) -> bool:
        """Whether a courier hears it."""
        try:
            return self._fd is not None and _ring(self._fd)
        except BrokenPipeError:
            return False

    def renew(self) -> None:
        """Take hold of the pipe that a courier reads by now; where none does yet, the next time."""
        with self._lock, suppress(OSError):
            fd = os.open(_pipe(self._place), os.O_WRONLY | os.O_NONBLOCK)
            if self._fd is None:
                self._fd = fd
            else:  # another thread may be writing to the old one: its number is never free
                os.dup2(fd, self._fd, inheritable=False)
                os.close(fd)


class Waker:
    """Rings from a thread of its own, for who has no time for a call of the kernel."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        # Not an Event: its lock may be held by a thread that waits for the interpreter's.
        self._asked: SimpleQueue[None] = SimpleQueue()
        self._owed = False
        self._ringing = threading.Lock()
        threading.Thread(target=self._serve, name="bell", daemon=True).start()
        atexit.register(self._last, os.getpid())

    def wake(self) -> None:
        """Have it rung soon; before the process ends in any case, unless it is killed."""
        self._owed = True
        self._asked.put(None)

    def _serve(self) -> None:
        while True:
            self._asked.get()
            self._pay()

    def _last(self, pid: int) -> None:
        if os.getpid() == pid:  # a forked process has no such thread, and a lock that may be taken
            self._pay()

    def _pay(self) -> None:
        with self._ringing:
            if not self._owed:
                return
            self._owed = False  # first: who asks during the ring is owed another
            try:
                self._ring()
            except Exception:
                from prefect.logging import get_logger  # `penstock reports` does without Prefect

                # What is in the outbox is found by whoever rings next.
                get_logger("penstock").exception("no courier could be called")


def _ring(fd: int) -> bool:
    with suppress(BlockingIOError):  # it is full of rings: one more says nothing new
        os.write(fd, b"\n")
    return True


def _pipe(place: Path) -> Path:
    pipe = place / "bell"
    with suppress(FileExistsError):
        os.mkfifo(pipe, 0o600)
    return pipe
