"""What the kernel costs: `python -m benchmarks.kernel [--quick] [--rounds N] [--json FILE]`.

`process_overhead`: milliseconds that a program costs more through the shim than a bare spawn.
`place_overhead`: the same through the place `process`, with record, log and exit file.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._table import options, row, show

PROGRAM = ["true"]
PEER = "subprocess.run"


def milliseconds(run: Callable[[int], object], count: int) -> float:
    """The mean time of one of `count` runs."""
    began = time.perf_counter()
    for number in range(count):
        run(number)
    return (time.perf_counter() - began) / count * 1000


def measure(rounds: int, count: int) -> list[dict[str, Any]]:
    from flows._run.job import Job
    from flows._run.process import ProcessPlace
    from flows._run.shim_client import ShimClient

    folder = Path(os.environ["PENSTOCK_HOME"])
    environment = {"PATH": os.environ["PATH"]}
    request = {
        "argv": PROGRAM,
        "env": environment,
        "cwd": str(folder),
        "stdin": None,
        "stdout": str(folder / "log"),
        "stderr": str(folder / "log"),
        "limit": None,
        "grace": 1,
        "mark": "benchmark",
    }
    client, place = ShimClient("benchmark"), ProcessPlace()

    def shim(number: int) -> None:
        own = folder / f"{time.perf_counter_ns()}-{number}"
        own.mkdir()
        name, _answer = client.start({**request, "folder": str(own)})
        client.ended(name).result()

    def through_place(number: int) -> None:
        key = f"benchmark/{time.perf_counter_ns()}/{number}"
        place.watch(place.start(Job(key, PROGRAM, environment, cwd=folder, root="benchmark")))

    def bare(_: int) -> None:
        subprocess.run(PROGRAM, env=environment, cwd=folder, check=True)

    for warm in (shim, through_place, bare):
        milliseconds(warm, 20)
    times = [
        [milliseconds(run, count) for run in (shim, through_place, bare)] for _ in range(rounds)
    ]
    client.close()
    place.close()
    shims, places, bares = (list(column) for column in zip(*times, strict=True))
    return [
        row("process_overhead", shims, bares, peer_name=PEER, goal=2.0),
        row("place_overhead", places, bares, peer_name=PEER, goal=5.0),
    ]


def main() -> int:
    given = options(__doc__, rounds=9, quick=3)
    with tempfile.TemporaryDirectory() as home:
        os.environ["PENSTOCK_HOME"] = home
        show(measure(given.rounds, 20 if given.quick else 200), given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
