"""Whose run it is, and who hears it: found from the API, never passed."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger, get_logger

import blocks
from blocks._load import load, saved, saved_at
from blocks._messages import Message, Names, names
from blocks.errors import PenstockError
from flows._run.api import api

HEARERS = ("ReportEndpoint", "SlackChannel", "MailChannel")
QUIET = "penstock-quiet"  # a tag: nobody is told of the run


class Hearer(Protocol):
    """A block that hears how runs go."""

    @property
    def where(self) -> str: ...
    @property
    def explains(self) -> bool: ...  # it shows which task failed, and the last log lines
    def matches(self, deployment: str | None, flow: str, tags: list[str]) -> bool: ...
    def wants(self, message: Message) -> bool: ...
    def send(self, message: Message, attempt: int = 1) -> None: ...


@dataclass(frozen=True)
class Audience:
    """A root run's names on the wire, and who hears it, by `<block type's slug>/<name>`."""

    root: FlowRun
    names: Names
    hearers: dict[str, Hearer]
    unusable: list[str]  # saved, but nobody can say whether they would hear it

    @property
    def silent(self) -> bool:
        """Whether nobody is told: the run only shows what it would do, or is one of our own."""
        return bool(self.root.parameters.get("dry_run")) or QUIET in self.root.tags


@lru_cache(maxsize=4096)
def root_of(flow_run_id: UUID) -> UUID:
    """The outermost run above a run, or itself."""
    parent = api().read_flow_run(flow_run_id).parent_task_run_id
    above = api().read_task_run(parent).flow_run_id if parent else None
    return root_of(above) if above else flow_run_id


def audience(flow_run_id: UUID) -> Audience:
    """The audience of a run: that of its root."""
    root = api().read_flow_run(root_of(flow_run_id))
    deployment = api().read_deployment(root.deployment_id).name if root.deployment_id else None
    flow = api().read_flow(root.flow_id).name
    by = root.created_by.display_value if root.created_by else None
    usable, unusable = _sorted_out(root)
    return Audience(
        root=root,
        names=names(root.labels, root.id, deployment, flow, by),
        hearers={
            key: hearer
            for key, hearer in usable.items()
            if hearer.matches(deployment, flow, root.tags)
        },
        unusable=unusable,
    )


def hearer(key: str) -> Hearer:
    """The endpoint or channel `<slug>/<name>` as it is saved now; raises BlockMissing."""
    slug, _, name = key.partition("/")
    found: Hearer = load(_kinds()[slug], name)
    return found


def everyone() -> dict[str, Hearer]:
    """Every saved endpoint and channel; one that cannot be used is told in the log."""
    return _sorted_out(None)[0]


def saved_since() -> dict[str, datetime | None]:
    """When each endpoint and channel was first saved."""
    return {
        f"{slug}/{name}": at
        for slug, kind in _kinds().items()
        for name, at in saved_at(kind).items()
    }


def _sorted_out(about: FlowRun | None) -> tuple[dict[str, Hearer], list[str]]:
    """What is saved, and what of it cannot be used: that is told in the log of the run `about`."""
    log = flow_run_logger(about) if about else get_logger("penstock")
    found: dict[str, Hearer] = {}
    unusable = []
    for slug, kind in _kinds().items():
        for name in saved(kind):
            try:
                found[f"{slug}/{name}"] = load(kind, name)
            except PenstockError as error:
                log.error("%s %r hears nothing: %s", kind.__name__, name, error)
                unusable.append(f"{slug}/{name}")
    return found, unusable


def _kinds() -> dict[str, Any]:
    kinds = [getattr(blocks, name) for name in HEARERS]
    return {kind.get_block_type_slug(): kind for kind in kinds}
