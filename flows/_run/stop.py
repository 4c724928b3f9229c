"""Stop what a run started, from its records alone: by the process that ran it or by any other."""

import socket
from concurrent.futures import ThreadPoolExecutor

from flows._run import record as records
from flows._run.job import Record
from flows._run.process import PROCESS


def open_records(run: str) -> list[Record]:
    """What the records of a run, on this machine, do not call gone."""
    mine = socket.gethostname()
    return [one for one in records.of_run(run) if one.gone_at is None and one.host == mine]


def stop_leftovers(run: str) -> list[Record]:
    """Stop all of it, at once; returns when nothing is left, with what was stopped."""
    there = open_records(run)
    with ThreadPoolExecutor(max_workers=max(1, len(there))) as pool:
        return list(pool.map(PROCESS.stop, there))
