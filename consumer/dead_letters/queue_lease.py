"""Messages of one queue that are held while somebody looks at them: leases renewed, and given back at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from consumer.errors import SourceError, SourceRefused, SourceUnavailable
from consumer.sources.base import Message, SettleFailure, Source

__all__ = ["LeasedQueue"]

_ROUNDS: Final = 3
_PAUSE: Final = 0.2


class LeasedQueue:
    """A queue whose messages are held from their receipt until they are deleted or released.

    `lease` is the visibility timeout of `queue`, in seconds. A message whose lease is lost is not held any more.
    """

    def __init__(self, queue: Source, *, lease: float) -> None:
        self._queue = queue
        self._lease = lease
        self._held: dict[str, Message] = {}
        self._receiving = asyncio.Lock()
        self._settling = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and begin to renew leases."""
        await self._queue.open()
        self._renewing = asyncio.create_task(self._renew_for_ever())

    @property
    def holding(self) -> int:
        """How many messages are held."""
        return len(self._held)

    async def receive(self) -> list[Message] | None:
        """Messages that were not held yet; None when the queue had none to give."""
        async with self._receiving:
            # Held before anybody is told: a waiter who goes away leaves none behind.
            found = await self._queue.receive(self._queue.capabilities.receive_batch)
            new = [message for message in found if message.message_id not in self._held]
            self._held.update((message.message_id, message) for message in found)
            return new if found else None

    async def visible(self) -> int:
        """About how many messages the queue has besides; 0 if the credentials may not know."""
        try:
            return (await self._queue.depth()).visible
        except SourceRefused:
            return 0

    async def delete(self, ids: Iterable[str]) -> int:
        """Delete those of the messages that are still held; how many. Raises SourceError when one stays."""
        removed = 0
        for some in self._chunks(ids):
            left: Sequence[str] = [one for one in some if one in self._held]
            for attempt in range(_ROUNDS):
                if not left:
                    break
                failures = await self._settle(left)
                removed += len(left) - len(failures)
                left = [failure.message.message_id for failure in failures if failure.kind != "gone"]
                refused = next((failure for failure in failures if failure.kind == "refused"), None)
                if refused is not None:
                    raise SourceRefused(f"source {self._queue.name}: a message was not deleted: {refused.detail}")
                if left:
                    await asyncio.sleep(_PAUSE * (attempt + 1))
            if left:
                raise SourceUnavailable(f"source {self._queue.name}: {len(left)} messages were not deleted, for now")
        return removed

    async def _settle(self, ids: Sequence[str]) -> list[SettleFailure]:
        async with self._settling:
            messages = [self._held[one] for one in ids if one in self._held]
            failures = await self._queue.acknowledge(messages) if messages else []
        kept = {failure.message.message_id for failure in failures if failure.kind != "gone"}
        for one in ids:
            if one not in kept:
                self._held.pop(one, None)
        return failures

    async def release(self, ids: Iterable[str] | None = None) -> None:
        """Give messages back, all that are held by default. One that cannot be comes back when its lease ends."""
        for some in self._chunks(list(self._held) if ids is None else ids):
            async with self._settling:
                messages = [self._held.pop(one) for one in some if one in self._held]
                with contextlib.suppress(SourceError):
                    await self._queue.release(messages, 0)

    async def close(self) -> None:
        """Give everything back and close the connections, once a receive under way has ended."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        async with self._receiving:
            await self.release()
            await self._queue.close()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            for some in self._chunks(list(self._held)):
                async with self._settling:
                    await self._renew([self._held[one] for one in some if one in self._held])

    async def _renew(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        try:
            failures = await self._queue.extend(messages)
        except SourceError:
            return  # there is time for two more
        for failure in failures:
            if failure.kind != "again":
                self._held.pop(failure.message.message_id, None)

    def _chunks(self, ids: Iterable[str]) -> Iterator[list[str]]:
        left = iter(ids)
        while some := list(islice(left, self._queue.capabilities.settle_batch)):
            yield some
