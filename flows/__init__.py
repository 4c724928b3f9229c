"""Work: one public file per kind of job. The names here are what a flow of your own needs."""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# `flows` is a name other people use too: ours and theirs may stand side by side on sys.path.
__path__ = extend_path(__path__, __name__)

if TYPE_CHECKING:
    from flows._reports.hooks import flow_hooks
    from flows._run.guard import guard
    from flows._task import job_task

__all__ = ["flow_hooks", "guard", "job_task"]

_WHERE = {
    "flow_hooks": "flows._reports.hooks",
    "guard": "flows._run.guard",
    "job_task": "flows._task",
}


def __getattr__(name: str) -> Any:
    # Lazy (PEP 562): a program that only needs flows._notebook.execute must not import Prefect.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
