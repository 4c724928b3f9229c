"""Where this installation keeps what it writes: one private folder."""

import os
import shutil
import tempfile
from pathlib import Path

from blocks.errors import ConfigError

# Bytes that must be free for a run to begin, for server and listener to start (they keep a database
# and logs), and for `penstock doctor` to be content.
ROOM, ROOM_TO_START, ROOM_TO_SPARE = 100 << 20, 200 << 20, 1 << 30


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
            f"{home()} has {free >> 20} MB of free disk, and Penstock needs {least >> 20} MB: "
            "make room, or set PENSTOCK_HOME to a folder on another disk"
        )


def runs_folder() -> Path:
    """A folder for each run, by its id."""
    return private(place() / "runs")


def run_folder(run_id: str) -> Path:
    """The records, logs and private files of one run."""
    return private(run_place(run_id))


def run_place(run_id: str) -> Path:
    """Where `run_folder` is or would be: nothing is made."""
    return place() / "runs" / run_id


def output_folder(run_id: str) -> Path:
    """Where a run's results go when its caller named no place."""
    return private(output_place(run_id))


def output_place(run_id: str) -> Path:
    """Where `output_folder` is or would be: nothing is made."""
    return place() / "output" / run_id


def reports_file() -> Path:
    """Where this installation's listener keeps every report that it got."""
    return private(home() / "listener") / "reports.jsonl"


def private(path: Path) -> Path:
    """Make `path` and what is missing above it, each 0700; what is there keeps its mode."""
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
