"""The embedded queue itself: one SQLite file, several processes, the semantics of SQS.

Everything here is synchronous and takes `now` (seconds since the epoch, the clock all processes share); one
`QueueFile` belongs to one thread. `consumer.sources.local` keeps it off the event loop.

Bodies live in a table of their own, so that a receive rewrites rows of a few bytes and not the messages. Messages
without an ordering key are found by the time they are due. Messages with one are found through `lanes`, which holds
for each key when its next message may be handed out: not before its first message is due, and not while any of its
messages is held. So a receive costs the same however long a blocked lane is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from consumer.errors import SourceRefused
from consumer.files import make_folder
from consumer.sources.base import Depth, Message, Outgoing

__all__ = ["BUSY_TIMEOUT", "QueueFile", "Receipt"]

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's transaction."""

_APPLICATION_ID: Final = 0x48454C51  # "HELQ": marks the file as a queue of this program
_VERSION: Final = 1

_SCHEMA: Final = (
    "CREATE TABLE queue (id TEXT NOT NULL, last INTEGER NOT NULL)",
    """CREATE TABLE messages (seq INTEGER PRIMARY KEY, lane TEXT, sent_at REAL NOT NULL, visible_at REAL NOT NULL,
                           receives INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX messages_loose ON messages (visible_at, seq) WHERE lane IS NULL",
    "CREATE INDEX messages_laned ON messages (lane, seq) WHERE lane IS NOT NULL",
    "CREATE INDEX messages_held ON messages (lane) WHERE lane IS NOT NULL AND held = 1",
    "CREATE TABLE bodies (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, headers TEXT NOT NULL)",
    "CREATE TABLE lanes (lane TEXT PRIMARY KEY, due REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX lanes_due ON lanes (due)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)
_ROWS: Final = """SELECT m.seq, m.lane, m.sent_at, m.visible_at, m.receives, b.body, b.headers
                 FROM messages m JOIN bodies b USING (seq)"""
_LOOSE: Final = f"{_ROWS} WHERE m.lane IS NULL AND m.visible_at <= ? ORDER BY m.visible_at, m.seq LIMIT ?"
_LANED: Final = f"{_ROWS} WHERE m.lane = ? ORDER BY m.seq LIMIT ?"
_OURS: Final = "seq = ? AND receives = ? AND held = 1"

_Row = tuple[int, str | None, float, float, int, bytes, str]


class Receipt(NamedTuple):
    """What settles one receive of one message; a later receive of the same message makes another."""

    queue: str
    seq: int
    receives: int


class QueueFile:
    """An open queue file. Not thread-safe: one thread opens, uses and closes it.

    `retention` is in seconds; None keeps messages for ever. The file and its folder are created when missing, for the
    owner's eyes only. Raises `sqlite3.Error` and `OSError` as they come, and `SourceRefused` for a file that is
    something else.
    """

    def __init__(self, path: Path, *, retention: float | None = None) -> None:
        self.path = path
        self._retention = retention
        self._durable: bool | None = None
        make_folder(path.parent)
        # SQLite gives its -wal and -shm files the mode of the database file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            self._prepare()
            found = path.stat()
        except BaseException:
            self._db.close()
            raise
        self._identity = (found.st_dev, found.st_ino)

    @property
    def replaced(self) -> bool:
        """Whether the path no longer leads to the file that is open: whatever is written now would be lost."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def close(self) -> None:
        """Close the file; the last one to do so folds its log back into it."""
        self._db.close()

    def send(self, messages: Sequence[Outgoing], *, now: float) -> None:
        """Append messages, all or none; they are on disk when this returns."""
        with self._transaction(durable=True):
            (last,) = self._one("SELECT last FROM queue")
            rows = list(enumerate(messages, last + 1))
            self._db.execute("UPDATE queue SET last = ?", (last + len(rows),))
            self._db.executemany(
                "INSERT INTO messages (seq, lane, sent_at, visible_at) VALUES (?, ?, ?, ?)",
                [(seq, m.ordering_key, now, now + m.delay) for seq, m in rows],
            )
            self._db.executemany(
                "INSERT INTO bodies (seq, body, headers) VALUES (?, ?, ?)",
                [(seq, m.body, json.dumps(dict(m.headers)) if m.headers else "") for seq, m in rows],
            )
            # A lane that is there already has an earlier message, which alone decides when the lane is due.
            self._db.executemany(
                "INSERT OR IGNORE INTO lanes (lane, due) VALUES (?, ?)",
                [(m.ordering_key, now + m.delay) for _, m in rows if m.ordering_key is not None],
            )

    def take(self, limit: int, *, now: float, lease: float, lease_until: float) -> list[Message]:
        """Hand out up to `limit` messages, oldest first, for `lease` seconds.

        `lease_until` is what the messages will say of it, by the reader's own clock.
        """
        if self.next_due() > now:  # a reader's look costs no write lock
            return []
        with self._transaction(durable=False):
            self._expire(now)
            rows = self._choose(limit, now)
            self._db.executemany(
                "UPDATE messages SET visible_at = ?, receives = receives + 1, held = 1 WHERE seq = ?",
                [(now + lease, row[0]) for row in rows],
            )
            self._refresh(row[1] for row in rows)
        return [self._message(row, lease_until) for row in rows]

    def acknowledge(self, receipts: Sequence[Receipt]) -> list[bool]:
        """Delete messages for ever; tells of each whether the receipt still held it. On disk on return."""
        with self._transaction(durable=True):
            settled = self._each(receipts, f"DELETE FROM messages WHERE {_OURS}", ())  # noqa: S608  (constants only)
            self._db.executemany(
                "DELETE FROM bodies WHERE seq = ?",
                [(r.seq,) for r, done in zip(receipts, settled, strict=True) if done],
            )
        return settled

    def extend(self, receipts: Sequence[Receipt], *, now: float, lease: float) -> list[bool]:
        """Hold messages for another `lease` seconds from now; tells of each whether the receipt still held it."""
        with self._transaction(durable=False):
            return self._each(receipts, f"UPDATE messages SET visible_at = ? WHERE {_OURS}", (now + lease,))  # noqa: S608  (constants only)

    def release(self, receipts: Sequence[Receipt], *, now: float, delay: float) -> list[bool]:
        """Give messages back, due after `delay` seconds; 0 also gives them back their place in the order of sending."""
        due, value = ("min(sent_at, ?)", now) if delay <= 0 else ("?", now + delay)
        statement = f"UPDATE messages SET held = 0, visible_at = {due} WHERE {_OURS}"  # noqa: S608  (constants only)
        with self._transaction(durable=False):
            return self._each(receipts, statement, (value,))

    def depth(self, *, now: float) -> Depth:
        """Count the messages; those waiting behind another of their lane count as visible."""
        oldest = -math.inf if self._retention is None else now - self._retention
        counts = self._one(
            "SELECT count(*), total(visible_at > ?1 AND held), total(visible_at > ?1 AND NOT held)"
            " FROM messages WHERE sent_at > ?2",
            (now, oldest),
        )
        everything, held, delayed = (int(count) for count in counts)
        return Depth(visible=everything - held - delayed, invisible=held, delayed=delayed)

    def waiting_since(self, *, now: float) -> float | None:
        """When the oldest message that nobody holds was sent; None: there is none."""
        oldest = -math.inf if self._retention is None else now - self._retention
        (sent_at,) = self._one(
            "SELECT min(sent_at) FROM messages WHERE sent_at > ?2 AND NOT (visible_at > ?1 AND held)", (now, oldest)
        )
        return None if sent_at is None else float(sent_at)

    def next_due(self) -> float:
        """When the next message can be handed out, as far as is known now; infinite when there is none."""
        (due,) = self._one(
            "SELECT min(due) FROM (SELECT min(visible_at) AS due FROM messages WHERE lane IS NULL"
            " UNION ALL SELECT min(due) FROM lanes)"
        )
        return math.inf if due is None else float(due)

    def probe(self) -> None:
        """Take the write lock and give it back: raises what a write would raise."""
        with self._transaction(durable=False):
            self._db.execute("UPDATE queue SET last = last")

    def _prepare(self) -> None:
        self._is_new()  # before anything is changed in what may be somebody else's file
        self._use_log()
        self._db.execute("PRAGMA secure_delete = FAST").fetchone()
        with self._transaction(durable=True):
            if self._is_new():
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute("INSERT INTO queue VALUES (?, 0)", (secrets.token_hex(6),))
            (self._id,) = self._one("SELECT id FROM queue")

    def _is_new(self) -> bool:
        (application,) = self._one("PRAGMA application_id")
        (version,) = self._one("PRAGMA user_version")
        (tables,) = self._one("SELECT count(*) FROM sqlite_master")
        if (application, version, tables) == (0, 0, 0):
            return True
        if application != _APPLICATION_ID:
            raise SourceRefused(f"{self.path} is an SQLite file, but not a queue of this program")
        if version != _VERSION:
            raise SourceRefused(f"{self.path} was made by another release (format {version}, not {_VERSION})")
        return False

    def _use_log(self) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL").fetchone()
                return
            except sqlite3.OperationalError as error:
                # Switching to WAL does not wait for other openers, whatever the busy timeout.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[None]:
        if durable is not self._durable:
            # A hand-out or a lease that a power cut undoes only means that a message comes twice.
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise

    def _one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return self._db.execute(statement, values).fetchone()

    def _choose(self, limit: int, now: float) -> list[_Row]:
        loose: list[_Row] = self._db.execute(_LOOSE, (now, limit)).fetchall()
        lanes = self._db.execute("SELECT due, lane FROM lanes WHERE due <= ? ORDER BY due LIMIT ?", (now, limit))
        ready: list[tuple[float, str]] = lanes.fetchall()
        if not ready:
            return loose
        share = -(-limit // len(ready))  # a busy lane must not fill the whole hand with what can only run one by one
        runs = [(row[3], [row]) for row in loose] + [(due, self._run(lane, share, now)) for due, lane in ready]
        runs.sort(key=lambda run: run[0])
        return [row for _, run in runs for row in run][:limit]

    def _run(self, lane: str, limit: int, now: float) -> list[_Row]:
        rows: list[_Row] = self._db.execute(_LANED, (lane, limit)).fetchall()
        for index, row in enumerate(rows):
            if row[3] > now:
                return rows[:index]
        return rows

    def _each(self, receipts: Sequence[Receipt], statement: str, values: tuple[float, ...]) -> list[bool]:
        """Run the statement for each receipt of this queue that still holds; tell which did."""
        settled: list[bool] = []
        lanes: set[str | None] = set()
        for queue, seq, receives in receipts:
            found = self._one("SELECT lane FROM messages WHERE seq = ?", (seq,)) if queue == self._id else None
            done = found is not None and self._db.execute(statement, (*values, seq, receives)).rowcount == 1
            settled.append(done)
            lanes.update(found if found is not None and done else ())
        self._refresh(lanes)
        return settled

    def _refresh(self, lanes: Iterable[str | None]) -> None:
        """Work out anew when each of these lanes is due."""
        for lane in {lane for lane in lanes if lane is not None}:
            head = self._one("SELECT visible_at FROM messages WHERE lane = ? ORDER BY seq LIMIT 1", (lane,))
            if head is None:
                self._db.execute("DELETE FROM lanes WHERE lane = ?", (lane,))
                continue
            (held,) = self._one("SELECT max(visible_at) FROM messages WHERE lane = ? AND held = 1", (lane,))
            due = head[0] if held is None else max(head[0], held)
            self._db.execute("INSERT OR REPLACE INTO lanes (lane, due) VALUES (?, ?)", (lane, due))

    def _expire(self, now: float) -> None:
        if self._retention is None:
            return
        oldest = now - self._retention
        # Sequence numbers are given in order of sending: nothing behind the first one that stays need be looked at.
        stays = self._one("SELECT seq FROM messages WHERE sent_at > ? ORDER BY seq LIMIT 1", (oldest,))
        (before,) = self._one("SELECT last + 1 FROM queue") if stays is None else stays
        lanes = self._db.execute("SELECT DISTINCT lane FROM messages WHERE seq < ?", (before,)).fetchall()
        for table in ("messages", "bodies"):
            self._db.execute(f"DELETE FROM {table} WHERE seq < ?", (before,))  # noqa: S608  (constants only)
        self._refresh(lane for (lane,) in lanes)

    def _message(self, row: _Row, lease_until: float) -> Message:
        seq, lane, sent_at, _, receives, body, headers = row
        expires_at = None if self._retention is None else datetime.fromtimestamp(sent_at + self._retention, UTC)
        return Message(
            body=body,
            message_id=f"{self._id}-{seq}",
            receipt=Receipt(self._id, seq, receives + 1),
            accepted_at=datetime.fromtimestamp(sent_at, UTC),
            receive_count=receives + 1,
            lease_until=lease_until,
            expires_at=expires_at,
            ordering_key=lane,
            headers=json.loads(headers) if headers else {},
        )
