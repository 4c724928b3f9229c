"""A flow of some seconds, with several tasks open at any time, to be killed in its middle.

Every task's program appends its task's key to the file EFFECTS as the last thing it does. With
PENSTOCK_OUTBOX=off, which only this file knows, a hook makes one attempt to tell, and forgets.
"""

import os
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect import flow

from blocks._command import Command
from blocks._messages import Message
from flows import flow_hooks, guard, job_task
from flows._reports import hooks
from flows._reports.audience import Hearer, audience
from flows._reports.build import build
from flows._run.keys import current_key
from flows._run.run_command import run_command, scratch

# With a grandchild, as real programs have.
PROGRAM = 'sleep "$1" & sleep "$1"; wait; echo "$2" >> "$3"'


def tell_at_once(*changes: Any) -> None:
    """What takes the place of the outbox: a send for each message, and no second one."""
    for change in changes:
        heard = audience(UUID(change.run))
        for message in build(change, heard.names):
            for hearer in heard.hearers.values():
                _send(hearer, message)


def _send(hearer: Hearer, message: Message) -> None:
    with suppress(Exception):
        hearer.send(message)


if os.environ.get("PENSTOCK_OUTBOX") == "off":
    vars(hooks)["put"] = tell_at_once


@job_task
def hold(seconds: float, effects: str) -> None:
    with scratch() as folder:
        argv = ["sh", "-c", PROGRAM, "sh", str(seconds), current_key(), effects]
        run_command(Command(argv), folder=folder, name="a program")


@flow(**flow_hooks())
@guard
def victims(effects: str, waves: int = 2, seconds: float = 1.2) -> str:
    """Waves of three tasks at a time, of unequal length."""
    for _ in range(waves):
        for future in [hold.submit(seconds * (1 + n / 2), effects) for n in range(3)]:
            future.result()
    return "held"
