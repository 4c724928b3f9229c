"""Run one command to its end: files, start, log, progress, failure, clean-up."""

import json
import math
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from blocks._command import Command
from blocks._home import run_folder, write_private
from blocks.errors import JobFailed, JobTimedOut, JobVanished
from flows._run.environment import environment
from flows._run.guard import current
from flows._run.job import Job, Outcome, Place
from flows._run.keys import current_key, program_key
from flows._run.mask import masker
from flows._run.process import PROCESS
from flows._run.published import Published

TAIL = 20  # how many of a program's last lines an error shows


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder for the files of the task this is called from, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="job-", dir=run_folder(current().root)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reported(path: Path) -> dict[str, Any]:
    """The JSON object that a program left in the file `path` as its result; {} for none.

    Raises JobFailed when what is there is no JSON object.
    """
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise JobFailed("the program", f"wrote a result that is no JSON: {error}") from None
    if not isinstance(result, dict):
        raise JobFailed("the program", f"wrote a {type(result).__name__} as result, not an object")
    return result


def task_progress(about: str) -> Callable[[float], None]:
    """For the running task: a function that takes the share done (0..1) and tells run and UI."""
    run, key, context = current(), current_key(), TaskRunContext.get()
    artifact = None
    if context and context.task_run.flow_run_id:
        artifact = Published(context.task_run.flow_run_id, context.task_run.id, about)
    best = 0.0

    def tell(share: float) -> None:
        nonlocal best
        best = max(best, min(1.0, share))
        run.progress.set(key, best)
        if artifact:
            artifact.show(math.floor(100 * best), now=best == 1.0)

    return tell


def run_command(
    command: Command,
    *,
    folder: Path,
    name: str,
    time_limit: float | None = None,
    on_tick: Callable[[], object] | None = None,
    place: Place = PROCESS,
) -> Outcome:
    """Run `command` to its end; every line goes to the run's log as it comes, secrets masked.

    `folder` is what `scratch()` gave: the command's files are written there. Raises JobTimedOut,
    JobVanished or JobFailed with the last lines.
    """
    mask = masker([*command.secrets.values(), *command.masked])
    log = get_run_logger()
    last: deque[str] = deque(maxlen=TAIL)

    def on_line(line: str) -> None:
        line = mask(line)
        last.append(line)
        log.info("%s", line)

    for file_name, text in command.files.items():
        write_private(folder / file_name, text)
    run = current()
    record = place.start(
        Job(
            key=program_key(),
            argv=command.argv,
            environment=environment(command),
            cwd=Path.cwd(),
            root=run.root,
            time_limit=time_limit,
        )
    )
    try:
        outcome = place.watch(record, on_line, on_tick)
    except BaseException:
        place.stop(record)  # before the caller takes away its folder
        raise
    if outcome.left:
        pids = ", ".join(map(str, outcome.left))
        log.warning("%s left processes that could not be ended: %s", name, pids)
    if outcome.ok:
        return outcome
    kind = JobFailed
    if outcome.timed_out:
        kind = JobTimedOut
    elif outcome.code is None and outcome.signal is None:
        kind = JobVanished
    raise kind(name, outcome.why(), list(last))
