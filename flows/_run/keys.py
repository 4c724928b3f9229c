"""The deterministic keys of tasks and their programs: the same at every try.

    run / task name / index [ / 2, 3, … for the programs of the task after its first ]

The index is the order in which the flow submits tasks of one name, so it does not depend on which
thread is quicker, and a retried flow that submits the same tasks gives them the same keys.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from blocks.errors import ConfigError

_key: ContextVar[str | None] = ContextVar("penstock_key", default=None)
_programs: ContextVar[list[str] | None] = ContextVar("penstock_programs", default=None)
_lock = threading.Lock()


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


@contextmanager
def attempt() -> Iterator[list[str]]:
    """One try of the running task; gives the keys of its programs, as `program_key` hands them out.

    Counting begins anew at each try, so a program has the same key at all of them.
    """
    keys: list[str] = []
    token = _programs.set(keys)
    try:
        yield keys
    finally:
        _programs.reset(token)


def program_key() -> str:
    """The key for the next program of the task: the task's own for the first one."""
    key, keys = current_key(), _programs.get()
    if keys is None:
        return key
    with _lock:
        keys.append(f"{key}/{len(keys) + 1}" if keys else key)
        return keys[-1]
