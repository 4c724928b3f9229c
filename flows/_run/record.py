"""Records on disk: a folder for each program that was started, every file written by rename.

`record.json` is never changed. What became of the program is added beside it, a file for each
fact: `started.json` and `ended.json` by the shim, which saw it, `judged.json` by the task. An end
that the shim could not write, or did not live to see, is added by whoever notices.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from blocks._home import private, run_folder, run_place, write_private
from flows._run.job import Record
from flows._run.shim import ENDED, STARTED

RECORD = "record.json"
JUDGED = "judged.json"


def job_folder(root: str, key: str, generation: int) -> Path:
    """The private folder of one job: readable, unique for any key, never too long a name."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", key.partition("/")[2] or key).strip("-.")[:60]
    digest = sha256(key.encode()).hexdigest()[:8]
    return run_folder(root) / f"{readable}-{digest}.{generation}"


def write(record: Record) -> Record:
    """Write down what is about to be started."""
    write_private(private(Path(record.folder)) / RECORD, json.dumps(record.as_dict(), indent=1))
    return record


def gone(record: Record, outcome: dict[str, Any] | None, at: str | None = None) -> Record:
    """Add that nothing of the job is left, and how it ended."""
    at = record.gone_at or at or datetime.now(UTC).isoformat(timespec="seconds")
    return _add(record, ENDED, outcome=outcome, gone_at=at)


def reread(record: Record) -> Record:
    """The record as it is on disk now."""
    return _read(Path(record.folder)) or record


def latest(root: str, key: str) -> Record | None:
    """The record of the newest generation of `key`; None when it was never started."""
    found = None
    generation = 1
    while record := _read(job_folder(root, key, generation)):
        found, generation = record, generation + 1
    return found


def of_run(root: str) -> Iterator[Record]:
    """Every record of a run."""
    for path in sorted(run_place(root).glob(f"*/{RECORD}")):
        if record := _read(path.parent):
            yield record


def judge(root: str, keys: Iterable[str], verdict: str) -> None:
    """Write down what the task made of the newest outcomes: a failure raises the generation."""
    for key in keys:
        record = latest(root, key)
        if record and record.judged is None:
            _add(record, JUDGED, judged=verdict)


def _add(record: Record, name: str, **facts: Any) -> Record:
    write_private(Path(record.folder) / name, json.dumps(facts))
    return replace(record, **facts)


def _read(folder: Path) -> Record | None:
    try:
        known = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        return None
    for name in (STARTED, ENDED, JUDGED):
        with suppress(FileNotFoundError):
            known |= json.loads((folder / name).read_text())
    return Record(**known)
