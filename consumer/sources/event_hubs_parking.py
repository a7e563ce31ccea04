"""Moves events of a hub to the database when they must wait for long, and hands them out again from there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from consumer.errors import DatabaseError
from consumer.ops.liveness import Spells
from consumer.parked import ParkedEvents, Parking
from consumer.retry import backoff
from consumer.sources.base import Depth, Message, SettleFailure

if TYPE_CHECKING:
    from consumer.partitions import Partition
    from consumer.sources.event_hubs_owned import Owned

__all__ = ["Parker"]

_log = structlog.get_logger("event_hubs")

_TICK: Final = 0.1
_LOOK_EVERY: Final = 5.0
"""Seconds after which the table is looked at in any case: another worker may have left something there."""
_CHUNK: Final = 500
_TIDY_EVERY: Final = 60.0
"""Seconds after which lanes are forgotten that the database holds nothing of any more."""
_RETRY_CAP: Final = 10.0


class Parker:
    """The parked events of one source, as far as this process is concerned with them."""

    def __init__(self, parked: ParkedEvents, owned: Mapping[str, Owned], *, name: str, news: asyncio.Event) -> None:
        self._parked = parked
        self._owned = owned
        self._name = name
        self._news = news
        self.steps = Spells()
        """Calls to the database under way that park events; a round of parking may take many."""
        self.look_at = 0.0
        """When to look for due events next, in monotonic seconds."""

    # To the database

    async def run(self) -> None:
        """Park what has to be parked, until cancelled; while the database is gone it stays in memory, unfinished."""
        errors = 0
        tidied = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            tidy = time.monotonic() - tidied >= _TIDY_EVERY
            try:
                for owned in list(self._owned.values()):
                    while owned.partition.must_park:
                        await self._park(owned.partition)
                    if tidy:
                        await self._reopen(owned.partition, owned.partition.parked_lanes)
                        tidied = time.monotonic()
            except DatabaseError as error:
                errors += 1
                _log.warning("not_parked", source=self._name, detail=str(error))
                await asyncio.sleep(backoff(errors, base=0.5, cap=_RETRY_CAP))
            else:
                errors = 0

    async def _park(self, partition: Partition) -> None:
        """One round: what goes behind a lane that the database holds nothing of any more runs from here instead."""
        partition.to_park()
        with self.steps.under_way():
            await self._reopen(partition, partition.doubtful_lanes())
        leaving = partition.to_park()
        for start in range(0, len(leaving), _CHUNK):
            chunk = leaving[start : start + _CHUNK]
            now = time.monotonic()
            with self.steps.under_way():
                await self._parked.park([_parking(partition, message, now) for message in chunk])
            partition.parked(chunk)
            self.expect(min(max(0.0, message.receipt.due - now) for message in chunk))
        if leaving:
            _log.info("parked", source=self._name, partition=partition.id, count=len(leaving))

    async def _reopen(self, partition: Partition, lanes: Collection[str]) -> None:
        stored = {_lane(partition, lane): lane for lane in lanes}
        held = await self._parked.lanes(stored)
        partition.reopen([lane for name, lane in stored.items() if name not in held])
        self._news.set()

    async def lanes(self, partition_id: str) -> set[str]:
        """The lanes of a partition that the database holds something of."""
        prefix = f"{partition_id}/"
        return {lane.removeprefix(prefix) for lane in await self._parked.lanes_under(prefix)}

    async def ids(self, partition_id: str, above: int) -> set[str]:
        """The ids of a partition's events that are parked although its checkpoint has not passed them."""
        return await self._parked.ids_above(f"{partition_id}-", above)

    # From the database

    def expect(self, delay: float) -> None:
        """Something will be due in so many seconds."""
        self.look_at = min(self.look_at, time.monotonic() + delay)
        self._news.set()

    async def claim(self, limit: int) -> list[Message]:
        """Hand out what is due, if it is time to look."""
        if time.monotonic() < self.look_at:
            return []
        messages: list[Message] = []
        try:
            # Only reading, at first: a claim has to wait for whoever writes.
            due = await self._parked.next_due()
            if due == 0:
                messages = await self._parked.claim(limit)
        except DatabaseError as error:
            _log.warning("parked_unreadable", source=self._name, detail=str(error))
            due = None
        pause = 0.0 if messages else min(_LOOK_EVERY, max(_TICK, _LOOK_EVERY if due is None else due))
        self.look_at = time.monotonic() + pause
        return messages

    async def hasten(self, message_id: str) -> bool:
        """Let an event be due now. False: it is not parked, or waits for another. Raises DatabaseError."""
        found = await self._parked.hasten(message_id)
        if found:
            self.expect(0.0)
        return found

    async def finish(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Forget what is done; another of its lane may be due now."""
        try:
            failures = _gone(await self._parked.finish(messages))
        except DatabaseError as error:
            return _again(messages, error)
        self.expect(0.0)
        return failures

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        """Let them wait again."""
        try:
            failures = _gone(await self._parked.release(messages, delay))
        except DatabaseError as error:
            return _again(messages, error)
        self.expect(delay)
        return failures

    async def renew(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Renew their leases."""
        try:
            return _gone(await self._parked.renew(messages))
        except DatabaseError as error:
            return _again(messages, error)

    async def depth(self) -> Depth:
        """What the database holds. Raises DatabaseError."""
        return await self._parked.depth()


def _lane(partition: Partition, lane: str) -> str:
    return f"{partition.id}/{lane}"


def _parking(partition: Partition, message: Message, now: float) -> Parking:
    place = message.receipt
    lane = None if place.lane is None else _lane(partition, place.lane)
    return Parking(message, lane, place.sequence, max(0.0, place.due - now))


def _gone(messages: Sequence[Message]) -> list[SettleFailure]:
    return [SettleFailure(message, "gone", "ClaimLost") for message in messages]


def _again(messages: Sequence[Message], error: DatabaseError) -> list[SettleFailure]:
    return [SettleFailure(message, "again", type(error).__name__) for message in messages]
