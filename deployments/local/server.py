"""The Prefect server as its client sees it: does it answer, does it fit, has it what we need.

Prefect's client alone asks: auth strings, CSRF protection, path prefixes and proxies keep working.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from blocks.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL = "penstock"
SETTINGS = Path(__file__).parent.parent / "server.env"
OLDEST = "3.8"


def server_settings(url: str) -> dict[str, str]:
    """The shipped server settings, for a server at `url`."""
    lines = SETTINGS.read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {name: value.format(url=url) for name, value in pairs}


def checked_address(url: str) -> str:
    """The address of a Prefect API as the user gave it, without a slash at its end.

    Raises ConfigError for one that is no HTTP address or that holds a password.
    """
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ConfigError("--server is no address: write it as http://host:4200/api") from None
    if parsed.userinfo:
        raise ConfigError(
            f"--server holds a password for {parsed.host}: put user:password into "
            "PREFECT_API_AUTH_STRING, where no log shows it"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"--server {url!r} is no address: write it as http://host:4200/api")
    return url.rstrip("/")


def check(client: "SyncPrefectClient") -> str | None:
    """See that the server answers and that its version fits.

    Returns what to say when the versions differ in a way that works. Raises ConfigError when no
    Prefect server answers, when it wants to know who we are, and when it is older than OLDEST or
    of another major version than our client.
    """
    from packaging.version import InvalidVersion, Version
    from prefect.exceptions import PrefectHTTPStatusError

    if error := client.api_healthcheck():
        raise _unreachable(client, error)
    try:
        theirs, ours = Version(client.api_version()), Version(client.client_version())
    except PrefectHTTPStatusError as error:
        raise _unreachable(client, error) from None
    except (ValueError, TypeError, InvalidVersion):
        raise _no_api(client) from None
    if theirs.major != ours.major or theirs < Version(OLDEST):
        raise ConfigError(
            f"the server at {_url(client)} runs Prefect {theirs}, and Penstock needs {OLDEST} "
            f"or newer of Prefect {ours.major}: upgrade the server, or use another"
        )
    if theirs != ours:
        return f"the server runs Prefect {theirs}, this checkout has {ours}: best make them equal"
    return None


def _unreachable(client: "SyncPrefectClient", error: Exception) -> ConfigError:
    from prefect.exceptions import PrefectHTTPStatusError

    if not isinstance(error, PrefectHTTPStatusError):
        return ConfigError(
            f"no Prefect server answers at {_url(client)} ({type(error).__name__}): "
            "look at --server, and whether the network reaches it"
        )
    status = error.response.status_code
    if status == 404:
        return _no_api(client)
    fix = _credentials() if status in (401, 403) else "look at the server's log"
    return ConfigError(f"the server at {_url(client)} answers {status}: {fix}")


def _credentials() -> str:
    """What to do about who we said we are; never what we said."""
    from prefect.settings import get_current_settings

    api = get_current_settings().api
    if api.auth_string:
        return (
            "it refuses the PREFECT_API_AUTH_STRING that is set; it must be the user:password of "
            "the server's PREFECT_SERVER_API_AUTH_STRING"
        )
    if api.key:
        return "it refuses the PREFECT_API_KEY that is set, or wants PREFECT_API_AUTH_STRING"
    return "set PREFECT_API_AUTH_STRING"


def _no_api(client: "SyncPrefectClient") -> ConfigError:
    return ConfigError(
        f"what answers at {_url(client)} is no Prefect API, whose address ends in /api"
    )


def _url(client: "SyncPrefectClient") -> str:
    return str(client.api_url).rstrip("/")


def workers_online(client: "SyncPrefectClient") -> list[str]:
    """The names of the workers of our pool that the server has heard of lately."""
    from prefect.client.schemas.objects import WorkerStatus

    workers = client.read_workers_for_work_pool(POOL)
    return [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]


def missing_deployments(client: "SyncPrefectClient") -> list[str]:
    """The entries of prefect.yaml here that the server lacks."""
    import yaml
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    wanted = {
        entry["name"] for entry in yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]
    }
    there = client.read_deployments(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=sorted(wanted)))
    )
    return sorted(wanted - {deployment.name for deployment in there})
