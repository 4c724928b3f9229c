"""Where this installation keeps what it writes: one private folder."""

import os
import shutil
import tempfile
from pathlib import Path

from blocks.errors import ConfigError

ROOM = 100 << 20  # bytes that must be free for a run to begin


def place() -> Path:
    """`$PENSTOCK_HOME`, else `.penstock` in the working directory; it may not be there yet."""
    return Path(os.environ.get("PENSTOCK_HOME") or ".penstock").resolve()


def home() -> Path:
    """The place, made 0700 when missing."""
    return private(place())


def need_room(least: int = ROOM) -> None:
    """Raise ConfigError unless `least` bytes are free where we write: a full disk loses records."""
    free = shutil.disk_usage(home()).free
    if free < least:
        raise ConfigError(
            f"only {free >> 20} MB are free at {home()}, at least {least >> 20} MB are needed: "
            "make room, or name another place in PENSTOCK_HOME"
        )


def runs_folder() -> Path:
    """A folder for each run, by its id."""
    return private(home() / "runs")


def run_folder(run_id: str) -> Path:
    """The records, logs and private files of one run."""
    return private(runs_folder() / run_id)


def output_folder(run_id: str) -> Path:
    """Where a run's results go when its caller named no place."""
    return private(private(home() / "output") / run_id)


def private(path: Path) -> Path:
    """Make `path` and what is above it; a folder made here is 0700."""
    if not path.parent.exists():
        private(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a 0600 file by rename: a reader sees the old text or the new one, never half."""
    fd, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(fd, mode)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
