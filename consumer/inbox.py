"""The inbox: which events took effect, and how often the others were tried."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from consumer import inbox_sql
from consumer.database import Database
from consumer.unit_of_work import HandlerSession, InboxRow, LostRace, UnitOfWork

__all__ = ["HandlerSession", "Inbox", "InboxRow", "LostRace", "Seen", "UnitOfWork", "body_hash", "event_key"]

_KEYS_PER_STATEMENT = 1_000
_PRUNE_ROWS = {"sqlite": 500, "postgresql": 5_000}
"""Rows deleted in one transaction: on SQLite it runs in the event loop, and must take milliseconds."""


def event_key(namespace: str, provider: str, *parts: str) -> bytes:
    """The event's key: SHA-256 over its parts, each with its length before it, so that no two lists are one text."""
    text = f"{len(namespace)}:{namespace},{len(provider)}:{provider},"
    for part in parts:
        text += f"{len(part)}:{part},"
    # JSON can hold half a surrogate pair, which strict UTF-8 cannot.
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def body_hash(body: bytes) -> bytes:
    """SHA-256 of the body; tells a repeated event from another one under the same id."""
    return sha256(body).digest()


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of an event's key."""

    body_hash: bytes | None = None
    """Of the body that took effect; None: the event is not in the inbox."""
    failures: int = 0
    starts: int = 0
    """Runs whose start was recorded and whose outcome was not."""
    dead_lettered: bool = False
    """Put aside already, while other events of its delivery are open."""


class Inbox:
    """The inbox in a database. Every method raises only `DatabaseUnavailable` or `DatabaseConflict`.

    The writing methods use transactions of their own: on SQLite they wait for the open unit of work, so they must not
    be called inside it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect

    async def lookup(self, keys: Sequence[bytes]) -> dict[bytes, Seen]:
        """What is known of these keys, in one round trip; keys never seen are left out."""
        seen: dict[bytes, Seen] = {}
        for start in range(0, len(keys), _KEYS_PER_STATEMENT):
            chunk = keys[start : start + _KEYS_PER_STATEMENT]
            sql = inbox_sql.render(inbox_sql.LOOKUP, self._dialect, len(chunk))
            found = await self._database.read(sql, inbox_sql.parameters(self._dialect, chunk, repeat=2))
            for key, digest, failures, starts, dead_lettered in found:
                known = seen.get(key)
                if known is None:
                    seen[key] = Seen(digest, failures, starts, bool(dead_lettered))
                else:  # in the inbox and with attempts: another worker counted a failure after it took effect
                    seen[key] = Seen(known.body_hash or digest, failures, starts, bool(dead_lettered))
        return seen

    def transaction(self) -> UnitOfWork:
        """A unit of work for the handlers of one event or of a group."""
        return UnitOfWork(self._database)

    async def record_failures(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Count one failed run for each key and forget its recorded starts; returns the new counts."""
        counts: dict[bytes, int] = {}
        async with self._database.transaction() as connection:
            for chunk in _chunks(keys):
                rows = await self._run(connection, inbox_sql.COUNT_FAILURE, chunk)
                counts.update((key, failures) for key, failures in rows)
        return counts

    async def record_start(self, key: bytes) -> int:
        """Count a start before a run that may kill the process; returns how many there are without an outcome."""
        async with self._database.transaction() as connection:
            ((starts,),) = await self._run(connection, inbox_sql.COUNT_START, [key])
        return int(starts)

    async def clear_starts(self, keys: Sequence[bytes]) -> None:
        """Forget recorded starts: the runs had an outcome, or the process stopped as it should."""
        await self._write(keys, inbox_sql.CLEAR_STARTS, inbox_sql.DROP_EMPTY_ATTEMPTS)

    async def forget_attempts(self, keys: Sequence[bytes]) -> None:
        """Forget everything about keys that did not take effect: their messages are settled."""
        await self._write(keys, inbox_sql.FORGET_ATTEMPTS)

    async def mark_dead_lettered(self, keys: Sequence[bytes]) -> None:
        """Remember that these events of deliveries that are still open were put aside."""
        await self._write(keys, inbox_sql.MARK_DEAD_LETTERED)

    async def prune(self, retention: float | None) -> int:
        """Delete what is older than `retention` seconds by the database's clock; None keeps everything.

        Works in short transactions and returns how many rows went. Attempts are deleted that long after the last one.
        """
        if retention is None:
            return 0
        return await self._prune("consumer_inbox", retention) + await self._prune("consumer_attempts", retention)

    async def _prune(self, table: Literal["consumer_inbox", "consumer_attempts"], retention: float) -> int:
        sql = inbox_sql.prune(table, self._dialect)
        limit = _PRUNE_ROWS[self._dialect]
        total = 0
        while True:
            async with self._database.transaction() as connection:
                deleted = (await connection.exec_driver_sql(sql, (float(retention), limit))).rowcount
            total += deleted
            if deleted < limit:
                return total
            await asyncio.sleep(0)

    async def _write(self, keys: Sequence[bytes], *templates: str) -> None:
        if not keys:
            return
        async with self._database.transaction() as connection:
            for chunk in _chunks(keys):
                for template in templates:
                    await self._run(connection, template, chunk)

    async def _run(self, connection: AsyncConnection, template: str, keys: Sequence[bytes]) -> Sequence[Any]:
        sql = inbox_sql.render(template, self._dialect, len(keys))
        result = await connection.exec_driver_sql(sql, inbox_sql.parameters(self._dialect, keys))
        return result.all() if result.returns_rows else ()


def _chunks(keys: Sequence[bytes]) -> list[list[bytes]]:
    """The keys once each and in order, so that two workers lock their rows in the same order."""
    ordered = iter(sorted(set(keys)))
    return list(iter(lambda: list(islice(ordered, _KEYS_PER_STATEMENT)), []))
