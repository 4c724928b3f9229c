"""The processes that deliver reports: started on demand, each tied to a folder of this home."""

import fcntl
import os
import signal
from pathlib import Path

import psutil

from blocks._home import place

PATIENCE = 20.0  # seconds for a post that is under way


def couriers() -> list[psutil.Process]:
    """Those that are alive: each holds its lock, in which its pid stands."""
    held = [
        pid for lock in sorted(place().glob("reports/*/courier.lock")) if (pid := _holder(lock))
    ]
    return [psutil.Process(pid) for pid in held if psutil.pid_exists(pid)]


def end_couriers() -> int:
    """End them, without losing anything: what waits is on disk. Gives how many there were."""
    running = couriers()
    for courier in running:
        courier.send_signal(signal.SIGTERM)
    for courier in psutil.wait_procs(running, timeout=PATIENCE)[1]:
        courier.kill()
    return len(running)


def _holder(lock: Path) -> int | None:
    fd = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 20, 0)
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(fd)
