"""One flow of many small tasks: `python -m benchmarks._tasks KIND COUNT SECONDS`, as a program.

KIND is `ours` (a flow with its hooks, of `job_task`), `plain` (Prefect's own decorators) or `naive`
(those, with a hook that signs and posts by itself). Prints one line of JSON.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

PARALLEL = 4

hooks: list[float] = []  # seconds of each call of a task's hook
spent: list[float] = []  # CPU seconds of whatever reporting does in this process


def measured(function: Callable[..., Any], durations: list[float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        began, used = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(time.thread_time() - used)
            durations.append(time.perf_counter() - began)

    return inner


def ours(count: int, seconds: float) -> Callable[[], Any]:
    from flows import flow_hooks, guard, job_task
    from flows._reports import hooks as theirs

    vars(theirs)["report_task"] = measured(theirs.report_task, hooks)
    vars(theirs)["on_not_ready"] = measured(theirs.on_not_ready, [])

    @job_task
    def rest() -> None:
        time.sleep(seconds)

    @flow(task_runner=runner(), **flow_hooks())
    @guard(parts=count)
    def many() -> None:
        submit_all(rest, count)

    return many


def plain(count: int, seconds: float, hook: Callable[..., Any] | None = None) -> Callable[[], Any]:
    at = [hook] if hook else []

    @task(on_running=at, on_completion=at, on_failure=at, persist_result=True)
    def rest() -> None:
        time.sleep(seconds)

    @flow(task_runner=runner(), persist_result=True)
    def many() -> None:
        submit_all(rest, count)

    return many


def naive(count: int, seconds: float) -> Callable[[], Any]:
    """The hook that one writes first: a signature and a client for each post, and one waits."""
    url, pem = os.environ["BENCHMARK_URL"], os.environ["BENCHMARK_PEM"]

    def tell(task: Any, task_run: Any, state: Any) -> None:
        ids = {"dag_id": "naive", "run_id": str(task_run.flow_run_id)}
        posts = [("status", {"state": state.name, **ids, "task_id": task_run.name})]
        if state.is_completed():
            posts.append(("progress", {"state": "running", **ids, "progress": 0, "error": ""}))
        for route, fields in posts:
            token = jwt.encode(fields, pem, algorithm="RS256")
            httpx.post(f"{url}/{route}", json={"payload": token}).raise_for_status()

    return plain(count, seconds, measured(tell, hooks))


def runner() -> Any:
    return ThreadPoolTaskRunner(max_workers=PARALLEL)


def submit_all(rest: Any, count: int) -> None:
    for future in [rest.submit() for _ in range(count)]:
        future.result()


def main(kind: str, count: int, seconds: float) -> None:
    many = {"ours": ours, "plain": plain, "naive": naive}[kind](count, seconds)
    began, used = time.perf_counter(), time.process_time()
    many()
    print(
        json.dumps(
            {
                "wall": time.perf_counter() - began,
                "cpu": time.process_time() - used,
                "spent": sum(spent),
                "hooks": hooks,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
