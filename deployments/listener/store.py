"""What the listener heard: one JSON object a line, appended and never changed."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Heard:
    """One post: verified with its fields, or refused with the reason."""

    at: str  # ISO 8601, UTC
    id: str
    route: str
    verified: bool
    payload: dict[str, Any] | None = None
    why: str = ""


class Store:
    """A file of what was heard; several processes may read while one writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, heard: Heard) -> None:
        line = json.dumps(asdict(heard), ensure_ascii=False) + "\n"
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(fd)  # answered 2xx means kept

    @property
    def size(self) -> int:
        """Where the file ends now: `read(since=…)` gives what came after."""
        return self._path.stat().st_size if self._path.exists() else 0

    def read(self, since: int = 0) -> Iterator[Heard]:
        """All whole lines from the byte `since` on."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(since)
            for line in file:
                if line.endswith(b"\n"):
                    yield Heard(**json.loads(line))
