"""Records on disk: one JSON file for each program that was started, written by rename."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from blocks._home import home, private, run_folder, write_private
from flows._run.job import Record

RECORD = "record.json"


def job_folder(root: str, key: str, generation: int) -> Path:
    """The private folder of one job: readable, unique for any key, never too long a name."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", key.partition("/")[2] or key).strip("-.")[:60]
    digest = sha256(key.encode()).hexdigest()[:8]
    return run_folder(root) / f"{readable}-{digest}.{generation}"


def write(record: Record) -> Record:
    write_private(private(Path(record.folder)) / RECORD, json.dumps(record.as_dict(), indent=1))
    return record


def amend(record: Record, **changes: Any) -> Record:
    """Write and return `record` with `changes`."""
    return write(replace(record, **changes))


def gone(record: Record, outcome: dict[str, Any] | None) -> Record:
    """Write that nothing of the job is left, and how it ended."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return amend(record, outcome=outcome, gone_at=record.gone_at or at)


def reread(record: Record) -> Record:
    """The record as it is on disk now."""
    return _read(Path(record.folder) / RECORD) or record


def latest(root: str, key: str) -> Record | None:
    """The record of the newest generation of `key`; None when it was never started."""
    found = None
    generation = 1
    while record := _read(job_folder(root, key, generation) / RECORD):
        found, generation = record, generation + 1
    return found


def of_run(root: str) -> Iterator[Record]:
    """Every record of a run."""
    for path in sorted((home() / "runs" / root).glob(f"*/{RECORD}")):
        if record := _read(path):
            yield record


def judge(root: str, key: str, verdict: str) -> None:
    """Write down what the task made of the newest outcome: only a failure raises the generation."""
    record = latest(root, key)
    if record and record.judged is None:
        amend(record, judged=verdict)


def _read(path: Path) -> Record | None:
    try:
        return Record(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
