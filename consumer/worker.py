"""The worker: all sources together, from the first receive to a clean stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from consumer.errors import ConsumerError, SourceError
from consumer.failures import describe
from consumer.intake import Intake
from consumer.pipeline import Pipeline
from consumer.recovery import Recovery
from consumer.worker_health import WorkerHealth

__all__ = ["Worker", "WorkerFailed"]

_log = structlog.get_logger("worker")

_SETTLING_SHARE = 0.2
_SETTLING_MOST = 3.0
"""How much of the drain is kept for giving the rest back, in seconds."""
_HANDLER_GRACE = 10.0
"""Seconds a handler may go on after it was cancelled before it is left behind."""
_IDLE_LOOK = 0.2


class WorkerFailed(ConsumerError):
    """The worker could not go on; the text says why in one line."""


class Worker:
    """Runs sources until told to stop, then drains them.

    `healthy` raises `ConsumerError` while something every event needs (database, dead-letter store) is missing.
    `extra` are other loops that live as long as the worker does.
    """

    def __init__(
        self,
        *,
        intakes: Sequence[Intake],
        pipeline: Pipeline,
        healthy: Callable[[], Awaitable[None]],
        drain_timeout: float,
        overdue: Callable[[], float],
        extra: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        self.intakes = intakes
        self._pipeline = pipeline
        self._drain_timeout = drain_timeout
        self.extra = extra
        self._stop = asyncio.Event()
        self._failed: str | None = None
        self.recoveries = [Recovery(intake, healthy) for intake in intakes]
        self.health = WorkerHealth(intakes, self.recoveries, pipeline, overdue=overdue, stopping=lambda: self.stopping)
        """What its probes say."""
        self.stuck = False
        """After `run`: a handler still goes on although it was cancelled."""

    def stop(self) -> None:
        """Stop receiving, finish what is in hand, give the rest back. May be called more than once."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    async def run(self, *, idle_after: float | None = None) -> None:
        """Run until `stop`; with `idle_after`, until every source has been empty for that many seconds.

        Raises `WorkerFailed` when it cannot go on, after draining.
        """
        pipeline = asyncio.create_task(self._pipeline.run(), name="pipeline")
        loops = [asyncio.create_task(intake.settlement.heartbeat(), name="heartbeat") for intake in self.intakes]
        loops += [asyncio.create_task(recovery.run(), name="recovery") for recovery in self.recoveries]
        loops += [asyncio.create_task(start(), name=getattr(start, "__qualname__", "extra")) for start in self.extra]
        if idle_after is not None:
            loops.append(asyncio.create_task(self._until_idle(idle_after)))
        receivers = [asyncio.create_task(intake.receiver.run(), name="receiver") for intake in self.intakes]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([stopped, pipeline, *loops, *receivers], return_when=asyncio.FIRST_COMPLETED)
            self._note_crash([pipeline, *loops, *receivers])
        finally:
            self._stop.set()
            await self._drain(pipeline)
            for task in [*loops, *receivers, stopped]:
                task.cancel()
            await asyncio.gather(*loops, *receivers, stopped, return_exceptions=True)
        if self._failed is not None:
            raise WorkerFailed(self._failed)

    def _note_crash(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """A loop that ended by itself is a bug of ours: stop cleanly rather than limp on."""
        for task in tasks:
            if not task.done() or task.cancelled() or self._failed is not None:
                continue
            error = task.exception()
            if error is not None:
                _log.critical("worker_failed", **describe(error))
                self._failed = f"the worker stopped on {type(error).__name__}: this is a bug, please report it"
            elif not self._stop.is_set():
                _log.critical("worker_failed", ended=task.get_name())
                self._failed = "a part of the worker ended by itself: this is a bug, please report it"

    # Ending

    async def _drain(self, pipeline: asyncio.Task[None]) -> None:
        begun = time.monotonic()
        deadline = begun + self._drain_timeout
        handlers_until = deadline - min(_SETTLING_MOST, self._drain_timeout * _SETTLING_SHARE)
        in_hand = sum(len(intake.held) for intake in self.intakes)
        _log.info("draining", in_hand=in_hand, timeout=self._drain_timeout)
        for intake in self.intakes:
            intake.receiver.stop()
        finished = asyncio.gather(*(self._finished(intake) for intake in self.intakes))
        if not pipeline.done():
            await _wait(finished, handlers_until)
        if not finished.done():
            in_hand = sum(len(intake.held) for intake in self.intakes)
            if in_hand:
                _log.warning("drain_cut_short", in_hand=in_hand)
            for intake in self.intakes:
                intake.give_back_all()
        pipeline.cancel()
        await _wait(asyncio.gather(pipeline, return_exceptions=True), deadline + _HANDLER_GRACE)
        self.stuck = not pipeline.done()
        if self.stuck:
            _log.error("handler_ignores_cancellation")
        await _wait(finished, max(deadline, time.monotonic() + 1.0))
        left = sum(len(intake.held) for intake in self.intakes)
        if left:
            _log.error("left_to_their_leases", count=left)
        finished.cancel()
        await asyncio.gather(finished, return_exceptions=True)
        _log.info("drained", seconds=round(time.monotonic() - begun, 2))

    @staticmethod
    async def _finished(intake: Intake) -> None:
        await intake.receiver.returned()
        await intake.finished()

    # Idle

    async def _until_idle(self, idle_after: float) -> None:
        """Stop once no source has had anything for `idle_after` seconds: nothing visible, invisible or in hand."""
        since: float | None = None
        while True:
            await asyncio.sleep(min(_IDLE_LOOK, idle_after / 2) if idle_after else _IDLE_LOOK)
            suspected = [i for i in self.intakes if i.route.guard.suspicion is not None and i.breaker.tries > 1]
            if suspected:
                self._failed = _suspicion_text(suspected[0])
                self._stop.set()
                return
            refused = [i.receiver.error for i in self.intakes if i.receiver.refused]
            if refused:
                self._failed = str(refused[0])
                self._stop.set()
                return
            now = time.monotonic()
            if not await self._empty():
                since = None
            elif since is None:
                since = now
            elif now - since >= idle_after:
                self._stop.set()
                return

    async def _empty(self) -> bool:
        if any(intake.held or intake.paused.is_set() or intake.receiver.error for intake in self.intakes):
            return False
        if any(intake.receiver.empty_since is None for intake in self.intakes):
            return False  # a queue's counters lag behind; an empty receive is a better witness
        try:
            depths = [await intake.source.depth() for intake in self.intakes]
        except SourceError:
            return False
        return not any(depth.total for depth in depths) and not any(intake.held for intake in self.intakes)

    # Probes

    def not_live(self) -> str | None:
        """Why the process should be restarted, or None; see `WorkerHealth`."""
        return self.health.not_live()

    def not_ready(self) -> str | None:
        """Why the worker does not handle events now, or None."""
        return self.health.not_ready()


async def _wait(future: asyncio.Future[Any], until: float) -> None:
    """Wait for a future until a moment, without cancelling it."""
    await asyncio.wait([future], timeout=max(0.0, until - time.monotonic()))


def _suspicion_text(intake: Intake) -> str:
    name = intake.source.name
    if intake.route.guard.suspicion == "signatures":
        return (
            f"source {name} is paused: its first 20 signatures all failed, and those after them: "
            "check the signing secret and scheme"
        )
    return f"source {name} is paused: 50 different events in a row failed in handlers"
