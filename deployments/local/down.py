"""`penstock down`: stop exactly what was started here; runs in progress are cancelled first."""

import argparse

from deployments.local import service
from deployments.local.couriers import couriers, end_couriers

EXAMPLES = ("down",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kill", action="store_true", help="do not cancel runs first: their programs die with them"
    )


def main(options: argparse.Namespace) -> int:
    services = service.known()
    if not services and not couriers():
        print("nothing of this checkout is up")
        return 0
    if "worker" in services and not options.kill:
        _cancel_runs(services["worker"].url, own_server="server" in services)
    # The newest first: a worker must not outlive the server it asks.
    for name, running in reversed(list(services.items())):
        service.stop(running)
        print(f"stopped the {name}")
    if end_couriers():
        print("stopped the courier of reports; what it has not told yet is kept")
    return 0


def _cancel_runs(api_url: str, *, own_server: bool) -> None:
    service.adopt_environment(api_url)
    import httpx

    from deployments.local.runs import cancel_open_runs

    try:
        if cancelled := cancel_open_runs(own_server=own_server):
            print(f"cancelled {cancelled} run(s) in progress")
    except httpx.HTTPError as error:
        print(
            f"the Prefect server cannot be asked ({type(error).__name__}): "
            "runs in progress die with their worker"
        )
