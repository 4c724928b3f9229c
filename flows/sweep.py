"""Stop what runs started elsewhere and nobody will take on any more.

tables of the runs ──► work that is not gone ──► its run is over ──► stopped over there
"""

from typing import Any

from prefect import flow

from flows import flow_hooks, guard, job_task
from flows._plan import show_rows
from flows._run.sweep import sweep_elsewhere


@job_task
def stop_left_work() -> dict[str, Any]:
    """Stop it all; what could not be stopped is named, and tried again by the next sweep."""
    return _swept(dry_run=False)


def _swept(*, dry_run: bool) -> dict[str, Any]:
    left = [
        {
            "program": one.work.program,
            "place": one.work.place,
            "id": one.work.id or one.work.tag,
            "run": one.work.root,
            "run_ended": one.run,
            "trouble": one.trouble,
        }
        for one in sweep_elsewhere(dry_run=dry_run)
    ]
    return {"dry_run": dry_run, "left": left}


@flow(**flow_hooks())
@guard(parts=1)
def sweep(dry_run: bool = False) -> dict[str, Any]:
    """Stop what runs started elsewhere and nobody will take on any more.

    Args:
        dry_run: Only show what would be stopped.
    """
    if dry_run:
        shown = _swept(dry_run=True)
        show_rows("Would be stopped", shown["left"])
        return shown
    stopped: dict[str, Any] = stop_left_work()
    return stopped
