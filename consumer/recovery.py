"""Bringing a paused source back: look at what was broken, then let one delivery through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from consumer.breaker import BreakerState
from consumer.errors import ConsumerError

if TYPE_CHECKING:
    from consumer.intake import Intake
    from consumer.sources.base import Message

__all__ = ["Recovery"]

_log = structlog.get_logger("worker")

_SWEEP_EVERY = timedelta(minutes=15)
_SWEEP_BATCHES = 20
_SWEEP_DELAY = 60.0
_HALTED_REST = 1.0
_BATCH = 10
_SCAN_BATCHES = 100
"""How far a probe looks for one good signature: an honest message may stand behind many forged ones."""


class Recovery:
    """Watches one source's breaker. `healthy` raises `ConsumerError` while what every event needs is missing."""

    def __init__(self, intake: Intake, healthy: Callable[[], Awaitable[None]]) -> None:
        self._intake = intake
        self.healthy = healthy
        self._swept = time.monotonic()
        self._turns = 0

    @property
    def standing(self) -> int | None:
        """What changes with every turn of a paused source; None while it is not paused, or waits for others.

        Those are a receive and what it brought, which are watched by themselves.
        """
        intake = self._intake
        waits = not intake.paused.is_set() or intake.held or intake.receiver.asking.oldest is not None
        return None if waits else self._turns

    async def run(self) -> None:
        """Probe with growing pauses whenever the source is paused, until cancelled."""
        breaker = self._intake.breaker
        while True:
            await self._intake.paused.wait()
            if self._halted:
                await self._rest(_HALTED_REST)
                continue
            await self._wait(breaker.retry_at)
            if self._halted or not breaker.may_probe(time.monotonic()):
                continue
            try:
                await self.healthy()
            except ConsumerError as error:
                _log.warning("still_paused", source=self._intake.source.name, reason=breaker.reason, detail=str(error))
                breaker.probe_failed(time.monotonic())
                continue
            breaker.half_open()
            await self._let_through()

    async def _wait(self, until: float) -> None:
        """Sleep until it is time to probe, and meanwhile see that no message expires in its queue."""
        while (left := min(until, self._intake.breaker.retry_at) - time.monotonic()) > 0 and not self._halted:
            await self._rest(left)

    async def _rest(self, longest: float) -> None:
        """Sleep for a second at most; before that, see whether some message is about to expire, if it is time to."""
        self._turns += 1
        interval = self._sweep_interval()
        if time.monotonic() - self._swept >= interval:
            self._swept = time.monotonic()
            await self._sweep()
        await asyncio.sleep(min(longest, interval, 1.0))

    @property
    def _halted(self) -> bool:
        """Whether an operator has paused it: then nothing is let through, whatever has been mended."""
        return self._intake.pauses.by_operator is not None

    async def _let_through(self) -> None:
        intake, breaker = self._intake, self._intake.breaker
        if intake.route.guard.suspicion == "signatures":
            await self._look_for_a_signature()
        else:
            await self._try_one()
        if breaker.state is not BreakerState.HALF_OPEN:
            return
        if intake.route.guard.suspicion is None and intake.receiver.error is None and not self._halted:
            intake.resume()
        else:
            breaker.probe_failed(time.monotonic())

    async def _try_one(self) -> None:
        """Let one delivery through; with none in the queue there is nothing to prove."""
        intake = self._intake
        messages = await intake.receiver.once(_BATCH)
        chosen = self._other(messages)
        rest = [message for message in messages if message not in chosen]
        for message in rest:
            intake.permits.give_back(len(message.body))
        intake.refuse(rest)
        for held in intake.admit(chosen):
            await held.known()

    async def _look_for_a_signature(self) -> None:
        """Open messages until one proves that the secrets are right; the bad ones go back for a while."""
        intake = self._intake
        for _ in range(_SCAN_BATCHES):
            messages = await intake.receiver.once(_BATCH)
            for held in intake.admit(messages):
                await held.known()
            if (
                not messages
                or intake.route.guard.suspicion is None
                or intake.breaker.state is not BreakerState.HALF_OPEN
            ):
                return

    def _other(self, messages: list[Message]) -> list[Message]:
        """One message, and another one than the last that met the trouble, if there is one; none before its turn."""
        heads: dict[str, Message] = {}
        for message in messages:
            heads.setdefault(message.ordering_key or f"without {message.message_id}", message)
        others = [message for message in heads.values() if message.message_id != self._intake.tripped_by]
        return (others or list(heads.values()))[:1]

    def _sweep_interval(self) -> float:
        retention = self._intake.retention
        if retention is None:
            return _SWEEP_EVERY.total_seconds()
        return min(_SWEEP_EVERY, retention / 40).total_seconds()

    async def _sweep(self) -> None:
        """Look for messages whose queue is about to delete them; the others come again a little later.

        Where there are no leases they go back together at the end, into their places: nothing else may come before
        what is behind them.
        """
        delay = min(_SWEEP_DELAY, self._sweep_interval()) if self._intake.source.capabilities.leases else 0.0
        put_back: list[Message] = []
        in_vain = 0
        while in_vain < _SWEEP_BATCHES and (messages := await self._intake.receiver.once(_BATCH)):
            self._turns += 1
            kept = self._intake.expire(messages)
            in_vain += len(kept) == len(messages)
            put_back += kept
            if delay:
                self._put_back(put_back, delay)
                put_back = []
        self._put_back(put_back, delay)

    def _put_back(self, messages: list[Message], delay: float) -> None:
        for message in messages:
            self._intake.permits.give_back(len(message.body))
        self._intake.refuse(messages, delay)
