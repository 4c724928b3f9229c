"""`penstock reports dead`: reports that were refused for good, or not taken in time."""

import argparse

from flows._cli.reports.choice import chosen, ledgers, options_of_choice, table

EXAMPLES = ("reports dead", "reports dead --endpoint default")


def arguments(parser: argparse.ArgumentParser) -> None:
    options_of_choice(parser)


def main(options: argparse.Namespace) -> int:
    with ledgers() as opened:
        table([one for _, ledger in opened for one in chosen(ledger, options, "dead")])
    return 0
