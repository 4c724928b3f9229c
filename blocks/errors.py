"""Every error Penstock raises on purpose.

    PenstockError
    ├── ConfigError        settings or parameters that cannot work; nothing was started
    │   ├── BlockMissing   a block document that was never saved
    │   └── KeyUnusable    a signing or verifying key that is missing or broken
    ├── NotVerified        a message whose signature, shape or size is wrong
    ├── NotDelivered       a report that an endpoint did not take
    ├── JobFailed          a program ended, and not well
    │   ├── JobTimedOut    it was stopped at its time limit
    │   └── JobVanished    it is gone and nobody saw how
    ├── NotStopped         a run, or work elsewhere, that was asked to end and has not
    ├── Unreachable        an outside system that gave no answer, or none to be understood
    └── ServiceFailed      a local service (server, worker, listener) that did not start

This module imports nothing of ours, so that every other may import it.
"""


class PenstockError(Exception):
    """The base of them all; the message names the thing, the value and the fix."""


class ConfigError(PenstockError):
    """Settings or parameters that cannot work; raised before anything is started."""


class BlockMissing(ConfigError):
    """A block document that was never saved."""

    def __init__(self, kind: str, name: str, saved: list[str]) -> None:
        there = f"saved are: {', '.join(saved)}" if saved else "none is saved"
        super().__init__(
            f"no {kind} block is called {name!r} ({there}); "
            f"create it in the Prefect UI under Blocks, or with `penstock seed`"
        )
        self.kind, self.name, self.saved = kind, name, saved

    def __reduce__(self) -> tuple[type["BlockMissing"], tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.saved)


class KeyUnusable(ConfigError):
    """A signing or verifying key that is missing or broken."""


class NotVerified(PenstockError):
    """A message whose signature, shape or size is wrong."""


class NotDelivered(PenstockError):
    """A report that an endpoint did not take.

    `status` is the HTTP status it answered, if it did; `retry_after` the seconds it asked for;
    `final` that no further attempt can help.
    """

    def __init__(
        self,
        why: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        final: bool = False,
    ) -> None:
        super().__init__(why)
        self.status, self.retry_after, self.final = status, retry_after, final


class JobFailed(PenstockError):
    """A program ended, and not well; `tail` holds its last lines."""

    def __init__(self, name: str, why: str, tail: list[str] | None = None) -> None:
        self.name, self.why, self.tail = name, why, tail or []
        last = "".join(f"\n    {line}" for line in self.tail)
        super().__init__(f"{name} {why}" + (f"; its last lines:{last}" if last else ""))

    def __reduce__(self) -> tuple[type["JobFailed"], tuple[str, str, list[str]]]:
        # Exceptions pickle by their message alone, which would lose the evidence.
        return type(self), (self.name, self.why, self.tail)


class JobTimedOut(JobFailed):
    """A program that was stopped at its time limit."""


class JobVanished(JobFailed):
    """A program that is gone and nobody saw how."""


class NotStopped(PenstockError):
    """A run, or work elsewhere, that was asked to end and has not."""


class Unreachable(PenstockError):
    """An outside system that gave no answer, or none to be understood: it says nothing."""


class ServiceFailed(PenstockError):
    """A local service that did not start."""
