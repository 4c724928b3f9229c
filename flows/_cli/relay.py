"""`penstock relay`: tell what no hook sees, and call Crashed what has vanished, until it is ended.

One for each Prefect server; `penstock up` starts it.
"""

import argparse
import os

from blocks.errors import ConfigError

EXAMPLES = ("relay",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has none: which server it follows, and for whom, the environment says."""


def main(options: argparse.Namespace) -> int:
    if "PREFECT_API_URL" not in os.environ:
        raise ConfigError("PREFECT_API_URL is not set: which server should be followed?")
    import signal

    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows._reports.outbox import folder
    from flows._reports.relay import Relay, alone

    # It asks again by itself, and must know how long the server was away.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), alone(place := folder()):
        relay = Relay(place)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, relay.end)
        print(f"following {os.environ['PREFECT_API_URL']}", flush=True)
        relay.run()
    return 0
