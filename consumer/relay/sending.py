"""Webhooks to the queue: many callers, few sends; each caller told when its own message is accepted."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from consumer.errors import SourceError, SourceRefused
from consumer.failures import describe
from consumer.ops.liveness import Spells
from consumer.ops.tracing import NO_SPANS, Spans
from consumer.relay.batches import Batches, Waiting
from consumer.sources.base import Outgoing, Source

__all__ = ["END_WITHIN", "Sender"]

_log = structlog.get_logger("relay")

END_WITHIN: Final = 2.0
"""Seconds that a call which is cancelled may take to end; a source of the user's own might never."""

_Entry = tuple[Outgoing, "asyncio.Future[bool]"]


class Sender:
    """Sends messages together by one source. It is the queue's own limits that say how many go in one send.

    `timeout` is in seconds, how long the queue may take to accept a message. `on_trouble` is told of every send that
    failed, and of the first that went well after, by None.
    """

    def __init__(
        self, source: Source, *, timeout: float, on_trouble: Callable[[str | None], None], spans: Spans = NO_SPANS
    ) -> None:
        can = source.capabilities
        # Settling calls are made as sends are: what a queue takes in one of them, and how many at once.
        self._batches: Batches[_Entry] = Batches(most=can.settle_batch, sends=can.max_settles, patience=timeout)
        self._source = source
        self._timeout = timeout
        self._on_trouble = on_trouble
        self._spans = spans
        self._loop = asyncio.get_running_loop()
        self.sends = Spells()
        """Sends under way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def put(self, message: Outgoing) -> bool:
        """Send a message, and tell whether the queue has accepted it in time; if not, it may be there all the same."""
        if self._closed:
            return False
        future: asyncio.Future[bool] = self._loop.create_future()
        self._batches.add((message, future), time.monotonic())
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._expire)
        if not self._scheduled:
            # Not now: whatever else arrived in this turn of the loop goes along.
            self._scheduled = True
            self._loop.call_soon(self._pump)
        return await future

    async def close(self) -> None:
        """End what is under way; whoever waits is told that the queue did not accept it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_WITHIN)
        self._give_up(math.inf)

    def _pump(self) -> None:
        self._scheduled = False
        while not self._closed and (group := self._batches.take()):
            task = self._loop.create_task(self._send(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, group: list[Waiting[_Entry]]) -> None:
        entries = [waiting.item for waiting in group if waiting.item is not None]
        trouble: str | None = "the send was cancelled"
        try:
            with self.sends.under_way():
                async with asyncio.timeout(self._timeout):
                    await self._send_together(entries)
            trouble = None
        except SourceError as error:
            trouble = str(error)
        except TimeoutError:
            trouble = f"source {self._source.name}: a send took longer than relay.timeout"
        except Exception as error:  # noqa: BLE001 - a source of the user's own; a webhook is answered whatever it raises
            trouble = f"source {self._source.name}: a send failed: {describe(error)['type']}"
        finally:
            self._batches.sent(group)
            for _, future in entries:
                _tell(future, accepted=trouble is None)
            self._on_trouble(trouble)
            self._pump()

    async def _send_together(self, entries: Sequence[_Entry]) -> None:
        """Send them in one call; if the queue refuses it, each alone, so that a single bad one fails only itself.

        Raises what the source raises, and `SourceRefused` only if none of them was accepted.
        """
        try:
            await self._put([message for message, _ in entries])
        except SourceRefused as refused:
            if len(entries) == 1:
                raise
            accepted = [await self._sent_alone(entry) for entry in entries]
            if not any(accepted):
                raise
            _log.warning("messages_refused", count=accepted.count(False), detail=str(refused))

    async def _sent_alone(self, entry: _Entry) -> bool:
        message, future = entry
        try:
            await self._put([message])
        except SourceRefused:
            _tell(future, accepted=False)
            return False
        _tell(future, accepted=True)
        return True

    async def _put(self, messages: Sequence[Outgoing]) -> None:
        largest = self._source.capabilities.largest_message
        with self._spans.sending(self._source.name, messages, largest=largest) as carried:
            await self._source.send(carried)

    def _expire(self) -> None:
        self._give_up(time.monotonic())
        due = self._batches.due
        self._timer = None
        if due < math.inf:
            self._timer = self._loop.call_later(max(0.001, due - time.monotonic()), self._expire)

    def _give_up(self, now: float) -> None:
        for _, future in self._batches.overdue(now):
            _tell(future, accepted=False)


def _tell(future: asyncio.Future[bool], *, accepted: bool) -> None:
    if not future.done():
        future.set_result(accepted)
