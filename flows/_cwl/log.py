"""cwltool's own log: into the run's log, and its complaints into the error."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging import get_run_logger

COMPLAINTS = 20  # how many of its last warnings an error shows


@contextmanager
def cwltool_log() -> Iterator[deque[str]]:
    """While the block runs, cwltool logs into the run; gives its last warnings and errors."""
    logger = logging.getLogger("cwltool")
    complaints: deque[str] = deque(maxlen=COMPLAINTS)
    into_run = get_run_logger()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            # It tells each step's start, too: those are tasks of the run already.
            into_run.log(record.levelno if record.levelno > logging.INFO else logging.DEBUG, text)
            if record.levelno >= logging.WARNING:
                complaints.append(text)

    before = logger.handlers[:], logger.propagate
    logger.handlers, logger.propagate = [Handler()], False
    try:
        yield complaints
    finally:
        logger.handlers, logger.propagate = before
