"""What a listener tells while it listens, and when it has heard enough.

heard ──► line() ──► stdout
      └─► Watch.hear() ──► stop, with what is still missing
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.listener import check
from deployments.listener.store import Heard

AFTER_END = 2.0  # seconds for which the results of a run that succeeded are waited for


@dataclass
class Watch:
    """Counts what came against what was asked for; repeats of one message count once."""

    least: int = 0  # verified messages
    ends: frozenset[str] = frozenset()  # runs whose end must be told
    until_ended: bool = False  # stop when all runs that were heard of have ended
    quiet: bool = False
    stop: Callable[[float], None] = lambda _: None  # called with the seconds to go on for

    _ids: set[tuple[str, str, str, str]] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _runs: set[str] = field(default_factory=set)
    _results: set[str] = field(default_factory=set)

    def hear(self, heard: Heard, new: bool = True) -> None:
        """Take note of a message that was answered; call `stop` when nothing is waited for."""
        if not self.quiet:
            self._print(line(heard, new))
        if not heard.verified:
            return
        nameless = "" if heard.id else str(heard.payload)
        self._ids.add((heard.format, heard.id, heard.route, nameless))
        self._ended |= check.ends(heard)
        if (run := check.run(heard)) is not None:
            self._runs.add(run)
            if check.kind(heard) == "results":
                self._results.add(run)
        if (self.least or self.ends) and not self.missing:
            self.stop(0)
        elif self.until_ended and self._runs and self._runs <= self._ended:
            self.stop(0 if self._runs <= self._results else AFTER_END)

    @property
    def missing(self) -> list[str]:
        """What was asked for and has not come, in words."""
        short = []
        if len(self._ids) < self.least:
            short.append(f"{len(self._ids)} verified messages came, {self.least} were expected")
        for run in sorted(self.ends - self._ended):
            short.append(f"no end of the run {run} was heard")
        return short

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            self.quiet = True  # who read along has gone; what comes is kept all the same
            print("nobody reads standard output any more", file=sys.stderr)


def line(heard: Heard, new: bool = True) -> str:
    """One message on one line: time (UTC), route, state, run, task, progress; or why it is none."""
    parts = [heard.at[11:23], f"{check.kind(heard):<8}"]
    if heard.verified:
        progress = check.field(heard.payload, "progress")
        parts += [
            f"{check.state(heard) or '-':<15}",
            f"run={check.run(heard)}" if check.run(heard) else "",
            f"task={check.task(heard)}" if check.task(heard) else "",
            f"{progress}%" if isinstance(progress, int | float) else "",
        ]
    else:
        parts.append(f"refused: {heard.why}")
    text = " ".join(part for part in parts if part) + ("" if new else " (repeat)")
    # Control characters of a stranger must not reach a terminal.
    return "".join(c if c.isprintable() else "?" for c in text).rstrip()
