"""Running one event's handlers inside a unit of work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from consumer.context import Context, Platforms
from consumer.deadline import handler_time
from consumer.ops.tracing import NO_SPANS, Spans
from consumer.waiting import Waited

if TYPE_CHECKING:
    from consumer.deliveries import Item
    from consumer.dispatch import Handler, Lifespan
    from consumer.inbox import UnitOfWork

__all__ = ["HandlerFailed", "HandlerMeter", "LeaseLapsed", "Runner"]


class HandlerMeter(Protocol):
    """Where the length of a handler's run is reported."""

    def handler_ran(self, name: str, seconds: float) -> None:
        """One run of the handler `name` took this long."""

    def handler_failed(self, name: str, error: BaseException) -> None:
        """One run of the handler `name` raised this."""


class HandlerFailed(Exception):
    """A handler raised; `error` is what it raised, `handler` its name. Never leaves the pipeline."""

    def __init__(self, handler: str, error: BaseException) -> None:
        super().__init__()
        self.handler = handler
        self.error = error


class LeaseLapsed(Exception):
    """The handlers were not started: while they waited for their turn, somebody else may have got the message."""


class Runner:
    """Calls handlers with their context, time limit and concurrency limit."""

    def __init__(
        self,
        *,
        states: Mapping[Lifespan, Any] | None = None,
        platforms: Platforms | None = None,
        meter: HandlerMeter,
        spans: Spans = NO_SPANS,
    ) -> None:
        self._states = states or {}
        self._platforms = platforms
        self._meter = meter
        self.spans = spans
        """Where the spans of what runs are opened."""
        self._limits: dict[Handler, asyncio.Semaphore] = {}
        self._deadlines: dict[int, float] = {}

    @property
    def runs(self) -> bool:
        """Whether a handler is running."""
        return bool(self._deadlines)

    @property
    def overdue(self) -> float:
        """For how many seconds the most overdue handler has gone on after its time limit; 0 if none has."""
        if not self._deadlines:
            return 0.0
        return max(0.0, time.monotonic() - min(self._deadlines.values()))

    async def run_alone(self, item: Item, unit: UnitOfWork) -> None:
        """Run an event's handlers in order, each under its own time limit.

        Raises `HandlerFailed` for whatever a handler raises, a time-out included, and `LeaseLapsed`.
        """
        async with contextlib.AsyncExitStack() as stack:
            # All of them first and always in one order: waiting for one while holding another, or while holding the
            # database's only writer, could be waiting in a circle.
            for handler in sorted(item.handlers, key=id):
                if handler.max_concurrency is not None:
                    await stack.enter_async_context(self._limit(handler, handler.max_concurrency))
            if item.held.lapsed:
                raise LeaseLapsed
            with self.spans.handling(item):
                for handler in item.handlers:
                    await self._run_timed(item, handler, unit)

    async def run_grouped(self, item: Item, unit: UnitOfWork) -> None:
        """Run an event's handlers in order, the time limit being the group's. Raises what they raise."""
        for handler in item.handlers:
            try:
                await self._run(item, handler, unit)
            except (Exception, asyncio.CancelledError):
                raise
            except BaseException as error:  # noqa: BLE001 - what ends a program must not end the others' worker
                raise HandlerFailed(handler.name, error) from None

    async def _run_timed(self, item: Item, handler: Handler, unit: UnitOfWork) -> None:
        try:
            async with asyncio.timeout(_time_limit(item, handler)):
                await self._run(item, handler, unit)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is that event's failure, no more
            handler.pace.failed()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # A stop or a lost lease, whatever the handler, or a library it uses, made of it.
                raise asyncio.CancelledError from None
            self._meter.handler_failed(handler.name, error)
            raise HandlerFailed(handler.name, error) from None

    async def _run(self, item: Item, handler: Handler, unit: UnitOfWork) -> None:
        context = Context(
            delivery=item.delivery(),
            idempotency_key=item.key.hex(),
            unit=unit,
            state=self._states.get(handler.lifespan) if handler.lifespan else None,
            platforms=self._platforms,
            event_facts={"event_id": item.event_id, "event_type": item.event_type},
        )
        self._deadlines[id(item)] = time.monotonic() + _time_limit(item, handler)
        started = time.perf_counter()
        try:
            with Waited() as waited, handler_time(_time_limit(item, handler)):
                said = await handler.function(item.event, context)
        finally:
            del self._deadlines[id(item)]
            context.expire()
        seconds = time.perf_counter() - started - waited.seconds
        if isinstance(said, BaseException):
            # `return Retry()` for `raise Retry()`: an easy slip, and reading it as "done" would lose the event.
            raise said
        handler.pace.ran(seconds)
        self._meter.handler_ran(handler.name, seconds)

    def _limit(self, handler: Handler, most: int) -> asyncio.Semaphore:
        limit = self._limits.get(handler)
        if limit is None:
            limit = self._limits[handler] = asyncio.Semaphore(most)
        return limit


def _time_limit(item: Item, handler: Handler) -> float:
    return handler.timeout or item.route.handler_timeout
