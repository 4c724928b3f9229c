"""The run sheet: one Markdown artifact that says where the time went and who was told what."""

from flows._reports.ledger import Ledger


def publish(ledger: Ledger, root: str) -> None:
    """Write the sheet of a root run, once nothing of it waits any more."""
