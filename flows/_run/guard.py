"""Stop what a flow started, however the flow ends.

Tasks in threads get no signal from Prefect: only the flow's main thread learns that a run was
cancelled. So the guard stands there, around the flow's body, and stops every program of the run.
"""

import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, overload
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from blocks._home import need_room
from blocks.errors import ConfigError
from flows._run import engine
from flows._run.cancelled import watched
from flows._run.process import PROCESS
from flows._run.progress import Progress, last_percent, run_artifact
from flows._run.published import settle
from flows._run.remote import ENDS
from flows._run.settings import Settings
from flows._run.storage import need_shared_results

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Run:
    """One guarded flow run, as the kernel knows it."""

    id: str
    root: str  # the outermost guarded run of this process: what it starts dies with that one
    progress: Progress
    settings: Settings  # the root's
    dry: bool = False  # only shows what it would do
    _indexes: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_index(self, task: str) -> int:
        """How many tasks of that name were submitted before this one."""
        with self._lock:
            self._indexes[task] += 1
            return self._indexes[task] - 1


_current: ContextVar[Run | None] = ContextVar("penstock_run", default=None)
_runs: dict[str, Run] = {}  # by flow run id, also after their end: the last hook asks for progress


def current() -> Run:
    """The run this is called from; raises ConfigError outside a guarded flow."""
    if (run := _current.get()) is None:
        raise ConfigError("no guarded run here: put @guard between @flow and the function")
    return run


def known(flow_run_id: str) -> Run | None:
    """A run that this process guards or guarded."""
    return _runs.get(flow_run_id)


@overload
def guard(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def guard(*, parts: int | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def guard(function: Callable[P, R] | None = None, *, parts: int | None = None) -> Any:
    """Put under `@flow`: whatever the run started is stopped when its body ends, in any way.

    `parts` is how many tasks and child runs the flow has, if that is known: its progress counts
    them. Works on sync and async flows.
    """
    if function is None:
        return functools.partial(guard, parts=parts)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            with running(parts):
                return await function(*args, **kwargs)

        return guarded_async

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        with running(parts):
            return function(*args, **kwargs)

    return guarded


@contextmanager
def running(parts: int | None = None) -> Iterator[Run]:
    """A guarded run for the time of the block; the outermost one is written down and watched."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    run_id = str(flow_run.id) if flow_run else f"local-{uuid4()}"
    above = _current.get()
    parameters = (context.parameters if context else None) or {}
    dry = above.dry if above else bool(parameters.get("dry_run"))
    run = Run(
        run_id,
        above.root if above else run_id,
        Progress(
            parts,
            reached=_reached(flow_run) if flow_run else 0,
            above=functools.partial(above.progress.set, run_id) if above else None,
            publish=None if dry else run_artifact(),
        ),
        above.settings if above else Settings(),
        dry,
    )
    _runs[run_id] = run
    PROCESS.open(run_id)
    ENDS.open(run_id)
    token = _current.set(run)
    try:
        with ExitStack() as stack:
            if above is None and not dry:
                need_shared_results(context)
                stack.enter_context(_outermost(run_id, flow_run.id if flow_run else None))
            stack.callback(settle, run_id)
            stack.push(functools.partial(_end_elsewhere, run_id, run.root))
            stack.callback(PROCESS.stop_all, run_id)
            yield run
        if above:
            above.progress.set(run_id, 1.0)
    finally:
        _current.reset(token)


def _stop_all(run_id: str) -> None:
    PROCESS.stop_all(run_id)
    ENDS.cancel(run_id, run_id)


def _end_elsewhere(
    run_id: str, root: str, _: object, error: BaseException | None, __: object
) -> None:
    ENDS.close(run_id, root, error)


def _reached(flow_run: FlowRun) -> int:
    """The percentage that an earlier attempt got to, here or in a process that is gone."""
    if earlier := known(str(flow_run.id)):
        return earlier.progress.percent
    return last_percent(flow_run.id) if flow_run.run_count > 1 else 0


@contextmanager
def _outermost(run_id: str, flow_run_id: UUID | None) -> Iterator[None]:
    need_room()
    mine = engine.begin(run_id)
    try:
        with ExitStack() as stack:
            if flow_run_id:
                stack.enter_context(watched(flow_run_id, functools.partial(_stop_all, run_id)))
            yield
    finally:
        PROCESS.close(run_id)
        engine.end(mine)
