"""Read a log that grows: each line once, as soon as it is whole."""

from collections.abc import Callable
from pathlib import Path

OnLine = Callable[[str], None] | None


class Follower:
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
