"""`penstock up`: a Prefect server, a work pool with its worker, and a listener, of this checkout.

server ──► block types, sample blocks, keys ──► pool, worker, relay ──► every entry of prefect.yaml
listener (holds the public key only) ─┘
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from blocks._home import ROOM_TO_START, home, need_room, write_private
from blocks.errors import ConfigError, ServiceFailed
from deployments.local import service
from deployments.local.server import (
    POOL,
    check,
    checked_address,
    missing_deployments,
    server_settings,
    workers_online,
)
from deployments.local.service import Service

SERVER_PORT, LISTENER_PORT = 4200, 8080  # where nothing else was asked for and they are free
_PREFECT = (sys.executable, "-m", "prefect")

EXAMPLES = ("up", "up --port 4300")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=int, help="port of the server (default: as last time, 4200, or a free one)"
    )
    parser.add_argument(
        "--server", metavar="URL", help="use this Prefect API instead of a server of our own"
    )


def main(options: argparse.Namespace) -> int:
    with started(options.server, options.port) as api_url:
        ui = api_url.removesuffix("/api")
        print(f"up: {ui}   (penstock run, penstock status, penstock down)")
    return 0


@contextmanager
def started(server: str | None = None, port: int | None = None) -> Iterator[str]:
    """Everything up, for this process too; gives the API's address.

    What was up already is used as it is. A start that fails, and an interrupt later, ends what this
    very call started, and nothing else.
    """
    before = service.known()
    try:
        api_url = _everything(before, server, port)
    except BaseException:
        _end_what_is_new(before)
        raise
    try:
        yield api_url
    except KeyboardInterrupt:
        _end_what_is_new(before)
        raise


def _everything(before: dict[str, Service], server: str | None, port: int | None) -> str:
    need_room(ROOM_TO_START)
    if server:
        api_url = checked_address(server)
        _say(f"using the server {api_url}")
    else:
        api_url = _server(before, port).url
    service.adopt_environment(api_url)
    if server:
        _await_api(api_url)
    listener = _listener(before)
    import blocks._all  # noqa: F401 - takes seconds, while the others start in their processes

    _await_listener(listener)
    if not server:
        _await_api(api_url)
    _seed(listener.url)
    if not server and "listener" not in before:  # on a server of others it may be another's
        point_at(listener.url)
    worker = _worker(before, api_url)
    _relay(before, api_url)
    _deploy(api_url)
    _await_worker(worker)
    return api_url


def _end_what_is_new(before: dict[str, Service]) -> None:
    for name, mine in reversed(list(service.known().items())):
        if before.get(name) != mine:
            _say(f"stopping the {name}")
            service.stop(mine)


def _server(before: dict[str, Service], port: int | None) -> Service:
    if running := before.get("server"):
        if port and running.url != f"http://127.0.0.1:{port}/api":
            raise ConfigError(f"the server is up at {running.url}: `penstock down` moves it")
        return running
    url = f"http://127.0.0.1:{service.choose_port(port, 'server', SERVER_PORT)}"
    if theirs := os.environ.get("PREFECT_API_URL"):
        _say(f"PREFECT_API_URL={theirs} is left alone; this checkout's own server is {url}")
    _say(f"starting the Prefect server at {url} (the first time takes half a minute)")
    return service.start(
        "server",
        [*_PREFECT, "server", "start", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]],
        {**service.environment(f"{url}/api"), **server_settings(url)},
        f"{url}/api",
    )


def _await_api(api_url: str) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        mine = service.known().get("server")
        if mine and mine.url == api_url:
            service.wait_until(lambda: client.api_healthcheck() is None, mine, seconds=180)
        if warning := check(client):
            _say(f"note: {warning}")


def _listener(before: dict[str, Service]) -> Service:
    if running := before.get("listener"):
        return running
    from deployments.seed import key_pair

    port = service.choose_port(None, "listener", LISTENER_PORT)
    url = f"http://127.0.0.1:{port}"
    key = key_pair() / "signing.pub.pem"
    return service.start(
        "listener",
        [sys.executable, "-m", "deployments", "listen", "--port", str(port), "--key", str(key)],
        # It needs the public key, a place to write, and nothing of Prefect.
        {"PATH": os.environ.get("PATH", ""), "PENSTOCK_HOME": str(home())},
        url,
    )


def _await_listener(listener: Service) -> None:
    import httpx

    def healthy() -> bool:
        try:
            # Its own answer: another checkout's listener may have been quicker to take the port.
            return httpx.get(f"{listener.url}/health", timeout=2).text == f"ok {listener.pid}"
        except httpx.HTTPError:
            return False

    service.wait_until(healthy, listener, seconds=60)


def _seed(listener: str) -> None:
    from deployments.seed import seed

    if saved := seed(listener):
        _say(f"saved the sample blocks {', '.join(saved)}")


def point_at(listener: str) -> None:
    """The sample endpoint follows our listener, which may have found its port taken."""
    from blocks import ReportEndpoint
    from blocks._load import load, saved

    if "listener" not in saved(ReportEndpoint):
        return
    endpoint = load(ReportEndpoint, "listener")
    if endpoint.url != listener:
        _say(f"the endpoint listener is told at {listener} now, not at {endpoint.url}")
        endpoint.url = listener
        endpoint.save("listener", overwrite=True, _sync=True)  # type: ignore[call-arg]  # hidden


def _worker(before: dict[str, Service], api_url: str) -> Service:
    if running := before.get("worker"):
        if running.url == api_url:
            return running
        service.stop(running)  # it works for another server
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(
                WorkPoolCreate(name=POOL, type="process", base_job_template=template)
            )
        except ObjectAlreadyExists:
            _say(f"work pool {POOL} is there already")
    return service.start(
        "worker",
        [*_PREFECT, "worker", "start", "--pool", POOL, "--type", "process"],
        {**service.environment(api_url), "PREFECT_WORKER_QUERY_SECONDS": "1"},
        api_url,
    )


def _relay(before: dict[str, Service], api_url: str) -> None:
    if running := before.get("relay"):
        if running.url == api_url:
            return
        service.stop(running)  # it follows another server
    argv = [sys.executable, "-m", "deployments", "relay"]
    service.start("relay", argv, service.environment(api_url), api_url)


def _deploy(api_url: str) -> None:
    """`prefect deploy --all`, unless the server has them all just as they are here."""
    if not Path("prefect.yaml").is_file():
        _say(f"no prefect.yaml in {Path.cwd()}: nothing to deploy")
        return
    note = home() / "deployed"
    fingerprint = _fingerprint(api_url)
    if note.exists() and note.read_text() == fingerprint and _all_deployed():
        return
    done = subprocess.run(
        [*_PREFECT, "--no-prompt", "deploy", "--all"],
        env={**service.environment(api_url), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceFailed(f"`prefect deploy --all` failed:\n{done.stdout}{done.stderr}")
    write_private(note, fingerprint)


def _fingerprint(api_url: str) -> str:
    """What a deployment is made from: the server, this folder, prefect.yaml and the flows."""
    digest = sha256(f"{api_url} {Path.cwd()}".encode())
    for path in [Path("prefect.yaml"), *sorted(Path("flows").glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _all_deployed() -> bool:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return not missing_deployments(client)


def _await_worker(worker: Service) -> None:
    """Until the worker has told the server that it is there."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        service.wait_until(lambda: bool(workers_online(client)), worker, seconds=60)


def _say(line: str) -> None:
    print(line, flush=True)
