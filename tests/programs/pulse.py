"""A flow that only lives: called as `pulse.py NAME HOW`."""

import ctypes
import sys
import threading

from prefect import flow

from flows import flow_hooks, guard

NAME, HOW = sys.argv[1:]
LONG = 900
tries: list[str] = []


def live():
    tries.append(HOW)
    if HOW == "retries" and len(tries) == 1:
        raise ValueError("it is tried again in three minutes")
    if HOW == "busy":
        threading.Event().wait(35)  # two heartbeats first
        ctypes.PyDLL(None).sleep(LONG)  # PyDLL: the interpreter's lock is held meanwhile
    threading.Event().wait(LONG)


@flow(flow_run_name=NAME, retries=1, retry_delay_seconds=180, **flow_hooks())
@guard
def guarded():
    live()


if __name__ == "__main__":
    guarded()
