"""`penstock reports list`: every report this machine knows of."""

import argparse

from flows._cli.reports.choice import chosen, ledgers, options_of_choice, table

EXAMPLES = ("reports list", "reports list --status waiting", "reports list --since 2026-11-21")


def arguments(parser: argparse.ArgumentParser) -> None:
    options_of_choice(parser)
    parser.add_argument(
        "--status", choices=("waiting", "told", "dead"), help="only those that are this far"
    )


def main(options: argparse.Namespace) -> int:
    with ledgers() as opened:
        table([one for _, ledger in opened for one in chosen(ledger, options, options.status)])
    return 0
