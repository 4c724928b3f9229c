"""`penstock reports show`: one report, what it says and what became of it."""

import argparse
import json

from blocks.errors import ConfigError
from flows._cli.reports.choice import ledgers, when

EXAMPLES = ("reports show 0f1e2d3c-…/status",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("message", metavar="ID", help="the message's id, as `reports list` has it")


def main(options: argparse.Namespace) -> int:
    with ledgers() as opened:
        for _, ledger in opened:
            if found := ledger.find("WHERE message = ?", [options.message]):
                message = ledger.message(options.message)
                print(f"{message.id}  (seq {message.seq}, {message.at})")
                print(json.dumps(message.payload, indent=1, ensure_ascii=False))
                for one in found:
                    at = f" at {when(one.settled)}" if one.settled else ""
                    why = f": {one.why}" if one.why else ""
                    print(f"{one.endpoint}: {one.status}{at}, {one.attempts} attempt(s){why}")
                return 0
    raise ConfigError(f"no report is called {options.message!r}; `penstock reports list` has them")
