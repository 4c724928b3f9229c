"""`penstock reports replay`: send reports once more, with the ids they had."""

import argparse

from blocks.errors import ConfigError
from flows._cli.reports.choice import chosen, ledgers, options_of_choice, table
from flows._reports.outbox import call_courier

EXAMPLES = (
    "reports replay 0f1e2d3c-…/status",
    "reports replay --run 0f1e2d3c-… --dry-run",
    "reports replay --dead --endpoint default",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("message", metavar="ID", nargs="?", help="this message only")
    options_of_choice(parser)
    parser.add_argument("--dead", action="store_true", help="only those that were given up")
    parser.add_argument("--dry-run", action="store_true", help="only tell which it would be")


def main(options: argparse.Namespace) -> int:
    if not (options.message or options.run or options.endpoint or options.since or options.dead):
        raise ConfigError("say which: a message's ID, --run, --endpoint, --since or --dead")
    found = []
    with ledgers() as opened:
        for place, ledger in opened:
            mine = [
                one
                for one in chosen(ledger, options, "dead" if options.dead else None)
                if options.message in (None, one.message)
            ]
            found += mine
            if mine and not options.dry_run:
                ledger.replay(mine)
                call_courier(place)
    if options.message and not found:
        raise ConfigError(f"no such report is called {options.message!r}")
    table(found)
    return 0
