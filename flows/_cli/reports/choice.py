"""Which deliveries a `reports` command is about, and how they are shown.

ledgers of this installation ──► deliveries ──► list, show, dead
                                     └──────► replay ──► courier
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import ConfigError
from flows._reports.ledger import Ledger
from flows._reports.outbox import folders
from flows._reports.rows import Delivery


def options_of_choice(parser: argparse.ArgumentParser) -> None:
    """Options that choose deliveries."""
    parser.add_argument("--run", metavar="ID", help="of this root flow run only")
    parser.add_argument("--endpoint", metavar="NAME", help="for this endpoint or channel only")
    parser.add_argument(
        "--since", metavar="TIME", help="made since then, such as 2026-11-21 or 2026-11-21T09:30"
    )


@contextmanager
def ledgers() -> Iterator[list[tuple[Path, Ledger]]]:
    """Each folder of reports and its ledger."""
    opened = [(place, Ledger(place)) for place in folders() if (place / "ledger.db").exists()]
    try:
        yield opened
    finally:
        for _, ledger in opened:
            ledger.close()


def chosen(ledger: Ledger, options: argparse.Namespace, status: str | None) -> list[Delivery]:
    """The deliveries of one ledger that the options choose."""
    wanted = {"status": status, "d.root": options.run}
    given = {column: value for column, value in wanted.items() if value}
    conditions = [f"{column} = ?" for column in given]
    values: list[object] = list(given.values())
    if options.endpoint:
        conditions.append("(endpoint = ? OR endpoint LIKE '%/' || ?)")
        values += [options.endpoint, options.endpoint]
    if options.since:
        conditions.append("made >= ?")
        values.append(_moment(options.since))
    return ledger.find(f"WHERE {' AND '.join(conditions)}" if conditions else "", values)


def table(deliveries: list[Delivery]) -> None:
    """One line for each, oldest first, and how many there are."""
    for one in deliveries:
        why = f"  {one.why}" if one.why and one.status != "told" else ""
        tries = f"{one.attempts} tries" if one.attempts != 1 else "1 try"
        print(f"{when(one.made)}  {one.status:<7}  {one.endpoint}  {one.message}  {tries}{why}")
    print(f"{len(deliveries)} report(s)")


def when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(" ", timespec="seconds")


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise ConfigError(f"--since {text!r} is no time; write it like 2026-11-21T09:30") from None
