"""The deterministic key of a task: run, task name and index, the same at every try.

The index is the order in which the flow submits tasks of one name, so it does not depend on which
thread is quicker, and a retried flow that submits the same tasks gives them the same keys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from blocks.errors import ConfigError

_key: ContextVar[str | None] = ContextVar("penstock_key", default=None)


def make_key(run_id: str, task: str, index: int | str) -> str:
    return f"{run_id}/{task}/{index}"


def current_key() -> str:
    """The key of the task this is called from."""
    if (key := _key.get()) is None:
        raise ConfigError("there is no key here: only a task made by job_task has one")
    return key


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """Give what is called or submitted inside the key `key`."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)
