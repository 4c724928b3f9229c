"""`job_task`: the one kind of task Penstock has, so that no end of a task goes unseen.

submit ──► key ──► hooks: running, completed, failed
             ├───► each failed attempt with retries left (Prefect calls no hook for it)
             ├───► a task that never started because another failed (no hook either)
             └───► a task that died of a signal (nor for that)
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture

from blocks._changes import HOOKED
from blocks.errors import ConfigError
from flows._reports import hooks
from flows._run import record, remote
from flows._run.guard import current
from flows._run.keys import attempt, current_key, keyed, make_key

F = TypeVar("F", bound=Callable[..., Any])
KeyFunction = Callable[..., str]


class JobTask(Task[..., Any]):
    """A task that reports every end and keys its result by run, name and index, never by inputs."""

    def __init__(self, fn: Callable[..., Any], *, key: KeyFunction | None = None, **options: Any):
        self._key_function = key
        every = {"retry_condition_fn": None, **dict.fromkeys(hooks.task_hooks()), **options}
        super().__init__(
            _judged(fn),
            **{
                "persist_result": True,
                "result_serializer": hooks.SERIALIZER,
                "cache_key_fn": _cache_key,
                "task_run_name": _run_name,
                **_equipped(every),
            },
        )
        self.task_key += HOOKED

    def with_options(self, **options: Any) -> "JobTask":
        changed = super().with_options(**_equipped(options))
        changed.__class__ = JobTask  # Prefect makes a plain Task here, whatever it was asked of
        assert isinstance(changed, JobTask)  # noqa: S101 - for the type checker alone
        changed._key_function = self._key_function
        changed.task_key += HOOKED
        return changed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self._key(args, kwargs)
        if self.isasync:
            return self._awaited(key, args, kwargs)
        with keyed(key):
            return super().__call__(*args, **kwargs)

    async def _awaited(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The key was taken when the task was called; it holds while it is awaited."""
        with keyed(key):
            return await super().__call__(*args, **kwargs)

    def submit(  # type: ignore[override]  # Prefect's has eight overloads
        self, *args: Any, **kwargs: Any
    ) -> PrefectFuture[Any]:
        with keyed(self._key(args, kwargs)):
            future: PrefectFuture[Any] = super().submit(*args, **kwargs)
            tell = functools.partial(hooks.on_not_ready, current().id, _run_name())
        future.add_done_callback(tell)
        return future

    def map(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError(
            f"{self.name}.map() gives its runs no key of their own: call submit() in a loop"
        )

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        run = current()
        if self._key_function:
            options = {"wait_for", "return_state"}
            given = {name: value for name, value in kwargs.items() if name not in options}
            return make_key(run.id, self.name, self._key_function(*args, **given))
        return make_key(run.id, self.name, run.next_index(self.name))


@overload
def job_task(function: Callable[..., Any], /) -> JobTask: ...
@overload
def job_task(
    *, key: KeyFunction | None = None, **options: Any
) -> Callable[[Callable[..., Any]], JobTask]: ...
def job_task(function: Any = None, *, key: KeyFunction | None = None, **options: Any) -> Any:
    """Like Prefect's `@task`, with its options; for use inside a flow that has `@guard`.

    The function may be async. Raises ConfigError for a generator, whose end nobody could judge.

    `key` is a function of the task's arguments that names this piece of work within the run;
    without it the order of submission does. A finished task of a retried run is not run again.
    """
    if function is None:
        return functools.partial(job_task, key=key, **options)
    return JobTask(function, key=key, **options)


def _equipped(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with our hooks before theirs, and their retry condition observed."""
    ours: dict[str, Any] = {**hooks.task_hooks()}
    equipped = dict(options)
    for name in ours.keys() & options.keys():
        equipped[name] = [*ours[name], *(options[name] or [])]
    if "retry_condition_fn" in options:
        equipped["retry_condition_fn"] = _observed(options["retry_condition_fn"])
    return equipped


def _judged(fn: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigError(f"{fn.__name__} is a generator: a job_task must return its result")
    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def body_async(*args: Any, **kwargs: Any) -> Any:
            with _judging():
                return await fn(*args, **kwargs)

        return body_async

    @functools.wraps(fn)
    def body(*args: Any, **kwargs: Any) -> Any:
        with _judging():
            return fn(*args, **kwargs)

    return body


@contextmanager
def _judging() -> Iterator[None]:
    """Around the body: say how it ended before Prefect does, and judge what was started."""
    run, key = current(), current_key()
    with attempt() as programs:
        try:
            yield
        except Exception:
            _judge(run.root, programs, "failed")
            raise
        except BaseException:
            if context := TaskRunContext.get():
                hooks.on_crash(context.task_run)
            raise
        _judge(run.root, programs, "done")
    run.progress.set(key, 1.0)


def _judge(root: str, programs: list[str], verdict: str) -> None:
    record.judge(root, programs, verdict)
    remote.judge(root, programs, verdict)


def _observed(theirs: Callable[..., bool] | None) -> Callable[..., bool]:
    """A retry condition that reports the failed attempt and then lets `theirs` decide."""

    # A plain function: Prefect 3.8.8 silently disables retries for any other callable.
    def decide(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
        again = theirs(task, task_run, state) if theirs else True
        if again and task.retry_delay_seconds:
            hooks.on_delayed_retry(task_run)
        return again

    return decide


def _run_name() -> str:
    """submit_spark, submit_spark-1, …: the same at every try, and what outsiders see as task_id."""
    _, task, index = current_key().split("/", 2)
    return task if index == "0" else f"{task}-{index}"


def _cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return f"penstock/{current_key()}"
