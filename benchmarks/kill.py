"""Random kills: `python -m benchmarks.kill [--rounds 100] [--parallel N] [--json FILE]`.

Each round is a run of some seconds, in the middle of which engine, courier, worker, relay, listener
or server gets SIGKILL, in equal shares; services are started again. When the run has ended, what
the listener verified is held against the states that the API has.

`kill_lost`: messages that those states call for and that never came.
`kill_forged`: posts that could not be verified.
`kill_run_failed_by_reporting`: runs that did not end as they would have without reports.
`kill_left_alive`: processes of a run that outlived it.
`kill_terminal_missing`: runs whose end was never told.
`kill_progress_fell`: runs whose told progress went back.

Some more rounds are played with the outbox switched off: they must lose something, or the benchmark
itself has failed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks._lane import TARGETS
from benchmarks._table import show

WITHOUT = "listener"  # what is killed where the outbox is switched off


def lane(number: int, targets: list[str], **environment: str) -> list[dict[str, Any]]:
    """Play these rounds in a process of their own; what was found out of each."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="penstock-kill-") as home,
        Path(tempfile.gettempdir(), f"penstock-kill-{os.getpid()}-{number}.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks._lane", f"{home}/home", *targets],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout  # noqa: S101 - for the type checker alone
        for line in process.stdout:
            one = json.loads(line)
            if one["final"]:
                found.append(one)
            else:
                print(f"lane {number}: {told(one)}", file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(f"lane {number} failed, see {log.name}")
    return found


def told(one: dict[str, Any]) -> str:
    """A round on one line."""
    parts = [one["target"], one["state"] or "no end", f"{one['seconds']} s"]
    parts += [] if one["hit"] else ["not counted"]
    parts += [f"{name}: {one[name]}" for name in ("lost", "left_alive") if one[name]]
    parts += [f"{name}: {one['why']}" for name in ("failed", "swept") if one[name]]
    parts += [name for name in ("forged", "terminal_missing", "progress_fell") if one[name]]
    return ", ".join(parts)


def rows(rounds: list[dict[str, Any]], without: list[dict[str, Any]]) -> list[dict[str, Any]]:
    hits = Counter(one["target"] for one in rounds)
    counts = {
        "kill_lost": ("messages", sum(len(one["lost"]) for one in rounds)),
        "kill_forged": ("posts", sum(one["forged"] for one in last_of_each_lane(rounds))),
        "kill_run_failed_by_reporting": ("runs", sum(one["failed"] for one in rounds)),
        "kill_left_alive": ("processes", sum(len(one["left_alive"]) for one in rounds)),
        "kill_terminal_missing": ("runs", sum(one["terminal_missing"] for one in rounds)),
        "kill_progress_fell": ("runs", sum(one["progress_fell"] for one in rounds)),
    }
    beside = {
        "kill_lost": sum(len(one["lost"]) for one in without),
        "kill_terminal_missing": sum(one["terminal_missing"] for one in without),
    }
    return [
        {
            "claim": claim,
            "unit": unit,
            "ours": count,
            "peer": beside.get(claim),
            "peer_name": f"outbox off, {len(without)} rounds",
            "ratio": None,
            "goal": 0,
            "met": count == 0,
            "rounds": len(rounds),
            "hits": dict(hits),
            "messages": sum(one["expected"] for one in rounds),
            "told_again": sum(one["again"] for one in rounds),
        }
        for claim, (unit, count) in counts.items()
    ]


def last_of_each_lane(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One round of each lane: what it says of forged posts holds for the whole lane."""
    return list({one["lane"]: one for one in rounds}.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--parallel", type=int, default=5, help="rounds at a time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    number = len(TARGETS) if given.quick else given.rounds
    targets = list(islice(cycle(TARGETS), number))
    random.shuffle(targets)
    shares = [share for n in range(given.parallel) if (share := targets[n :: given.parallel])]
    off = [WITHOUT] * max(3, number // 16)
    with ThreadPoolExecutor(given.parallel) as pool:
        lanes = [pool.submit(lane, n, share) for n, share in enumerate(shares)]
        beside = pool.submit(lane, len(shares), off, PENSTOCK_OUTBOX="off")
        found = [{**one, "lane": n} for n, done in enumerate(lanes) for one in done.result()]
        without = beside.result()
    counted = [one for one in found if one["hit"]]
    made = rows(counted, without)
    show(made, given.json)
    return verdict(counted, without, number)


def verdict(rounds: list[dict[str, Any]], without: list[dict[str, Any]], number: int) -> int:
    """1 where the benchmark did not measure what it is to measure, or progress went back."""
    hits = Counter(one["target"] for one in rounds)
    if rare := [t for t in TARGETS if hits[t] * 12 < number]:
        print(f"hit too seldom: {', '.join(rare)}", file=sys.stderr)
        return 1
    if not any(one["lost"] for one in without):
        print("nothing was lost with the outbox switched off: losses are not seen", file=sys.stderr)
        return 1
    if fell := sum(one["progress_fell"] for one in rounds):
        print(f"progress went back in {fell} of {len(rounds)} rounds", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
