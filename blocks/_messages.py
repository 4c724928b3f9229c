"""Which messages a change of state calls for, and what existing listeners read in them.

    Change (a state, plain data) + Names ──► messages() ──► Message ──► .payload

Everything here is pure: the courier, the redelivery and `penstock run` all use it, so that what is
sent and what is expected come from one place, and one state always makes the same ids.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from blocks._changes import Change
from blocks.errors import NotVerified

Route = Literal["progress", "status", "results", "child", "late"]
SEED_ROUTES: tuple[Route, ...] = ("progress", "status", "results")  # what existing listeners know


@dataclass(frozen=True)
class Names:
    """How the outside calls a run (`dag_id`, `run_id`), and what else is known of it."""

    dag_id: str
    run_id: str
    root: str = ""  # the root flow run's id
    deployment: str | None = None
    flow: str = ""
    by: str | None = None  # who started it


@dataclass(frozen=True)
class Failure:
    """What a failed run says of itself: the first task that failed, and its last log lines."""

    task: str | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Message:
    """One report. `id` is the same at every attempt; a higher `seq` of the same run is newer."""

    id: str
    route: Route
    state: str
    names: Names
    run: str = ""  # the flow run's id: the root's, or a child's
    parent: str | None = None  # the root, when `run` is a child
    task: str | None = None
    task_run: str | None = None
    attempt: int = 1
    at: str = ""
    progress: int | None = None
    error: str = ""
    failure: Failure | None = None
    results: Any = None
    location: str | None = None  # where the results are kept

    @property
    def seq(self) -> int:
        """Microseconds of the state's own time: whoever builds the message gets the same."""
        return int(datetime.fromisoformat(self.at).timestamp() * 1_000_000) if self.at else 0

    @property
    def payload(self) -> dict[str, Any]:
        """Exactly the fields that existing listeners know for this route."""
        ids = {"dag_id": self.names.dag_id, "run_id": self.names.run_id}
        if self.route == "status":
            return {"state": self.state, **ids, "task_id": self.task}
        if self.route == "results":
            return {**ids, "results": self.results}
        return {"state": self.state, **ids, "progress": self.progress, "error": self.error}

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Message":
        fields = json.loads(text)
        fields["names"] = Names(**fields["names"])
        if failure := fields["failure"]:
            fields["failure"] = Failure(failure["task"], tuple(failure["log"]))
        return cls(**fields)


def names(
    labels: Mapping[str, Any],
    flow_run_id: object,
    deployment: str | None,
    flow: str,
    by: str | None = None,
) -> Names:
    """The names of a root run: its labels', else the deployment's (or flow's) and the run's id."""
    return Names(
        dag_id=str(labels.get("penstock.dag_id") or deployment or flow),
        run_id=str(labels.get("penstock.run_id") or flow_run_id),
        root=str(flow_run_id),
        deployment=deployment,
        flow=flow,
        by=by,
    )


def messages(
    change: Change,
    names: Names,
    *,
    results: Any = None,
    location: str | None = None,
    failure: Failure | None = None,
) -> list[Message]:
    """What one change of state calls for, in the order in which it is told.

    `results` are the run's own, as JSON has it, for a root run that succeeded; `location` is where
    they are kept. A child run's tasks tell their status under the root's names; progress and
    results are the root's alone.
    """
    of_root = change.run == names.root
    told = _of_task(change, of_root) if change.task is not None else _of_run(change, of_root)
    return [
        Message(
            f"{change.base}/{route}",
            route,
            **{"state": change.word, **fields},
            names=names,
            run=change.run,
            parent=None if of_root else names.root,
            task=change.task,
            task_run=change.task_run,
            attempt=max(1, change.attempt),
            at=change.at,
            results=results if route == "results" else None,
            location=location if route == "results" else None,
            failure=failure if fields.get("error") else None,
        )
        for route, fields in told
    ]


def _of_task(change: Change, of_root: bool) -> Iterator[tuple[Route, dict[str, Any]]]:
    if change.word:
        yield "status", {"error": change.message if change.word == "failed" else ""}
    if change.word == "success" and change.progress is not None and of_root:
        yield "progress", {"state": "running", "progress": change.progress}


def _of_run(change: Change, of_root: bool) -> Iterator[tuple[Route, dict[str, Any]]]:
    if change.name == "Late":
        yield "late", {"state": "late", "error": "the run has not started in time"}
    elif change.word == "failed":
        progress = min(change.progress or 0, 99)
        yield "progress" if of_root else "child", {"progress": progress, "error": change.message}
    elif change.word == "success":
        yield "progress" if of_root else "child", {"progress": 100}
        if of_root:
            yield "results", {}


def plain(results: Any) -> Any:
    """A run's result as JSON (RFC 8259) has it: no NaN, text for what it does not know, and `?`
    for what is no Unicode, as a file's name may be.
    """
    try:
        made = to_jsonable_python(results, inf_nan_mode="null", fallback=str)
        json.dumps(made, ensure_ascii=False).encode()
    except UnicodeError:
        made = to_jsonable_python(_unicode(results), inf_nan_mode="null", fallback=str)
    return made


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Mapping):
        return {_unicode(key): _unicode(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_unicode(one) for one in value]
    return value


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
