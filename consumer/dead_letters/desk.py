"""Putting events of one source aside: the record first, and what the database must know of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from consumer.dead_letters.writing import DeadLetterWriter, record_of
from consumer.errors import DatabaseError, DeadLetterError
from consumer.failures import describe
from consumer.outcomes import DeadLettered, GivenBack
from consumer.parking import ParkedLanes

if TYPE_CHECKING:
    from consumer.deliveries import Held, Item
    from consumer.inbox import Inbox

__all__ = ["Desk"]

_log = structlog.get_logger("worker")

_LINES_MOST = 50.0
_LINES_A_SECOND = 1.0
"""Log lines for messages that were never events: so many at once, and so many a second from there."""


class Desk:
    """Makes dead letters durable, forgets the attempts of what is put aside, and closes lanes that are to be parked."""

    def __init__(self, writer: DeadLetterWriter, inbox: Inbox, *, parking: ParkedLanes | None = None) -> None:
        self._writer = writer
        self._inbox = inbox
        self._parking = parking
        self._lines = _LINES_MOST
        self._told_at = 0.0
        self._untold = 0

    async def put_aside(self, item: Item, verdict: DeadLettered) -> DeadLettered | GivenBack:
        """The verdict itself once its record is durable; `GivenBack` when it could not be kept."""
        now = datetime.now(UTC)
        received = now - timedelta(seconds=time.monotonic() - item.held.received_at)
        try:
            record = record_of(item, verdict, first_received_at=received, now=now)
            await self._writer.write(record)
            parks = item.proven and verdict.reason != "skipped"  # an operator skips what blocks a lane to open it
            if self._parking is not None and item.held.lane is not None and parks:
                # What was never an event leaves no gap in its lane, and its sender must not be able to close one.
                await self._parking.park(item.held.lane)
        except Exception as error:  # noqa: BLE001 - whatever it was, the message is not safe yet
            if not isinstance(error, DeadLetterError | DatabaseError):
                _log.error("dead_letter_failed", source=item.route.source, **describe(error))
            return GivenBack(type(error).__name__)
        await self._tidy(item, verdict)
        self._tell(item, verdict, record.id)
        return verdict

    def _tell(self, item: Item, verdict: DeadLettered, record_id: str) -> None:
        """One log line a dead letter; of messages that were never events only so many, or they would flood the log."""
        untold = {}
        if not item.proven:
            now = time.monotonic()
            self._lines = min(_LINES_MOST, self._lines + (now - self._told_at) * _LINES_A_SECOND)
            self._told_at = now
            if self._lines < 1:
                self._untold += 1
                return
            self._lines -= 1
            untold, self._untold = {"untold_before": self._untold} if self._untold else {}, 0
        _log.warning(
            "dead_lettered",
            source=item.route.source,
            reason=verdict.reason,
            event_id=item.event_id,
            event_type=item.event_type,
            dead_letter=record_id,
            attempt=item.attempt,
            **untold,
        )

    async def forget_marks(self, held: Held) -> None:
        """Forget what was noted of a delivery's envelopes: it is settled, and will not come again."""
        await self._forget(held.marked, held.message.message_id)

    async def _tidy(self, item: Item, verdict: DeadLettered) -> None:
        """Forget the attempts of what is put aside; or note it, while its delivery may come again for others."""
        if item.key and item.held.several:
            try:
                await self._inbox.mark_dead_lettered([item.key])
                item.held.marked.append(item.key)
            except DatabaseError:
                _log.warning("dead_letter_not_noted", source=item.route.source, event_id=item.event_id)
        elif item.attempt > 1 or verdict.reason in {"attempts_exhausted", "crashed", "expiring"}:
            await self._forget([item.key], item.held.message.message_id)

    async def _forget(self, keys: list[bytes], message_id: str) -> None:
        try:
            await self._inbox.forget_attempts(keys)
        except DatabaseError:
            _log.warning("attempts_not_forgotten", message_id=message_id)
