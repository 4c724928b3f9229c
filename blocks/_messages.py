"""Which messages a change of state calls for, and what they look like on the wire.

    names + state ──► task_messages() / run_messages() ──► Message ──► encode() ──► JSON body

Everything here is pure: hooks, the listener's check and `penstock run` all use it, so that what is
sent and what is expected come from one place.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from pydantic_core import to_jsonable_python

from blocks.errors import NotVerified

Route = Literal["progress", "status", "results"]


class StateLike(Protocol):
    """What a message needs of a Prefect state; `type` is a StateType, a string enumeration."""

    @property
    def id(self) -> Any: ...
    @property
    def type(self) -> Any: ...
    @property
    def name(self) -> str | None: ...


@dataclass(frozen=True)
class Names:
    """How the outside calls a run: the two ids that every message carries."""

    dag_id: str
    run_id: str


@dataclass(frozen=True)
class Message:
    """One report: `id` is the same at every attempt, `payload` holds exactly the wire's fields."""

    id: str
    route: Route
    payload: Mapping[str, Any] = field(default_factory=dict)

    def renamed(self, title_key: str) -> "Message":
        """The same message with its state under `title_key` (older listeners read `title`)."""
        if title_key == "state" or "state" not in self.payload:
            return self
        payload = {title_key if k == "state" else k: v for k, v in self.payload.items()}
        return replace(self, payload=payload)


def names(
    labels: Mapping[str, Any], flow_run_id: object, deployment: str | None, flow: str
) -> Names:
    """The names of a root run: its labels', else the deployment's (or flow's) and the run's id."""
    return Names(
        dag_id=str(labels.get("penstock.dag_id") or deployment or flow),
        run_id=str(labels.get("penstock.run_id") or flow_run_id),
    )


def retry_id(task_run_id: object, attempt: int) -> str:
    """The id of the report that attempt number `attempt` (from 1) failed and another follows.

    It does not hang on a state's id: Prefect calls no hook with AwaitingRetry, and Retrying comes
    only after the delay. Both tell of the same attempt and so are the same message.
    """
    return f"{task_run_id}.{attempt}/status"


def crash_id(task_run_id: object) -> str:
    """The id of the report that a task died of a signal: told before Prefect makes the state."""
    return f"{task_run_id}.crashed/status"


def wire_state(state: StateLike) -> str | None:
    """The word that listeners know for a Prefect state; None for one that is not told."""
    kind, name = _type(state), state.name
    if name in ("AwaitingRetry", "Retrying"):
        return "up_for_retry"
    if name in ("NotReady", "UpstreamFailed"):
        return "upstream_failed"
    return {
        "RUNNING": "running",
        "COMPLETED": "success",
        "FAILED": "failed",
        "CRASHED": "failed",
        "CANCELLED": "failed",
    }.get(kind)


def task_messages(
    names: Names,
    task_id: str,
    state: StateLike,
    *,
    progress: int | None,
    message_id: str | None = None,
) -> list[Message]:
    """What one state of a task calls for.

    `progress` is the run's percentage after this state, or None for a task of a child run: there
    only the status is told, progress belongs to the root.
    """
    word = wire_state(state)
    if word is None:
        return []
    ids = {"dag_id": names.dag_id, "run_id": names.run_id}
    status = {"state": word, **ids, "task_id": task_id}
    messages = [Message(message_id or f"{state.id}/status", "status", status)]
    if word == "success" and progress is not None:
        running = {"state": "running", **ids, "progress": progress, "error": ""}
        messages.append(Message(f"{state.id}/progress", "progress", running))
    return messages


def run_messages(
    names: Names,
    flow_run_id: object,
    state: StateLike,
    *,
    progress: int,
    error: str,
    results: Any,
) -> list[Message]:
    """What the last state of a root run calls for: its progress, and its results on success.

    A cancelled run's hook is called while it is still CANCELLING: the state CANCELLED, and with it
    an id to use, comes only after. Both states call for the same message.
    """
    cancelled = _type(state) in ("CANCELLING", "CANCELLED")
    word = "failed" if cancelled else wire_state(state)
    if word not in ("success", "failed"):
        return []
    end = f"{flow_run_id}.cancelled" if cancelled else str(state.id)
    ids = {"dag_id": names.dag_id, "run_id": names.run_id}
    if word == "failed":
        payload = {"state": word, **ids, "progress": min(progress, 99), "error": error}
        return [Message(f"{end}/progress", "progress", payload)]
    done = {"state": word, **ids, "progress": 100, "error": ""}
    return [
        Message(f"{end}/progress", "progress", done),
        Message(f"{end}/results", "results", {**ids, "results": results}),
    ]


def plain(results: Any) -> Any:
    """A run's result as JSON (RFC 8259) has it: no NaN, and text for what it does not know."""
    return to_jsonable_python(results, inf_nan_mode="null", fallback=str)


def encode(message: Message, sign: Callable[[Mapping[str, Any]], str] | None) -> bytes:
    """The request body: `{"payload": <JWT of the fields>}`, or the fields bare without `sign`."""
    payload = sign(message.payload) if sign else dict(message.payload)
    return json.dumps({"payload": payload}, ensure_ascii=False, allow_nan=False).encode()


def decode(
    body: bytes, verify: Callable[[str], dict[str, Any]], *, max_body: int
) -> dict[str, Any]:
    """The fields of a signed body; raises NotVerified for anything else, unsigned included."""
    if len(body) > max_body:
        raise NotVerified(f"a body of {len(body)} bytes is over the limit of {max_body}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotVerified(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict) or set(document) != {"payload"}:
        raise NotVerified('the body is not {"payload": …}')
    if not isinstance(document["payload"], str):
        raise NotVerified("the payload is not signed")
    return verify(document["payload"])


def _type(state: StateLike) -> str:
    return str(getattr(state.type, "value", state.type))
