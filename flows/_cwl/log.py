"""cwltool's own log: into the log of the run that it works for, its complaints into the error."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from prefect.logging import get_run_logger

COMPLAINTS = 20  # how many of its last warnings an error shows

_log: ContextVar[tuple[Any, deque[str]] | None] = ContextVar("penstock_cwl_log", default=None)


@contextmanager
def cwltool_log() -> Iterator[deque[str]]:
    """While the block runs, cwltool logs into the run; gives its last warnings and errors."""
    complaints: deque[str] = deque(maxlen=COMPLAINTS)
    token = _log.set((get_run_logger(), complaints))
    try:
        yield complaints
    finally:
        _log.reset(token)


def _into_run(record: logging.LogRecord) -> bool:
    """A filter: what belongs to a run goes there, and everything else where it always went."""
    if (found := _log.get()) is None:
        return True
    into_run, complaints = found
    text = record.getMessage()
    # It tells each step's start, too: those are tasks of the run already.
    into_run.log(record.levelno if record.levelno > logging.INFO else logging.DEBUG, text)
    if record.levelno >= logging.WARNING:
        complaints.append(text)
    return False


logging.getLogger("cwltool").addFilter(_into_run)
