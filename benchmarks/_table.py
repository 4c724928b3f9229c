"""What the benchmarks share: their options, the rows of a table, and how it is shown."""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any


def options(about: str | None, *, rounds: int, quick: int) -> argparse.Namespace:
    """The command line: `rounds` of them are measured, `quick` when it is only to work."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few runs, to see that it works")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.quick:
        given.rounds = quick
    return given


def row(
    claim: str, ours: list[float], peer: list[float], *, peer_name: str, goal: float | None
) -> dict[str, Any]:
    """One row: the medians in ms, what we cost more than the peer, and that against the goal.

    `ours` and `peer` are of the same rounds; without a goal nothing is met or missed.
    """
    more = statistics.median(mine - theirs for mine, theirs in zip(ours, peer, strict=True))
    return {
        "claim": claim,
        "unit": "ms",
        "ours": round(statistics.median(ours), 2),
        "peer": round(statistics.median(peer), 2),
        "peer_name": peer_name,
        "ratio": round(statistics.median(ours) / statistics.median(peer), 2),
        "overhead": round(more, 2),
        "goal": goal,
        "met": None if goal is None else more <= goal,
        "rounds": len(ours),
    }


def show(rows: list[dict[str, Any]], file: Path | None) -> None:
    """Print the rows under the machine they are of, and write them to `file` as JSON."""
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    for one in rows:
        print("  ".join(f"{name}={value}" for name, value in one.items()))
    if file:
        file.write_text(json.dumps(rows, indent=1))
