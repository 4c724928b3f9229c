"""What the installation's Prefect server has and says, and whether endpoints take reports."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import prefect.settings
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Running
from pydantic import TypeAdapter, ValidationError

from blocks import ReportEndpoint
from blocks._changes import change
from blocks._load import load, saved
from blocks._messages import Names, messages
from deployments.doctor.finding import Finding, guarded, run_all
from deployments.local.server import (
    POOL,
    check,
    missing_deployments,
    server_settings,
    workers_online,
)

SKEW = 5.0  # seconds by which clocks may differ: a JWT and a schedule suffer from more
UP = "`penstock up`"
ADDRESSES = ("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "PREFECT_UI_API_URL")
RESULT_STORAGE = "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"


def server() -> Iterator[Finding]:
    """That it answers and fits; only then the rest, each part for itself."""
    with get_client(sync_client=True) as client:
        if warning := check(client):
            yield Finding("warn", "Prefect", warning)
        else:
            yield Finding("ok", "Prefect", f"{client.api_version()} answers at {client.api_url}")
        parts = {
            "settings": _settings,
            "work pool": _work_pool,
            "results": _results,
            "deployments": _deployments,
            "clock": _clock,
        }
        for about, part in parts.items():
            yield from guarded(about, partial(part, client))


def _settings(client: SyncPrefectClient) -> Iterator[Finding]:
    theirs = client.request("GET", "/admin/settings").json()
    shipped = server_settings(f"{client.api_url.scheme}://{client.api_url.netloc.decode()}")
    # Below a path it stands behind a proxy, which alone knows the server's own address.
    behind = client.api_url.path.rstrip("/") != "/api"
    different = [
        name
        for name, text in shipped.items()
        if not _has(theirs, name, text)
        and not (behind and name in ADDRESSES and not _has(theirs, name, "*"))
    ]
    if different:
        fix = "start it with deployments/server.env in its environment (`penstock down`, `up`)"
        yield Finding("warn", "settings", f"differ from ours: {', '.join(different)}", fix)
    else:
        yield Finding("ok", "settings", f"all {len(shipped)} of deployments/server.env")


def _has(settings: Any, name: str, text: str) -> bool:
    """Whether a server's settings hold `text`, as an environment has it, under that name."""
    try:
        where: list[str] = getattr(prefect.settings, name).accessor.split(".")
        found = reduce(getitem, where, settings)
        return bool(TypeAdapter(type(found)).validate_strings(text) == found)
    except (AttributeError, KeyError, ValidationError):
        return False


def _work_pool(client: SyncPrefectClient) -> Iterator[Finding]:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        yield Finding("bad", "work pool", f"{POOL} does not exist", UP)
        return
    if pool.is_paused:
        yield Finding("warn", "work pool", f"{POOL} is paused", f"prefect work-pool resume {POOL}")
    if online := workers_online(client):
        yield Finding("ok", "work pool", f"{POOL} has {', '.join(online)} online")
    else:
        yield Finding("bad", "work pool", f"{POOL} has no worker online", UP)


def _results(client: SyncPrefectClient) -> Iterator[Finding]:
    """Pools whose runs are on other machines, and keep their results where nobody else can read."""
    elsewhere = [pool for pool in client.read_work_pools() if pool.type not in ("process", "none")]
    for pool in elsewhere:
        if not _has_results_storage(pool.base_job_template):
            found = f"runs of {pool.name} ({pool.type}) keep results on a disk of their own"
            fix = f"name a storage block in {RESULT_STORAGE}, in the pool's environment"
            yield Finding("bad", "results", found, fix)


def _has_results_storage(template: dict[str, Any]) -> bool:
    variables = template.get("variables", {}).get("properties", {})
    environment = variables.get("env", {}).get("default") or {}
    return RESULT_STORAGE in environment


def _deployments(client: SyncPrefectClient) -> Iterator[Finding]:
    if not Path("prefect.yaml").is_file():
        yield Finding("warn", "deployments", f"there is no prefect.yaml in {Path.cwd()}")
    elif missing := missing_deployments(client):
        yield Finding("bad", "deployments", f"the server lacks {', '.join(missing)}", UP)
    else:
        yield Finding("ok", "deployments", "all of prefect.yaml are on the server")


def _clock(client: SyncPrefectClient) -> Iterator[Finding]:
    answer = client.request("GET", "/health")
    skew = (datetime.now(UTC) - parsedate_to_datetime(answer.headers["date"])).total_seconds()
    if abs(skew) > SKEW:
        found = (
            f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server"
        )
        yield Finding("warn", "clock", found, "set both by NTP: signatures and schedules need it")
    else:
        yield Finding("ok", "clock", f"within {SKEW:.0f} s of the server's")


def send() -> Iterator[Finding]:
    """One test message to every saved ReportEndpoint, all at the same time."""
    endpoints = saved(ReportEndpoint)
    if not endpoints:
        yield Finding("warn", "endpoints", "no ReportEndpoint is saved", "`penstock seed`")
    yield from run_all({f"endpoint {name}": partial(_send, name) for name in endpoints})


def _send(name: str) -> Iterator[Finding]:
    names = Names("penstock-doctor", f"test-{int(time.time())}")
    endpoint = load(ReportEndpoint, name)
    for message in messages(change("penstock-doctor", Running(), task="test"), names):
        endpoint.send(message)
    how = "unsigned" if endpoint.unsigned else "signed"
    yield Finding("ok", f"endpoint {name}", f"took a {how} test message as run {names.run_id}")
