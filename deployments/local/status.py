"""`penstock status`: what of this checkout runs, since when, and where."""

import argparse
from datetime import datetime

from blocks._home import home
from deployments.local import service
from deployments.local.couriers import couriers

EXAMPLES = ("status", "status --quiet && penstock down")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="only the exit code: 0 all up, 1 not")


def main(options: argparse.Namespace) -> int:
    services = service.known()
    expected = ("server", "listener", "worker", "relay")
    if not options.quiet:
        for name in expected:
            if found := services.get(name):
                since = datetime.fromtimestamp(found.created).strftime("%Y-%m-%d %H:%M:%S")
                print(f"{name:<10} up since {since}  pid {found.pid:<8} {found.url}")
            else:
                print(f"{name:<10} down")
        for courier in couriers():
            print(f"{'courier':<10} up, ends when nothing waits  pid {courier.pid}")
        print(f"{'home':<10} {home()}")
    return 0 if set(expected) <= set(services) else 1
