"""What the benchmarks of reports share: an installation of their own, and rows of any unit."""

import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

POLL = 0.2  # seconds between two looks at another program


def free_port() -> int:
    """A free port that the system gives to no outgoing connection.

    With one that it might, who calls a server that was just killed may take its port from it, or
    reach himself.
    """
    while True:
        port = random.randint(15000, 30000)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def installation(home: Path) -> Iterator[int]:
    """`penstock up` with a home of its own, for this process too; gives the server's port."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it is taken down then, too
    os.environ["PENSTOCK_HOME"] = str(home)
    port = free_port()
    # Several installations that start at once must not all find the same port free.
    for folder in (home, home / "ports"):
        folder.mkdir(mode=0o700)
    (home / "ports" / "listener").write_text(str(free_port()))
    penstock = [sys.executable, "-m", "deployments"]
    try:
        subprocess.run([*penstock, "up", "--port", str(port)], check=True, stdout=sys.stderr)
        from deployments.local import service

        service.adopt_environment(f"http://127.0.0.1:{port}/api")
        yield port
    finally:
        end_couriers(home)
        subprocess.run([*penstock, "down", "--kill"], check=True, stdout=sys.stderr)


def couriers(home: Path) -> list[psutil.Process]:
    """The couriers of an installation that live, also one that only starts."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "flows._reports.courier" in words and any(str(home) in word for word in words):
                found.append(process)
    return found


def end_couriers(home: Path) -> None:
    for courier in couriers(home):
        with suppress(psutil.Error):
            courier.terminate()
            courier.wait(15)


def wait_until(ready: Callable[[], Any], seconds: float, what: str, every: float = POLL) -> Any:
    """What `ready` gives, once it is truthy; raises TimeoutError, naming `what`."""
    deadline = time.monotonic() + seconds
    while not (seen := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)  # another program's doing: it sends us no event
    return seen


def quiet(processes: list[psutil.Process], seconds: float = 120) -> None:
    """Wait until these, with all they started, have little to do: a round costs the next nothing.

    Returns after `seconds` in any case.
    """
    deadline = time.monotonic() + seconds
    before = cpu(processes)
    while time.monotonic() < deadline:
        time.sleep(1)
        now = cpu(processes)
        if now - before < 0.15:
            return
        before = now


def cpu(processes: list[psutil.Process]) -> float:
    """CPU seconds that these and their children have used."""
    used = 0.0
    for process in processes:
        with suppress(psutil.Error):
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = one.cpu_times()
                    used += times.user + times.system
    return used


def figure(
    claim: str,
    unit: str,
    ours: list[float],
    peer: list[float] | None = None,
    *,
    peer_name: str = "none",
    goal: float | None = None,
    judged: str = "ours",
    at_least: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """One row of medians; `judged` ("ours", "ratio", "overhead") is held against the goal.

    The ratio is that of each round, with its spread; `at_least` turns the comparison around.
    """
    mine = statistics.median(ours)
    row: dict[str, Any] = {"claim": claim, "unit": unit, "ours": round(mine, 3)}
    row |= {"peer": None, "peer_name": peer_name, "ratio": None}
    if peer:
        ratios = [a / b for a, b in zip(ours, peer, strict=True)] if all(peer) else []
        row["peer"] = round(statistics.median(peer), 3)
        row["overhead"] = round(mine - statistics.median(peer), 3)
        if ratios:
            row["ratio"] = round(statistics.median(ratios), 3)
            row["spread"] = f"{min(ratios):.3f}-{max(ratios):.3f}"
    met = None
    if goal is not None:
        met = row[judged] >= goal if at_least else row[judged] <= goal
    return {**row, "goal": goal, "met": met, "rounds": len(ours), **more}
