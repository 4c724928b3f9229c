"""A flow of a user's own: Prefect's tasks beside ours, under our hooks, or under none."""

from prefect import flow, task

from flows import flow_hooks, guard, job_task


@task
def plain(number: int) -> int:
    return number


@task(retries=1)
def flaky(tried: list[int]) -> int:
    tried.append(1)
    if len(tried) == 1:
        raise ValueError("not yet")
    return len(tried)


@job_task
def ours() -> int:
    return 4


@flow(**flow_hooks())
@guard
def hooked() -> int:
    mine: int = ours()
    return plain(1) + mine + flaky([])


@flow(persist_result=True)
def unhooked() -> int:
    return plain(1) + flaky([])
