"""A flow that works, and whose process is then killed, as a machine that goes away does it.

Called as `lonely.py NAME [completes]`; the run gets that name, and with the word it may end first.
"""

import os
import signal
import sys

from prefect import flow

from flows import flow_hooks, guard, job_task

COMPLETES = "completes" in sys.argv


@job_task
def works():
    return 1


@job_task(retries=1)
def fails():
    raise ValueError("it fails")


@flow(flow_run_name=sys.argv[1], **flow_hooks())
@guard
def lonely():
    works()
    if COMPLETES:
        return {"rows": works()}
    fails(return_state=True)
    from prefect.events.worker import EventsWorker

    EventsWorker.instance().drain()  # the rows of the tasks are on the server
    os.kill(os.getpid(), signal.SIGKILL)
    return None


if __name__ == "__main__":
    lonely()
