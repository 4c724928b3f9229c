"""Whose run it is, and who hears it: found from the API, never passed."""

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger

from blocks import ReportEndpoint
from blocks._load import load, saved
from blocks._messages import Names, names
from blocks.errors import PenstockError
from flows._run.api import api


@dataclass(frozen=True)
class Audience:
    """A root run's names on the wire, and the endpoints that hear it."""

    root: FlowRun
    names: Names
    endpoints: dict[str, ReportEndpoint]

    @property
    def dry(self) -> bool:
        """Whether the run only shows what it would do: then nobody is told of it."""
        return bool(self.root.parameters.get("dry_run"))


@lru_cache(maxsize=256)
def audience(flow_run_id: UUID) -> Audience:
    """The audience of a run: that of its root. Looked up once, so that a running run keeps it."""
    flow_run = api().read_flow_run(flow_run_id)
    if flow_run.parent_task_run_id:
        parent = api().read_task_run(flow_run.parent_task_run_id)
        if parent.flow_run_id:
            return audience(parent.flow_run_id)
    deployment = (
        api().read_deployment(flow_run.deployment_id).name if flow_run.deployment_id else None
    )
    flow = api().read_flow(flow_run.flow_id).name
    endpoints: dict[str, ReportEndpoint] = {}
    for name in saved(ReportEndpoint):
        try:
            endpoint = load(ReportEndpoint, name)
        except PenstockError as error:
            flow_run_logger(flow_run).error("endpoint %r hears nothing: %s", name, error)
            continue
        if endpoint.matches(deployment, flow, flow_run.tags):
            endpoints[name] = endpoint
    return Audience(
        root=flow_run,
        names=names(flow_run.labels, flow_run.id, deployment, flow),
        endpoints=endpoints,
    )
