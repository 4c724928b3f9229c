"""Runs one piece of work elsewhere as the flow run that is named, as a worker's process would.

Arguments: flow run, address of the system, seconds, and maybe `die`: right after it was submitted.
"""

import os
import signal
import sys
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow

from flows import flow_hooks, guard, job_task
from flows._run.remote import PLACES
from flows._run.run_remote import run_remote
from tests.elsewhere import CLIENT, PLACE, sleeper

PLACES[PLACE] = CLIENT
RUN, URL, SECONDS, *HOW = sys.argv[1:]


@job_task
def sleeps() -> str:
    work = sleeper(URL, float(SECONDS))
    handed_over = work.submit

    def submit(record):
        id = handed_over(record)
        if HOW == ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return id

    object.__setattr__(work, "submit", submit)
    return str(run_remote(work).id)


@flow(**flow_hooks())
@guard(parts=1)
def elsewhere() -> str:
    return str(sleeps())


with get_client(sync_client=True) as client:
    print(run_flow(elsewhere, flow_run=client.read_flow_run(UUID(RUN))))
