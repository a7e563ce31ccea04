"""From verdicts to durable dead letters: many at once, one fsync, and only then the acks."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from consumer import __version__
from consumer.dead_letters.record import DeadLetter, broker_attributes, record_id
from consumer.dead_letters.store import DeadLetterStore

if TYPE_CHECKING:
    from consumer.deliveries import Item
    from consumer.outcomes import DeadLettered

__all__ = ["DeadLetterWriter", "record_of"]


def record_of(item: Item, verdict: DeadLettered, *, first_received_at: datetime, now: datetime) -> DeadLetter:
    """The record of an envelope that was put aside; event facts only if the message was proven."""
    message, lane = item.held.message, item.held.lane
    attributes = broker_attributes(message, index=item.index)
    if lane is not None and lane != message.ordering_key:
        attributes["lane"] = lane
    return DeadLetter(
        id=record_id(item.route.source, message.message_id, item.index),
        provider=item.route.provider,
        source=item.route.source,
        event_id=item.event_id,
        event_type=item.event_type,
        user_id=item.user_id,
        proven=item.proven,
        reason=verdict.reason,
        detail=verdict.detail,
        error=verdict.error,
        attempts=item.attempt,
        accepted_at=message.accepted_at,
        first_received_at=first_received_at,
        dead_lettered_at=now,
        message=item.raw,
        attributes=attributes,
        consumer_version=__version__,
    )


class DeadLetterWriter:
    """Writes records in batches: while one batch is being synced, the next one collects."""

    def __init__(self, store: DeadLetterStore) -> None:
        self._store = store
        self._waiting: list[tuple[DeadLetter, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, record: DeadLetter) -> None:
        """Return when the record is durable. Raises `DeadLetterError` when it could not be kept."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((record, future))
        if self._task is None:
            self._task = asyncio.create_task(self._flush())
        await future

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                error: BaseException | None = None
                try:
                    await self._store.append([record for record, _ in batch])
                except Exception as failure:  # noqa: BLE001 - each writer is told, and judges it
                    error = failure
                for _, future in batch:
                    if future.done():
                        continue
                    if error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(error)
        finally:
            self._task = None
