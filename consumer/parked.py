"""Events that wait in the database, for queues that cannot take one back (Event Hubs)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from consumer import parked_sql
from consumer.database import Database
from consumer.sources.base import Depth, Message

__all__ = ["Kept", "ParkedEvents", "Parking", "parked_sources"]

_ROWS_PER_STATEMENT = 100
"""SQLite runs in the event loop, which a hundred rows hold up for some milliseconds."""


@dataclass(frozen=True, slots=True)
class Parking:
    """One event to park."""

    message: Message
    """Its `message_id` must be the event's own within the source, the same on every receive."""
    lane: str | None
    """Rows of a lane run one at a time, in order of position; None: no order."""
    position: int
    """Its place in the lane: the sequence number."""
    delay: float
    """Seconds until it is due, by the database's clock."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """The receipt of a parked event: it stands for one claim of one row."""

    row: int
    count: int
    """How often the row had been claimed, this time included."""
    lane: str | None
    """As it stands in the table."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A parked event as it stands in the table, for whoever looks through it without claiming anything."""

    message: Message
    held: bool
    """A worker has it in hand."""


class ParkedEvents:
    """The parked events of one source. Every method raises only `DatabaseUnavailable` or `DatabaseConflict`.

    Any worker of the source may claim them. A claim ends when it is finished or released; once its lease has run out
    by the database's clock, any worker may take the row over. An event parked late, before one of its lane that is
    claimed, waits for that one.

    The methods but `lanes`, `pages`, `next_due` and `depth` use transactions of their own: on SQLite they wait for the
    open unit of work, so they must not be called inside it. What a call did whose commit is in doubt
    (`DatabaseConflict`) shows when it is made again: what was finished or released is then among the lost.
    """

    def __init__(self, database: Database, source: str, *, owner: str, lease: float = 60.0) -> None:
        """`owner` names the worker, for people; `lease` is how long a claim lasts, in seconds."""
        self._database = database
        self._dialect = database.dialect
        self._source = source
        self._owner = owner
        self._lease = lease

    async def park(self, events: Sequence[Parking]) -> None:
        """Keep these events, all or none; one whose message id is there already is left as it is."""
        if not events:
            return
        sql, names = parked_sql.render(parked_sql.PARK, self._dialect)
        # In the order of the partition: two workers that park the same events meet the same row first.
        ordered = iter(sorted(events, key=lambda event: (event.position, event.message.message_id)))
        async with self._database.transaction() as connection:
            while chunk := list(islice(ordered, _ROWS_PER_STATEMENT)):
                rows = [parked_sql.parameters(names, self._row(event)) for event in chunk]
                await connection.exec_driver_sql(sql, rows)
                await asyncio.sleep(0)
            await self._order(connection, {_stored(event.lane) for event in events if event.lane is not None})

    async def lanes(self, lanes: Collection[str]) -> set[str]:
        """Which of these lanes have parked events."""
        stored = {_stored(lane): lane for lane in lanes}
        if not stored:
            return set()
        rows = await self._read(parked_sql.LANES, lanes=json.dumps(list(stored)))
        return {stored[lane] for (lane,) in rows}

    async def lanes_under(self, prefix: str) -> set[str]:
        """The lanes that have parked events and whose names begin so."""
        stored = _stored(prefix)
        rows = await self._read(parked_sql.LANES_UNDER, prefix=stored, length=len(stored))
        return {_loaded(lane) for (lane,) in rows}

    async def ids_above(self, prefix: str, position: int) -> set[str]:
        """The ids, of those that begin so, of events parked with a position above this one."""
        stored = _stored(prefix)
        rows = await self._read(parked_sql.IDS_ABOVE, prefix=stored, length=len(stored), position=position)
        return {_loaded(message_id) for (message_id,) in rows}

    async def claim(self, limit: int) -> list[Message]:
        """Take the lease of up to `limit` events that are due, the oldest due first, at most one of a lane."""
        if limit < 1:
            return []
        async with self._database.transaction() as connection:
            lease_until = time.monotonic() + self._lease
            rows = await self._run(connection, parked_sql.SELECT_DUE, limit=limit)
            messages = [_message(row, lease_until) for row in rows]
            if messages:
                claims = json.dumps([(message.receipt.row, message.receive_count - 1) for message in messages])
                await self._run(connection, parked_sql.TAKE, claims=claims, delay=self._lease)
        return messages

    async def renew(self, messages: Sequence[Message]) -> list[Message]:
        """Begin the leases anew, moving `lease_until`; returns those whose claim is no longer ours."""
        lease_until = time.monotonic() + self._lease
        lost = await self._settle(parked_sql.RENEW, messages, self._lease)
        for message in messages:
            if message not in lost:
                message.lease_until = lease_until
        return lost

    async def release(self, messages: Sequence[Message], delay: float) -> list[Message]:
        """Give claims back, to be due after `delay` seconds; returns those that are no longer ours."""
        return await self._settle(parked_sql.RELEASE, messages, delay)

    async def hasten(self, message_id: str) -> bool:
        """Let an event be due now. False: it is not parked, is claimed, or waits behind another of its lane."""
        async with self._database.transaction() as connection:
            return bool(await self._run(connection, parked_sql.HASTEN, message_id=_stored(message_id)))

    async def finish(self, messages: Sequence[Message]) -> list[Message]:
        """Delete events that are done, or dead letters; returns those whose claim is no longer ours."""
        return await self._settle(parked_sql.FINISH, messages)

    async def pages(self, rows: int = 20) -> AsyncIterator[list[Kept]]:
        """Every parked event, some at a time, without claiming any; what is parked meanwhile may be left out."""
        after = 0
        while page := await self._read(parked_sql.PAGE, after=after, limit=rows):
            yield [Kept(_message(row[:-1], 0.0), held=bool(row[-1])) for row in page]
            after = page[-1][0]

    async def erase(self, messages: Sequence[Message]) -> int:
        """Delete events of `pages`, and let the next of their lanes advance; returns how many went.

        Those that a worker holds, or has held since they were looked at, are left alone.
        """
        if not messages:
            return 0
        claims = json.dumps([(message.receipt.row, message.receipt.count - 1) for message in messages])
        lanes = {message.receipt.lane for message in messages if message.receipt.lane is not None}
        async with self._database.transaction() as connection:
            gone = await self._run(connection, parked_sql.ERASE, claims=claims)
            await self._order(connection, lanes)
        return len(gone)

    async def next_due(self) -> float | None:
        """Seconds until an event may be claimed, or its lease runs out (0: now); None: nothing is parked."""
        ((seconds,),) = await self._read(parked_sql.NEXT_DUE)
        return None if seconds is None else max(0.0, float(seconds))

    async def depth(self) -> Depth:
        """How many events are parked: due and free, leased, and the rest."""
        ((total, visible, invisible),) = await self._read(parked_sql.DEPTH)
        return Depth(visible=visible, invisible=invisible, delayed=total - visible - invisible)

    def _row(self, event: Parking) -> dict[str, Any]:
        message = event.message
        accepted_at = message.accepted_at.astimezone(UTC)
        return {
            "source": self._source,
            "message_id": _stored(message.message_id),
            "lane": None if event.lane is None else _stored(event.lane),
            "position": event.position,
            "behind": event.lane is not None,
            "message": message.body,
            "headers": json.dumps(dict(message.headers)),
            "ordering_key": None if message.ordering_key is None else _stored(message.ordering_key),
            "accepted_at": accepted_at.isoformat(" ") if self._dialect == "sqlite" else accepted_at,
            "receive_count": message.receive_count,
            "delay": max(0.0, float(event.delay)),
        }

    async def _settle(self, template: str, messages: Sequence[Message], delay: float = 0.0) -> list[Message]:
        """Run a statement on the rows these messages are claims of; returns the messages whose claim is lost."""
        if not messages:
            return []
        claims = [(message.receipt.row, message.receipt.count) for message in messages]
        async with self._database.transaction() as connection:
            rows = await self._run(connection, template, claims=json.dumps(claims), delay=max(0.0, float(delay)))
            if template != parked_sql.RENEW:
                lanes = (message.receipt.lane for message in messages)
                await self._order(connection, {lane for lane in lanes if lane is not None})
        settled = {(row, count) for row, count in rows}
        return [message for message, claim in zip(messages, claims, strict=True) if claim not in settled]

    async def _order(self, connection: AsyncConnection, stored_lanes: Collection[str]) -> None:
        """Let the first of each lane be its front, unless the one in front is claimed.

        PostgreSQL takes a lock here and holds it until the commit. Without it, a worker that parks an event and one
        that finishes the event in front of it do not see each other's rows, and nobody lets the parked one advance.
        """
        if not stored_lanes:
            return
        if self._dialect == "postgresql":
            await self._run(connection, parked_sql.LOCK)
        for template in (parked_sql.GIVE_WAY, parked_sql.ADVANCE):
            await self._run(connection, template, lanes=json.dumps(list(stored_lanes)))

    async def _run(self, connection: AsyncConnection, template: str, **values: Any) -> Sequence[Any]:
        result = await connection.exec_driver_sql(*self._statement(template, values))
        return result.all() if result.returns_rows else ()

    async def _read(self, template: str, **values: Any) -> Sequence[Any]:
        return await self._database.read(*self._statement(template, values))

    def _statement(self, template: str, values: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        sql, names = parked_sql.render(template, self._dialect)
        return sql, parked_sql.parameters(names, {"source": self._source, "owner": self._owner, **values})


async def parked_sources(database: Database) -> dict[str, int]:
    """How many events are parked, by source: some may be of sources that nobody consumes any more.

    Raises `DatabaseUnavailable`.
    """
    rows = await database.read(parked_sql.COUNT_SOURCES)
    return {source: int(count) for source, count in rows}


def _stored(text: str) -> str:
    """The text in ASCII, as in JSON: PostgreSQL has no NUL and no half of a surrogate pair, and keys may have both."""
    return json.dumps(text)[1:-1]


def _loaded(text: str) -> str:
    return str(json.loads(f'"{text}"'))


def _message(row: Sequence[Any], lease_until: float) -> Message:
    row_id, body, message_id, lane, headers, ordering_key, accepted_at, receive_count = row
    count = receive_count + 1
    return Message(
        body=body,
        message_id=_loaded(message_id),
        receipt=_Claim(row_id, count, lane),
        accepted_at=datetime.fromisoformat(accepted_at) if isinstance(accepted_at, str) else accepted_at,
        receive_count=count,
        lease_until=lease_until,
        ordering_key=None if ordering_key is None else _loaded(ordering_key),
        headers=json.loads(headers),
    )
