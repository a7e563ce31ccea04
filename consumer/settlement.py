"""Settling deliveries with their queue: batched acks and releases, and leases renewed while handlers run."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from consumer.batching import Batcher
from consumer.errors import SourceError
from consumer.failures import describe
from consumer.ops.liveness import Spells
from consumer.ops.tracing import NO_SPANS, Spans
from consumer.retry import backoff
from consumer.sources.base import Message, SettleFailure, Source

if TYPE_CHECKING:
    from consumer.deliveries import Held

__all__ = ["Settlement"]

_log = structlog.get_logger("settlement")

_HEARTBEAT_TICK = 1.0
"""Leases due within this many seconds of each other are renewed in one call."""
_RENEWALS = 4
"""Renewals under way at once; never behind acks, which can wait."""
_RETRY_BASE = 0.1
_RETRY_CAP = 5.0
_WITHOUT_LEASE = 30.0
"""For how many seconds a settlement is retried where there is no lease to run out."""


class Settlement:
    """Owns every delivery of one source from its receive until the queue has answered how it ended.

    One owner means one state: while a renewal of a lease is under way, an ack or release of the same delivery waits
    for its answer, and no renewal begins once one of those was asked for.
    """

    def __init__(
        self,
        source: Source,
        *,
        visibility_timeout: float,
        settled: Callable[[Held], None],
        lost: Callable[[Held], None],
        timed: Callable[[str, float], None] | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        """`timed` is told of every call to the queue, by its name, for how many seconds it went on."""
        self._source = source
        self._renew_at = visibility_timeout / 2
        self._settled = settled
        self._lost = lost
        self._timed = timed
        self._spans = spans
        capabilities = source.capabilities
        self._linger = capabilities.settle_linger
        self._acks: Batcher[Held] = Batcher(most=capabilities.settle_batch, linger=self._linger)
        self._releases: dict[float, Batcher[Held]] = {}
        self._most = capabilities.settle_batch
        self._max_delay = capabilities.max_delay
        self._leases: OrderedDict[int, Held] = OrderedDict()
        self._slots = asyncio.Semaphore(capabilities.max_settles)
        self._renewal_slots = asyncio.Semaphore(_RENEWALS)
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pending = 0
        self._beat = asyncio.Event()
        self.asking = Spells()
        """Calls to the queue under way, renewals included."""
        self._answers = 0
        self.failures = 0
        """Settlements given up since the start: those deliveries come again."""

    @property
    def pending(self) -> int:
        """Settlements asked for and not answered yet; a stop waits for these."""
        return self._pending

    @property
    def standing(self) -> tuple[int | None, int] | None:
        """What changes with every answer of the queue while some is waited for; None: none is."""
        oldest = self.asking.oldest
        if oldest is not None:
            return oldest, 0
        return (None, self._answers) if self._pending else None

    @property
    def lapsed(self) -> int | None:
        """The lease that has run out although it is still to be renewed, as a number; None: there is none."""
        first = next(iter(self._leases.items()), None)
        return first[0] if first is not None and first[1].message.lease_until < time.monotonic() else None

    def hold(self, held: Held) -> None:
        """Keep a delivery's lease alive, if it has one, from now until it is settled."""
        if held.message.lease_until < math.inf:
            if not self._leases:
                self._beat.set()
            self._leases[id(held)] = held

    def forget(self, held: Held) -> None:
        """The delivery is no longer ours: ask the queue nothing about it."""
        self._end_lease(held)
        self._settled(held)

    def ack(self, held: Held) -> None:
        """Tell the queue that a delivery is done; its effect must be durable."""
        self._end_lease(held)
        self._pending += 1
        if held.busy:
            held.settling = lambda: self._batch(self._acks, held, self._acknowledge)
        else:
            self._batch(self._acks, held, self._acknowledge)

    def release(self, held: Held, delay: float) -> None:
        """Give a delivery back to the queue, to come again after `delay` seconds."""
        self._end_lease(held)
        self._pending += 1
        seconds = float(math.ceil(min(delay, self._max_delay))) if delay >= 1 else delay
        if held.busy:
            held.settling = lambda: self._release(held, seconds)
        else:
            self._release(held, seconds)

    def flush(self) -> None:
        """Send every batch begun, full or not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._acks:
            self._call(self._acks.take(), self._acknowledge)
        for delay, batcher in list(self._releases.items()):
            self._call(batcher.take(), self._give_back(delay))
        self._releases.clear()

    async def settled(self) -> None:
        """Wait until the queue has answered everything asked so far."""
        self.flush()
        while self._pending:
            if self._calls:
                await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0.01)
            self.flush()

    async def heartbeat(self) -> None:
        """Renew leases at half the visibility timeout, in batches, until cancelled."""
        leases = self._leases
        while True:
            while not leases:  # what was held may have been settled before this task had its turn
                self._beat.clear()
                await self._beat.wait()
            first = next(iter(leases.values()))
            wait = first.message.lease_until - self._renew_at - time.monotonic()
            if wait > 0:
                # A delivery that ends meanwhile leaves the next one due later, never sooner: sleeping is safe.
                await asyncio.sleep(wait)
                continue
            await self._renew_due(leases)

    # Batches on their way

    def _end_lease(self, held: Held) -> None:
        self._leases.pop(id(held), None)

    def _batch(
        self, batcher: Batcher[Held], held: Held, call: Callable[[Sequence[Message]], Awaitable[list[SettleFailure]]]
    ) -> None:
        full = batcher.add(held, time.monotonic())
        if full is not None:
            self._call(full, call)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._timer_due)

    def _timer_due(self) -> None:
        self._timer = None
        self.flush()

    def _release(self, held: Held, delay: float) -> None:
        batcher = self._releases.get(delay)
        if batcher is None:
            batcher = self._releases[delay] = Batcher(most=self._most, linger=self._linger)
        self._batch(batcher, held, self._give_back(delay))

    async def _acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        with self._timing("acknowledge"):
            return await self._source.acknowledge(messages)

    def _give_back(self, delay: float) -> Callable[[Sequence[Message]], Awaitable[list[SettleFailure]]]:
        async def call(messages: Sequence[Message]) -> list[SettleFailure]:
            with self._timing("release"):
                return await self._source.release(messages, delay)

        return call

    @contextlib.contextmanager
    def _timing(self, operation: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            with self.asking.under_way():
                yield
        finally:
            self._answers += 1
            if self._timed is not None:
                self._timed(operation, time.monotonic() - begun)

    def _call(self, batch: list[Held], call: Callable[[Sequence[Message]], Awaitable[list[SettleFailure]]]) -> None:
        if not batch:
            return
        task = asyncio.create_task(self._settle(batch, call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _settle(
        self, batch: list[Held], call: Callable[[Sequence[Message]], Awaitable[list[SettleFailure]]]
    ) -> None:
        """Settle a batch, retrying what the queue did not take while the lease lasts; then give it up.

        Giving up is safe: the message comes again, and the inbox knows it.
        """
        give_up = time.monotonic() + _WITHOUT_LEASE
        operation = "ack" if call == self._acknowledge else "nack"
        tries = 0
        try:
            while batch:
                try:
                    async with self._slots:
                        with self._spans.settling(self._source.name, operation, batch) as settling:
                            failures = await call([held.message for held in batch])
                            if failures:
                                settling.failed(len(failures), failures[-1].kind)
                except Exception as error:  # noqa: BLE001 - an adapter that breaks its contract loses no delivery
                    again, detail = batch, self._trouble(error)
                else:
                    if not failures:
                        break
                    again, detail = self._sort(batch, failures)
                tries += 1
                again = self._still_worth(again, give_up, detail)
                failed = set(map(id, again))
                self._answered([held for held in batch if id(held) not in failed])
                batch = again
                if batch:
                    await asyncio.sleep(backoff(tries, base=_RETRY_BASE, cap=_RETRY_CAP))
        finally:
            self._answered(batch)

    def _trouble(self, error: Exception) -> str:
        """What to say of a call that failed; only the words of `SourceError` are known to hold no message."""
        if isinstance(error, SourceError):
            return str(error)
        _log.error("source_failed", source=self._source.name, **describe(error))
        return type(error).__name__

    def _sort(self, batch: list[Held], failures: list[SettleFailure]) -> tuple[list[Held], str]:
        by_message = {id(held.message): held for held in batch}
        again = []
        for failure in failures:
            if failure.kind == "again":
                again.append(by_message[id(failure.message)])
            else:
                self._gave_up(1, failure.detail)
        return again, failures[-1].detail

    def _still_worth(self, batch: list[Held], give_up: float, detail: str) -> list[Held]:
        now = time.monotonic()
        worth = [held for held in batch if now < min(give_up, held.message.lease_until)]
        if len(worth) < len(batch):
            self._gave_up(len(batch) - len(worth), detail)
        return worth

    def _gave_up(self, count: int, detail: str) -> None:
        self.failures += count
        _log.warning("settlement_failed", source=self._source.name, count=count, detail=detail)

    def _answered(self, batch: list[Held]) -> None:
        self._pending -= len(batch)
        for held in batch:
            self._settled(held)

    # Leases

    async def _renew_due(self, leases: OrderedDict[int, Held]) -> None:
        horizon = time.monotonic() + self._renew_at + _HEARTBEAT_TICK
        due: list[Held] = []
        for held in leases.values():
            if held.message.lease_until > horizon:
                break
            due.append(held)
        batches = [due[start : start + self._most] for start in range(0, len(due), self._most)]
        for held in due:
            held.busy = True
            leases.move_to_end(id(held))
        await asyncio.gather(*map(self._renew, batches))

    async def _renew(self, batch: list[Held]) -> None:
        lost: list[Held] = []
        unknown = False
        try:
            async with self._renewal_slots:
                with self._timing("extend"):
                    failures = await self._source.extend([held.message for held in batch])
            gone = {id(failure.message) for failure in failures if failure.kind != "again"}
            unknown = any(failure.kind == "again" for failure in failures)
            lost = [held for held in batch if id(held.message) in gone]
        except Exception as error:  # noqa: BLE001 - as above, and it must not end the worker either
            unknown = True
            _log.warning("renewal_failed", source=self._source.name, detail=self._trouble(error))
        finally:
            for held in batch:
                held.busy = False
                settling, held.settling = held.settling, None
                if settling is not None:
                    settling()
        now = time.monotonic()
        if unknown:
            lost += [held for held in batch if held.message.lease_until <= now and held not in lost]
        for held in lost:
            if self._leases.pop(id(held), None) is not None:
                self._lost(held)
        if unknown:
            self._renew_first(batch)
            await asyncio.sleep(_HEARTBEAT_TICK / 2)

    def _renew_first(self, batch: Sequence[Held]) -> None:
        """Move the leases that were not renewed back to where the next look begins."""
        horizon = time.monotonic() + self._renew_at + _HEARTBEAT_TICK
        for held in batch:
            if id(held) in self._leases and held.message.lease_until <= horizon:
                self._leases.move_to_end(id(held), last=False)
