"""Where this installation keeps what it writes: one private folder."""

import os
from pathlib import Path


def home() -> Path:
    """`$PENSTOCK_HOME`, else `.penstock` in the working directory; made 0700 when missing."""
    return private(Path(os.environ.get("PENSTOCK_HOME") or ".penstock").resolve())


def run_folder(run_id: str) -> Path:
    """The records, logs and private files of one run."""
    return private(private(home() / "runs") / run_id)


def output_folder(run_id: str) -> Path:
    """Where a run's results go when its caller named no place."""
    return private(private(home() / "output") / run_id)


def private(path: Path) -> Path:
    """Make `path` and what is above it; a folder made here is 0700."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a 0600 file by rename: a reader sees the old text or the new one, never half."""
    draft = path.with_name(path.name + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
