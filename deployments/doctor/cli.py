"""`penstock doctor`: one line per check, each with what mends it.

machine (no server needed) ─┐
server, if one is up ───────┼─► Finding ──► a line, or JSON ──► exit code 1 if any is bad
endpoints (--send) ─────────┘
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial

from blocks.errors import ConfigError
from deployments.doctor.finding import Check, Finding, run_all
from deployments.local import service

EXAMPLES = ("doctor", "doctor --send")
_STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--send", action="store_true", help="send one test message to each saved ReportEndpoint"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def main(options: argparse.Namespace) -> int:
    found = list(run_all(_checks(options.send)))
    if options.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1, ensure_ascii=False))
    else:
        _show(found)
    return 1 if any(finding.level == "bad" for finding in found) else 0


def _checks(send: bool) -> dict[str, Check]:
    """The checks that can be made now."""
    from deployments.doctor import machine

    api_url = _api_url()
    if api_url is None:
        return {**machine.CHECKS, "Prefect": partial(_nothing_is_up, send)}
    service.adopt_environment(api_url)
    # Imported before any thread starts: Prefect's modules must not be imported in two at a time.
    from deployments.doctor import server

    return {
        **machine.CHECKS,
        "Prefect": server.server,
        **({"endpoints": server.send} if send else {}),
    }


def _api_url() -> str | None:
    try:
        services = service.known()
    except (OSError, ConfigError):
        return None  # no place to write, or no telling what is up: `files` or `ports` tells why
    running = services.get("worker") or services.get("server")
    return running.url if running else None


def _nothing_is_up(send: bool) -> Iterator[Finding]:
    found = "nothing of this checkout is up" + (", so nothing could be sent" if send else "")
    yield Finding("bad" if send else "warn", "Prefect", found, "`penstock up`")


def _show(found: Iterable[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for finding in found:
        fix = f"  ► {finding.fix}" if finding.fix else ""
        console.print(
            Text.assemble(
                (f"{finding.level:<5}", _STYLES[finding.level]),
                f"{finding.about:<12} {finding.found}",
                (fix, "bold"),
            )
        )
