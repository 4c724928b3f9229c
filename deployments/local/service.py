"""Services of this installation: started, written down, and stopped by what was written."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from blocks._home import home, private, write_private
from blocks.errors import ConfigError, ServiceFailed

POLL = 0.1  # seconds between two looks at a service that is starting or stopping


@dataclass(frozen=True)
class Service:
    """One started process: enough to tell it from any later one with its pid."""

    name: str
    pid: int
    created: float
    url: str

    def process(self) -> psutil.Process | None:
        """The living process, or None when it is gone or the pid is another's now."""
        try:
            process = psutil.Process(self.pid)
            alive = process.create_time() == self.created
            return process if alive and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def known() -> dict[str, Service]:
    """The services that were started here and still live, in the order of their start.

    Raises ConfigError when the file that tells them holds something else.
    """
    try:
        services = _entries(_file().read_text())
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(
            f"{_file()} does not tell what was started here: remove it, and end by hand "
            "what of this checkout is still up"
        ) from None
    return {name: service for name, service in services.items() if service.process()}


def start(name: str, argv: list[str], environment: Mapping[str, str], url: str) -> Service:
    """Start a service in a session of its own; it holds no descriptor of ours."""
    with (private(home() / "logs") / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    service = Service(name, child.pid, psutil.Process(child.pid).create_time(), url)
    _write({**known(), name: service})
    return service


def stop(service: Service, *, patience: float = 10.0) -> None:
    """Ask the service to end, then end it with all it started."""
    process = service.process()
    if process is None:
        return
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, left = psutil.wait_procs(family, timeout=patience)
    for straggler in left:
        straggler.kill()
    psutil.wait_procs(left, timeout=patience)
    _write({name: other for name, other in known().items() if name != service.name})


def wait_until(ready: Callable[[], bool], service: Service, *, seconds: float) -> None:
    """Return when `ready()`; raise ServiceFailed, with the log's end, when it dies or is late."""
    deadline = time.monotonic() + seconds
    while not ready():
        if service.process() is None:
            raise ServiceFailed(f"the {service.name} ended while starting:\n{log_tail(service)}")
        if time.monotonic() > deadline:
            raise ServiceFailed(
                f"the {service.name} was not ready after {seconds:.0f} s:\n{log_tail(service)}"
            )
        time.sleep(POLL)  # another program's start: it sends us no event


def log_tail(service: Service, lines: int = 15) -> str:
    """The last lines of a service's log."""
    path = home() / "logs" / f"{service.name}.log"
    last = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in last) + f"\n    (all of it: {path})"


def choose_port(wanted: int | None, remembered: str, preferred: int) -> int:
    """The port asked for, or the one used last time, or `preferred`, or any that is free.

    It is noted for the next time. Raises ConfigError when the one asked for is taken.
    """
    note = private(home() / "ports") / remembered
    if wanted is not None:
        if not is_free(wanted):
            raise ConfigError(f"port {wanted} is taken by another program: choose another --port")
        port = wanted
    else:
        candidates = [int(note.read_text())] if note.exists() else []
        port = next((p for p in [*candidates, preferred] if is_free(p)), None) or _any_port()
    write_private(note, str(port))
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _file() -> Path:
    return home() / "services.json"


def _entries(text: str) -> dict[str, Service]:
    kinds = {"name": str, "pid": int, "created": float, "url": str}
    services = {name: Service(**entry) for name, entry in json.loads(text).items()}
    for service in services.values():
        if any(type(getattr(service, field)) is not kind for field, kind in kinds.items()):
            raise TypeError(f"{service} is no service")
    return services


def _write(services: Mapping[str, Service]) -> None:
    write_private(_file(), json.dumps({name: asdict(s) for name, s in services.items()}, indent=1))


def environment(api_url: str) -> dict[str, str]:
    """What our services and commands run with: this installation's Prefect settings, no others.

    What proves to a server who we are stays, since `--server` may name one that asks.
    """
    kept = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "PREFECT_CLIENT_CUSTOM_HEADERS")
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_") or name in kept
    }
    return {
        **mine,
        "PENSTOCK_HOME": str(home()),
        "PREFECT_HOME": str(private(home() / "prefect")),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Every run's process says so often that it lives; the relay misses three of them.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }


def adopt_environment(api_url: str) -> None:
    """Make this process a client of the installation; to be called before Prefect is imported."""
    wanted = environment(api_url)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


def adopt_installation() -> None:
    """Make this process a client of the server that this checkout's services use.

    When none of them is up the caller's own Prefect settings hold. Raises ConfigError when those
    name no server: Prefect would start one for the time of the command, and it would know no run.
    """
    services = known()
    if running := services.get("worker") or services.get("server"):
        adopt_environment(running.url)
        return
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        raise ConfigError(
            "nothing of this checkout is up, and PREFECT_API_URL names no other server: "
            "`penstock up`, or set it"
        )
