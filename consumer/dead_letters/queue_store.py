"""The store that puts dead letters on the queue beside their own: `<queue>-poison`, as Azure Functions does.

Such a queue holds the message as it came and nothing else: no reason, no error. Those are in the log and the metrics.
What is on it is handled again by a source that reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from consumer.dead_letters.record import DeadLetter
from consumer.errors import DeadLetterError, SourceError
from consumer.sources.base import Outgoing, Source

__all__ = ["POISON", "QueueStore"]

POISON = "-poison"
"""What Azure Functions appends to a queue's name: see "Azure Queue storage trigger", poison messages."""


class QueueStore:
    """Dead letters on queues; a `DeadLetterStore`. `queues` has one for each source, by the source's name."""

    def __init__(self, queues: Mapping[str, Source]) -> None:
        self._queues = queues
        self._open: set[str] = set()
        self._opening = asyncio.Lock()

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """Send each message to the queue of its source; accepted by the service when this returns."""
        for name in dict.fromkeys(record.source for record in records):
            messages = [Outgoing(record.message) for record in records if record.source == name]
            try:
                await (await self._queue(name)).send(messages)
            except SourceError as error:
                raise DeadLetterError(f"dead-letter queue: {error}") from error

    async def probe(self) -> None:
        """Ask each queue whether it is there."""
        for name in self._queues:
            try:
                await (await self._queue(name)).depth()
            except SourceError as error:
                raise DeadLetterError(f"dead-letter queue: {error}") from error

    async def close(self) -> None:
        """Let go of the queues."""
        self._open.clear()
        for queue in self._queues.values():
            await queue.close()

    async def _queue(self, name: str) -> Source:
        queue = self._queues[name]
        async with self._opening:
            if name not in self._open:
                await queue.open()
                self._open.add(name)
        return queue
