"""Tell the end of every run that somebody has not heard of: after the loss of a machine, say.

runs that ended in the last days ──► labels say who has answered ──► the others hear it all again
"""

from typing import Any

from prefect import flow
from prefect.exceptions import ObjectNotFound

from blocks.errors import ConfigError
from flows import flow_hooks, guard, job_task
from flows._plan import show_rows
from flows._reports.again import Sweep, tell_again


@job_task
def tell_unheard(days: int) -> dict[str, Any]:
    """Put the history of each unheard run of the last `days` into the outbox of this machine."""
    return _swept(days, dry_run=False)


def _swept(days: int, *, dry_run: bool) -> dict[str, Any]:
    if days < 1:
        raise ConfigError(f"days is {days}: it must be 1 or more")
    sweep, runs = Sweep(), []
    for run, unheard in sweep.missed(days):
        told: dict[str, Any] = {"run": str(run.id), "name": run.name, "end": run.state_name}
        told["not_answered_by"] = unheard
        if not dry_run:
            try:
                told["changes"] = tell_again(run)
            except ObjectNotFound:
                continue  # it was deleted meanwhile
        runs.append(told)
    return {"dry_run": dry_run, "looked_at": sweep.seen, "told_again": runs}


@flow(**flow_hooks())
@guard(parts=1)
def redeliver(days: int = 3, dry_run: bool = False) -> dict[str, Any]:
    """Tell the end of every run that somebody has not heard of, and all that led to it.

    Args:
        days: How far to look back; the server forgets events after 7 days, runs never.
        dry_run: Only show which runs would be told again, and who has not answered.
    """
    if dry_run:
        shown = _swept(days, dry_run=True)
        show_rows("Would be told again", shown["told_again"])
        return shown
    told: dict[str, Any] = tell_unheard(days)
    return told
