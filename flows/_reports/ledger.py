"""The ledger: what is to be told to whom, what was answered, in one SQLite file.

outbox ──► changes ──► messages, for each endpoint a delivery ──► told | dead
                                               └── lane: one run at one endpoint, in order

The courier alone writes it, save for `penstock reports replay`. WAL with synchronous=NORMAL: a
commit survives the death of any process; the loss of the machine is `redeliver`'s business.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blocks._changes import Change
from blocks._messages import Message, Names
from flows._reports.rows import SCHEMA, Delivery, Made, Status

KEEP_TOLD = 7 * 86400.0  # seconds for which `penstock reports` knows of what was told
KEEP_DEAD = 30 * 86400.0
ROWS_LATE = 3.0  # seconds after a run's end in which the API may not know all of its tasks yet


class Ledger:
    """One connection; each thread opens its own."""

    def __init__(self, place: Path) -> None:
        self.path = place / "ledger.db"
        self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        self.path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    # What came from the outbox

    def offsets(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT name, offset FROM files"))

    def take_in(self, changes: Iterable[Change], offsets: dict[str, int]) -> None:
        """Keep changes and how far the outbox was read, both or none."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO changes (body) VALUES (?)",
                [(json.dumps(asdict(change)),) for change in changes],
            )
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", offsets.items())

    def forget_file(self, name: str) -> None:
        self._db.execute("DELETE FROM files WHERE name = ?", [name])

    def changes(
        self, limit: int = 500, *, but_of: Collection[str] = ()
    ) -> list[tuple[int, Change]]:
        """The oldest changes that no messages were made of yet, save for those of some runs."""
        rows = self._db.execute(
            "SELECT n, body FROM changes WHERE json_extract(body, '$.run') NOT IN"
            " (SELECT value FROM json_each(?)) ORDER BY n LIMIT ?",
            [json.dumps([*but_of]), limit],
        )
        return [(n, Change(**json.loads(body))) for n, body in rows]

    def holds(self, state: str) -> bool:
        """Whether the change with that state's id came, and waits for its messages to be made."""
        found = "SELECT 1 FROM changes WHERE json_extract(body, '$.state') = ?"
        return self._db.execute(found, [state]).fetchone() is not None

    # Who hears a run

    def run(self, root: str) -> tuple[Names, list[str] | None] | None:
        """The names of a root run and the endpoints that hear it, once they are known; None for
        the endpoints of a run that nobody is meant to hear.
        """
        row = self._db.execute("SELECT names, endpoints FROM runs WHERE root = ?", [root])
        found = row.fetchone()
        return (Names(**json.loads(found[0])), json.loads(found[1])) if found else None

    def know(self, names: Names, endpoints: list[str] | None, doubtful: Iterable[str] = ()) -> None:
        """Keep who hears a run; of `doubtful` endpoints it is not known yet."""
        with self._transaction():
            known = self._db.execute(
                "INSERT OR IGNORE INTO runs VALUES (?, ?, ?)",
                [names.root, json.dumps(asdict(names)), json.dumps(endpoints)],
            )
            if known.rowcount and endpoints is not None:
                self._db.executemany(
                    "INSERT INTO doubtful VALUES (?, ?)", [(names.root, one) for one in doubtful]
                )

    def doubtful(self, root: str) -> list[str]:
        rows = self._db.execute("SELECT endpoint FROM doubtful WHERE root = ?", [root])
        return [endpoint for (endpoint,) in rows]

    def decide(self, root: str, endpoint: str, *, hears: bool) -> None:
        """A doubtful endpoint hears a run from now on, or does not."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM doubtful WHERE (root, endpoint) = (?, ?)", [root, endpoint]
            )
            if hears:
                self._db.execute(
                    "UPDATE runs SET endpoints = json_insert(endpoints, '$[#]', ?) WHERE root = ?",
                    [endpoint, root],
                )

    def may_hear(self, root: str, endpoint: str) -> bool:
        """Whether a run has that endpoint, or may yet; so it is for a run that never came here."""
        kept = self.run(root)
        if kept is None:
            return True
        return endpoint in (kept[1] or []) or endpoint in self.doubtful(root)

    # Messages and their deliveries

    def resolve(self, made: Iterable[Made]) -> None:
        """Replace changes by what they call for, all or nothing."""
        now = time.time()
        with self._transaction():
            for one in made:
                for message in one.messages:
                    self._db.execute(
                        "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?)",
                        [message.id, one.root, now, message.as_json()],
                    )
                self._db.executemany(
                    "INSERT OR IGNORE INTO deliveries (message, endpoint, root, last) "
                    "VALUES (?, ?, ?, ?)",
                    [(*delivery, one.root, one.ends and delivery in one.lasts)
                     for delivery in one.deliveries],
                )  # fmt: skip
                if one.ends:
                    self._ask_for_sheet(one.root, now + ROWS_LATE)
                self._db.execute("DELETE FROM changes WHERE n = ?", [one.change])

    def has(self, base: str, endpoint: str | None = None) -> bool:
        """Whether messages of that event are here, told or not; or those for `endpoint`."""
        found = "SELECT 1 FROM messages WHERE id > ? AND id < ?"  # "0" comes next to "/"
        if endpoint is not None:
            found = "SELECT 1 FROM deliveries WHERE message > ? AND message < ? AND endpoint = ?"
        values = [f"{base}/", f"{base}0", *([] if endpoint is None else [endpoint])]
        return self._db.execute(found, values).fetchone() is not None

    def message(self, message_id: str) -> Message:
        row = self._db.execute("SELECT body FROM messages WHERE id = ?", [message_id]).fetchone()
        return Message.from_json(row[0])

    def endpoints(self) -> list[str]:
        """Every endpoint that something waits for."""
        rows = self._db.execute("SELECT DISTINCT endpoint FROM deliveries WHERE status = 'waiting'")
        return [endpoint for (endpoint,) in rows]

    def lanes(self, endpoint: str) -> list[tuple[str, float]]:
        """The runs that wait at `endpoint`, and when the head of each is due; oldest first."""
        return list(
            self._db.execute(
                "SELECT root, due FROM deliveries WHERE n IN (SELECT MIN(n) FROM deliveries"
                " WHERE status = 'waiting' AND endpoint = ? GROUP BY root) ORDER BY due, n",
                [endpoint],
            )
        )

    def waiting(self, endpoint: str, root: str, limit: int = 50) -> list[Delivery]:
        """The next deliveries of one lane."""
        return list(
            self._select(
                "WHERE status = 'waiting' AND endpoint = ? AND d.root = ? ORDER BY n LIMIT ?",
                [endpoint, root, limit],
            )
        )

    def find(self, where: str = "", values: Iterable[Any] = ()) -> list[Delivery]:
        """Deliveries by a condition of ours; never of a caller's making."""
        return list(self._select(f"{where} ORDER BY n", list(values)))

    def settle(self, delivery: Delivery, status: Status, why: str = "") -> None:
        """The delivery is over; the last one of a run asks for its label in the same breath."""
        settle = "UPDATE deliveries SET status = ?, attempts = attempts + 1, settled = ?, why = ?"
        with self._transaction():
            self._db.execute(f"{settle} WHERE n = ?", [status, time.time(), why, delivery.n])
            if delivery.last:
                self._db.execute(
                    "INSERT OR REPLACE INTO labels VALUES (?, ?, ?)",
                    [delivery.root, delivery.endpoint, f"{status} {delivery.message}"],
                )
                self._ask_for_sheet(delivery.root, time.time() + ROWS_LATE)

    def postpone(self, delivery: Delivery, due: float, why: str) -> None:
        self._db.execute(
            "UPDATE deliveries SET attempts = attempts + 1, due = ?, why = ? WHERE n = ?",
            [due, why, delivery.n],
        )

    def hurry(self, endpoint: str) -> None:
        """Whatever waits at `endpoint` is due now."""
        self._db.execute(
            "UPDATE deliveries SET due = 0 WHERE status = 'waiting' AND endpoint = ? AND due > 0",
            [endpoint],
        )

    def replay(self, deliveries: Iterable[Delivery]) -> None:
        """Send them once more, from the beginning of their patience."""
        now = time.time()
        with self._transaction():
            for delivery in deliveries:
                self._db.execute(
                    "UPDATE deliveries SET status = 'waiting', attempts = 0, due = 0 WHERE n = ?",
                    [delivery.n],
                )
                self._db.execute(
                    "UPDATE messages SET made = ? WHERE id = ?", [now, delivery.message]
                )

    def labels(self) -> list[tuple[str, str, str]]:
        """Labels to be written: root run, endpoint, value."""
        return list(self._db.execute("SELECT root, endpoint, value FROM labels"))

    def labelled(self, root: str, endpoint: str, value: str) -> None:
        self._db.execute("DELETE FROM labels WHERE (root, endpoint, value) = (?, ?, ?)",
                         [root, endpoint, value])  # fmt: skip

    def sheets(self) -> list[tuple[str, float]]:
        """Root runs whose sheet is to be written, and when; the next one first."""
        return list(self._db.execute("SELECT root, due FROM sheets ORDER BY due"))

    def written(self, root: str) -> None:
        self._db.execute("DELETE FROM sheets WHERE root = ?", [root])

    def settled(self, root: str) -> bool:
        """Whether the end of a run came here, and was answered by all that hear it."""
        row = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE root = ?)"
            " AND NOT EXISTS (SELECT 1 FROM changes WHERE json_extract(body, '$.run') = ?)"
            " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE root = ? AND status = 'waiting')",
            [root, root, root],
        ).fetchone()
        return bool(row[0])

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be done."""
        row = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM changes) OR EXISTS (SELECT 1 FROM labels) "
            "OR EXISTS (SELECT 1 FROM sheets) "
            "OR EXISTS (SELECT 1 FROM deliveries WHERE status = 'waiting')"
        ).fetchone()
        return not row[0]

    def tidy(self) -> None:
        """Forget what was settled long ago."""
        now = time.time()
        with self._transaction():
            for status, keep in (("told", KEEP_TOLD), ("dead", KEEP_DEAD)):
                self._db.execute(
                    "DELETE FROM deliveries WHERE status = ? AND settled < ?", [status, now - keep]
                )
            self._db.execute(
                "DELETE FROM messages WHERE made < ? AND id NOT IN"
                " (SELECT message FROM deliveries)",
                [now - KEEP_TOLD],
            )
            self._db.execute("DELETE FROM runs WHERE root NOT IN (SELECT root FROM messages)")
            self._db.execute("DELETE FROM doubtful WHERE root NOT IN (SELECT root FROM runs)")

    def _ask_for_sheet(self, root: str, due: float) -> None:
        self._db.execute("INSERT OR IGNORE INTO sheets VALUES (?, ?)", [root, due])

    def _select(self, where: str, values: list[Any]) -> Iterator[Delivery]:
        columns = "n, message, endpoint, d.root, last, status, attempts, due, settled, why, made"
        table = "deliveries d JOIN messages m ON m.id = d.message"
        rows = self._db.execute(f"SELECT {columns} FROM {table} {where}", values)  # noqa: S608 - ours
        return (Delivery(*row) for row in rows)

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT: waits for its turn at the beginning, never in the middle."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")
