"""What the kernel costs: `python -m benchmarks.kernel [--quick] [--rounds N] [--json FILE]`.

`process_overhead`: milliseconds that a program costs more through the shim than a bare spawn.
`place_overhead`: the same through the place `process`, with record, log and exit file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = ["true"]


def milliseconds(run: Callable[[int], object], count: int) -> float:
    """The mean time of one of `count` runs."""
    began = time.perf_counter()
    for number in range(count):
        run(number)
    return (time.perf_counter() - began) / count * 1000


def row(claim: str, ours: list[float], peer: list[float], goal: float) -> dict[str, Any]:
    """One row of the table: what we cost more than the peer, held against the goal."""
    more = [mine - bare for mine, bare in zip(ours, peer, strict=True)]
    return {
        "claim": claim,
        "unit": "ms",
        "ours": round(statistics.median(ours), 2),
        "peer": round(statistics.median(peer), 2),
        "peer_name": "subprocess.run",
        "ratio": round(statistics.median(ours) / statistics.median(peer), 2),
        "overhead": round(statistics.median(more), 2),
        "goal": goal,
        "met": statistics.median(more) <= goal,
        "rounds": len(ours),
    }


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
        row("process_overhead", shims, bares, goal=2.0),
        row("place_overhead", places, bares, goal=5.0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs, to see that it works")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["PENSTOCK_HOME"] = home
        rows = measure(3 if options.quick else options.rounds, 20 if options.quick else 200)
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    for one in rows:
        print("  ".join(f"{name}={value}" for name, value in one.items()))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
