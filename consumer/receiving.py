"""Receiving from one source: as many receives at once as its fullness calls for, and never more than fits in hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import structlog

from consumer.errors import SourceError, SourceRefused
from consumer.failures import describe
from consumer.ops.liveness import Spells
from consumer.ops.tracing import NO_SPANS, Spans
from consumer.permits import Permits
from consumer.retry import backoff
from consumer.sources.base import Message, Source

__all__ = ["Receiver", "Taker"]

_log = structlog.get_logger("worker")

_RETRY_CAP = 30.0
_REFUSED_PAUSE = 5.0
_REFUSALS = 2
"""Refusals in a row that are no accident."""
_EMPTY_PAUSE = 0.2
"""Seconds between the beginnings of two receives when the first came back empty, for queues that do not wait."""
_CONNECTED_AFTER = 1.0
"""Seconds a first receive waits without an error before the queue counts as connected: a long poll answers late."""


class Taker(Protocol):
    """Who takes what was received."""

    def admit(self, messages: Sequence[Message]) -> object:
        """Take messages in hand; they hold permits."""

    def refuse(self, messages: Sequence[Message], delay: float = 0.0) -> None:
        """Give messages back to the queue; they hold no permits."""

    def arrived(self, count: int) -> None:
        """Count messages received."""


class Receiver:
    """One long poll while there is little, more receives whenever one comes back full, none without permits.

    A receive is never cancelled: the queue may already have handed its messages to it.
    """

    def __init__(
        self,
        source: Source,
        permits: Permits,
        taker: Taker,
        *,
        may_receive: Callable[[], bool],
        spans: Spans = NO_SPANS,
    ) -> None:
        self._source = source
        self._permits = permits
        self._taker = taker
        self._may_receive = may_receive
        self._spans = spans
        capabilities = source.capabilities
        self._batch = capabilities.receive_batch
        self._most = max(1, min(capabilities.max_receives, permits.count // self._batch))
        self._wanted = 1
        self._under_way: set[asyncio.Task[Any]] = set()
        self._errors_in_row = 0
        self._not_before = 0.0
        self._changed = asyncio.Event()
        self._stopping = False
        self._answers = 0
        self.asking = Spells()
        """Receives under way."""
        self.begun = 0
        """Receives begun since the start."""
        self.failures = 0
        """Receives that failed since the start."""
        self.error: SourceError | None = None
        """Why the last receive failed, while receives fail."""
        self.last_answer = time.monotonic()
        """When the queue last answered a receive, in monotonic seconds."""
        self.empty_since: float | None = None
        """Since when every receive has come back empty, in monotonic seconds."""

    async def run(self) -> None:
        """Receive until `stop`."""
        while not self._stopping:
            wait = self._not_before - time.monotonic()
            if wait <= 0 and self._may_receive():
                self._start()
            self._changed.clear()
            timer = asyncio.get_running_loop().call_later(wait, self._changed.set) if wait > 0 else None
            await self._changed.wait()
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Something changed that may allow another receive: permits came back, the source was resumed."""
        self._changed.set()

    def stop(self) -> None:
        """Receive no more. Receives under way return in their own time; what they bring goes back at once."""
        self._stopping = True
        self._source.interrupt()
        self._changed.set()

    async def returned(self) -> None:
        """Wait until no receive is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    @property
    def refused(self) -> bool:
        """Whether receives are refused, again and again, until a person does something about it."""
        return isinstance(self.error, SourceRefused) and self._errors_in_row >= _REFUSALS

    @property
    def connected(self) -> bool:
        """Whether the queue has answered a receive, or lets one wait as queues do that have nothing."""
        return self._answers > 0 or self.asking.longest >= _CONNECTED_AFTER

    @property
    def may_begin(self) -> bool:
        """Whether a receive should begin, but for the room there is, and none is under way."""
        waits = self._stopping or time.monotonic() < self._not_before
        return not waits and not self._under_way and self._may_receive()

    async def once(self, count: int) -> list[Message]:
        """While paused: one receive of up to `count` messages, which get permits but are not admitted.

        The receive outlives a cancellation of the caller, and gives back what it then brings.
        """
        if self._stopping:
            return []
        count, cost = self._permits.reserve(min(count, self._batch))
        if not count:
            return []
        task: asyncio.Task[list[Message]] = self._track(self._fetch(count, cost, paused=True))
        await asyncio.wait({task})
        return task.result()

    def _start(self) -> None:
        while len(self._under_way) < self._wanted:
            count, cost = self._permits.reserve(self._batch)
            if not count:
                return
            self._track(self._receive(count, cost))

    def _track(self, receive: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        if not self._under_way:
            self.last_answer = time.monotonic()
        self.begun += 1
        task = asyncio.create_task(receive)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        self._changed.set()

    async def _receive(self, count: int, cost: int) -> None:
        self._taker.admit(await self._fetch(count, cost))

    async def _fetch(self, count: int, cost: int, *, paused: bool = False) -> list[Message]:
        asked_at = time.monotonic()
        try:
            with self.asking.under_way():
                messages = await self._source.receive(count)
        except Exception as error:  # noqa: BLE001 - an adapter that breaks its contract must not end the worker
            self._permits.exchange(count, cost, [])
            self._spans.not_received(self._source.name, error, time.monotonic() - asked_at)
            self._failed(error)
            return []
        self._spans.received(self._source.name, messages, time.monotonic() - asked_at)
        self._answered(count, len(messages))
        if not messages:
            self._not_before = max(self._not_before, asked_at + _EMPTY_PAUSE)
        kept = self._permits.exchange(count, cost, [len(message.body) for message in messages])
        if self._stopping or not (paused or self._may_receive()):
            for message in messages[:kept]:
                self._permits.give_back(len(message.body))
            kept = 0
        if kept < len(messages):
            self._taker.refuse(messages[kept:])
        return messages[:kept]

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, SourceError):
            _log.error("source_failed", source=self._source.name, **describe(error))
            error = SourceError(type(error).__name__)
        self._errors_in_row += 1
        self.failures += 1
        delay = 0.5 + backoff(self._errors_in_row, base=1.0, cap=_RETRY_CAP)
        if isinstance(error, SourceRefused):
            delay += _REFUSED_PAUSE
        self._not_before = time.monotonic() + delay
        self._wanted = 1
        if self.error is None or str(self.error) != str(error):
            _log.error("source_unreachable", source=self._source.name, detail=str(error), retry_in=round(delay, 1))
        self.error = error

    def _answered(self, asked: int, got: int) -> None:
        self.last_answer = time.monotonic()
        self._answers += 1
        self._errors_in_row = 0
        if self.error is not None and not self._stopping:
            _log.info("source_reachable", source=self._source.name)
            self.error = None
        if got:
            self._taker.arrived(got)
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = self.last_answer
        if got >= asked:
            self._wanted = min(self._most, self._wanted * 2)
        elif not got:
            self._wanted = 1
        elif got * 2 < asked:
            self._wanted = max(1, self._wanted - 1)
