"""What a check has found, and how checks are run: side by side, and none can stop another."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from blocks.errors import PenstockError

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line: how good it is, what it is about, what was found, and what mends it."""

    level: Level
    about: str
    found: str
    fix: str = ""


Check = Callable[[], Iterable[Finding]]


def run_all(checks: Mapping[str, Check]) -> Iterator[Finding]:
    """What all checks find, in the order of the checks; they run at the same time."""
    with ThreadPoolExecutor() as pool:
        for findings in pool.map(lambda named: list(guarded(*named)), checks.items()):
            yield from findings


def guarded(about: str, check: Check) -> Iterator[Finding]:
    """What a check finds; its failure is a finding, too."""
    try:
        yield from check()
    except (PenstockError, OSError) as error:
        yield Finding("bad", about, str(error))
    except Exception as error:
        # Only the kind of the error: its text may hold an address with a password.
        yield Finding("bad", about, f"could not be checked: {type(error).__name__}")
