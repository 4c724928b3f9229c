"""One process's file in the outbox: a line is on disk without a call of the kernel.

A hook holds Python's interpreter lock, and each call of the kernel lets go of it: in a flow whose
tasks compute, the hook gets it back five milliseconds later. So pages are asked for ahead, and a
line is copied into them: they are the kernel's from then on, and outlive a SIGKILL.

file: line \\n line \\n … 0 0 0     (readers end at the first zero, see `outbox.take`)
"""

import fcntl
import mmap
import os
from pathlib import Path

MOST_AHEAD = 1 << 18  # bytes asked for at once; at first a page, then as much again as there is


class Writer:
    """The file, locked for the life of its process: so the courier knows when it will not grow."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0  # bytes of lines: what follows them is room
        draft = path.with_suffix(".new")  # the courier would remove one that is not locked yet
        self._fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._pages: mmap.mmap | None = None
        self._room = 0
        draft.rename(path)

    def append(self, lines: bytes) -> None:
        """All of them, or none and OSError. A reader sees the last line when it is whole."""
        end = self.size + len(lines)
        if end > self._room:
            self._grow(end)
        if self._pages is not None:
            self._pages[self.size : end] = lines
        self.size = end

    def _grow(self, end: int) -> None:
        """Room for `end` bytes, and more where the disk has it: a full one says so here."""
        needed = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
        ahead = min(max(self._room, mmap.PAGESIZE), MOST_AHEAD)
        try:
            self._map(max(needed, self._room + ahead))
        except OSError:
            self._map(needed)

    def _map(self, room: int) -> None:
        try:
            os.posix_fallocate(self._fd, self._room, room - self._room)
            pages = mmap.mmap(self._fd, room)
        except OSError:
            os.ftruncate(self._fd, self._room)  # a disk may have given a part of it
            raise
        if self._pages is not None:
            self._pages.close()
        self._pages, self._room = pages, room
