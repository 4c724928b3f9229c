"""The format `v1`: one envelope for every message. Its JSON schema is in docs/events.md."""

import json
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from blocks._messages import Message, Route


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reference(_Part):
    """A result too large to be sent."""

    location: str | None = Field(description="Where it is kept: a path, or a URL of the storage.")
    sha256: str = Field(description="Of the result as JSON, in hexadecimal.")
    size: int = Field(description="Bytes of the result as JSON.")


class Task(_Part):
    """The task that a message is about."""

    id: str = Field(description="Its name within the run; for CWL the step, with a job's index.")
    run: str | None = Field(description="The task run's id.")


class Error(_Part):
    """Why a run or a task failed."""

    message: str
    task: str | None = Field(description="The first task that failed.")
    log: list[str] = Field(description="The last lines of the run's log.")


class Envelope(_Part):
    """One message. Of two messages of a run, the one with the higher `seq` is right."""

    id: str = Field(description="The same at every attempt: drop what came before.")
    type: Route = Field(
        description="status: of a task; progress: of the run; results: of a run that succeeded; "
        "child: the end of a child run; late: a run that has not started in time."
    )
    seq: int = Field(description="Orders the messages of a run; the highest is the newest.")
    at: datetime = Field(description="When it happened.")
    by: str | None = Field(description="Who started the run.")
    dag_id: str = Field(description="Label penstock.dag_id, else the deployment, else the flow.")
    run_id: str = Field(description="Label penstock.run_id, else the flow run's id.")
    run: str = Field(description="The flow run's id.")
    parent: str | None = Field(description="The root run's id, if this is a child of it.")
    deployment: str | None
    flow: str
    task: Task | None
    state: Literal["running", "success", "failed", "up_for_retry", "upstream_failed", "late"]
    attempt: int = Field(description="Which attempt of the task or run, from 1.")
    progress: int | None = Field(ge=0, le=100, description="Percent of the root run.")
    error: Error | None
    result: Any = Field(description="The run's result, for type results.")
    reference: Reference | None = Field(description="In place of a result that is too large.")


def envelope(message: Message, *, max_result: int) -> dict[str, Any]:
    """`message` as an Envelope, in JSON's own types."""
    reference = refer(message, max_result)
    failure = message.failure
    return Envelope(
        id=message.id,
        type=message.route,
        seq=message.seq,
        at=datetime.fromisoformat(message.at),
        by=message.names.by,
        dag_id=message.names.dag_id,
        run_id=message.names.run_id,
        run=message.run,
        parent=message.parent,
        deployment=message.names.deployment,
        flow=message.names.flow,
        task=Task(id=message.task, run=message.task_run) if message.task else None,
        state=message.state,
        attempt=message.attempt,
        progress=message.progress,
        error=Error(
            message=message.error,
            task=failure.task if failure else message.task,
            log=list(failure.log) if failure else [],
        )
        if message.error
        else None,
        result=None if reference else message.results,
        reference=reference,
    ).model_dump(mode="json")


def refer(message: Message, max_result: int) -> Reference | None:
    """What stands for the results of `message` if they are over `max_result` bytes as JSON."""
    if message.results is None:
        return None
    text = json.dumps(message.results, ensure_ascii=False, allow_nan=False).encode()
    if len(text) <= max_result:
        return None
    return Reference(location=message.location, sha256=sha256(text).hexdigest(), size=len(text))
