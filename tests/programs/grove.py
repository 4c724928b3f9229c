"""A flow whose tasks, in threads, run two trees of bad programs: `grove.py NAME SECONDS`."""

import sys
from pathlib import Path

from prefect import flow

from blocks._command import Command
from flows import flow_hooks, guard, job_task
from flows._run.run_command import run_command, scratch

TREE = Path(__file__).with_name("tree.py")


@job_task
def grow(seconds: float) -> str:
    with scratch() as folder:
        run_command(
            Command([sys.executable, str(TREE), str(seconds)]), folder=folder, name="a tree"
        )
    return "felled"


@flow(flow_run_name="{name}", **flow_hooks())
@guard(parts=2)
def grove(name: str, seconds: float = 900) -> list[str]:
    trees = [grow.submit(seconds) for _ in range(2)]
    return [tree.result() for tree in trees]


if __name__ == "__main__":
    name, seconds = sys.argv[1], float(sys.argv[2])
    if "serve" in sys.argv:
        grove.serve(name=name, parameters={"name": name, "seconds": seconds})
    else:
        grove(name, seconds)
