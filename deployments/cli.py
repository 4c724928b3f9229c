"""The `penstock` command: one table from words to modules, imported only when used.

Exit codes: 0 done, 1 what was asked for did not succeed, 2 wrong usage or settings, 130 Ctrl-C.
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from blocks.errors import ConfigError, PenstockError


class Command(Protocol):
    """What a command's module has."""

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def main(self, options: argparse.Namespace) -> int: ...


# verb → (module, one line). A module imports Prefect only inside main().
COMMANDS = {
    "up": ("deployments.local.up", "start server, worker and listener of this checkout"),
    "run": ("deployments.local.run", "run a deployment, follow it, and check every report"),
    "status": ("deployments.local.status", "tell what of this checkout runs"),
    "down": ("deployments.local.down", "stop exactly what `up` or `run` started"),
    "stop": ("flows._cli.stop", "end a run, also one whose process is gone"),
    "sweep": ("flows._cli.sweep", "end what lost runs of this machine left"),
    "seed": ("deployments.seed", "register block types and save sample blocks"),
    "listen": ("deployments.listener.app", "receive reports and check their signatures"),
}


def parser_for(verb: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of `verb` alone: the others' modules are not imported."""
    parser = argparse.ArgumentParser(
        prog="penstock",
        description="Spark, notebooks and CWL workflows as Prefect tasks, with signed reports.",
        epilog="exit codes: 0 done, 1 it did not succeed, 2 wrong usage or settings, 130 Ctrl-C",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        sub = verbs.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name == verb:
            cast(Command, import_module(module)).arguments(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    verb = next((word for word in words if not word.startswith("-")), None)
    options = parser_for(verb).parse_args(words)
    module, _ = COMMANDS[options.verb]
    run: Callable[[argparse.Namespace], int] = cast(Command, import_module(module)).main
    try:
        return run(options)
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("penstock: interrupted", file=sys.stderr)
        return 130
