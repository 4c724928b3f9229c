"""What the ledger holds: its tables, and their rows as data."""

from dataclasses import dataclass
from typing import Literal

from blocks._messages import Message

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS changes (n INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs
    (root TEXT PRIMARY KEY, names TEXT NOT NULL, endpoints TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS doubtful  -- saved, but could not be loaded when the run was first seen
    (root TEXT, endpoint TEXT, PRIMARY KEY (root, endpoint));
CREATE TABLE IF NOT EXISTS messages
    (id TEXT PRIMARY KEY, root TEXT NOT NULL, made REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    message TEXT NOT NULL, endpoint TEXT NOT NULL, root TEXT NOT NULL,
    last INTEGER NOT NULL,             -- of the run: its acknowledgement becomes a label
    status TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0, settled REAL, why TEXT NOT NULL DEFAULT '',
    UNIQUE (message, endpoint));
CREATE INDEX IF NOT EXISTS lanes ON deliveries (endpoint, root, n) WHERE status = 'waiting';
CREATE INDEX IF NOT EXISTS of_root ON deliveries (root);
CREATE TABLE IF NOT EXISTS labels
    (root TEXT, endpoint TEXT, value TEXT NOT NULL, PRIMARY KEY (root, endpoint));
CREATE TABLE IF NOT EXISTS sheets (root TEXT PRIMARY KEY, due REAL NOT NULL);
"""

Status = Literal["waiting", "told", "dead"]


@dataclass(frozen=True)
class Delivery:
    """One message for one endpoint, and how far it got."""

    n: int
    message: str
    endpoint: str
    root: str
    last: bool
    status: Status
    attempts: int
    due: float  # seconds since the epoch
    settled: float | None
    why: str
    made: float


@dataclass(frozen=True)
class Made:
    """What was made of a change: messages, and which endpoint wants which (in their order)."""

    change: int
    root: str
    messages: list[Message]
    deliveries: list[tuple[str, str]]  # message id, endpoint
    ends: bool  # the root run has ended: an endpoint's last acknowledgement becomes a label

    @property
    def lasts(self) -> set[tuple[str, str]]:
        last = {endpoint: message for message, endpoint in self.deliveries}
        return {(message, endpoint) for endpoint, message in last.items()}
