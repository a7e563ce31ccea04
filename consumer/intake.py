"""One source's way through the worker: receive what there is room for, open it, settle what became of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from consumer.asides import Asides
from consumer.dead_letters.desk import Desk
from consumer.deliveries import Held, Item
from consumer.errors import DatabaseError
from consumer.expiry import time_left
from consumer.failures import describe
from consumer.judging import Judge
from consumer.lanes import Lanes, member_lane
from consumer.opening import open_message
from consumer.outcomes import DeadLettered, Duplicate, GivenBack, Handled, Lost, Verdict, WillRetry
from consumer.parking import PARKED_DELAY, ParkedLanes
from consumer.pausing import Pauses
from consumer.permits import Permits
from consumer.receiving import Receiver
from consumer.retrying import Retrying
from consumer.route import Route
from consumer.settlement import Settlement
from consumer.sources.base import LaneJoining, LosingMessages, Message, Source

if TYPE_CHECKING:
    from consumer.dead_letters.writing import DeadLetterWriter
    from consumer.inbox import Inbox
    from consumer.ops.source_metrics import SourceMetrics
    from consumer.pipeline import Pipeline

__all__ = ["Intake"]

_log = structlog.get_logger("worker")

_OFFLOAD_BYTES = 256 * 1024
_ARRAY = b"[ \t\r\n"
"""What a message begins with that may be an array of envelopes."""
_SUSPECT_DELAY = 10.0
_QUIET = ("stopped", "withdrawn")
"""Reasons to give a delivery back that say nothing about trouble."""


class Intake:
    """Receives from one source within its permits and sees every delivery through to its settlement."""

    def __init__(
        self,
        *,
        source: Source,
        route: Route,
        pipeline: Pipeline,
        inbox: Inbox,
        dead_letters: DeadLetterWriter,
        metrics: SourceMetrics,
        max_in_flight: int,
        max_in_flight_bytes: int,
        visibility_timeout: float,
        park_lanes: bool = False,
    ) -> None:
        self.source = source
        self.route = route
        self.pauses = Pauses(source.name, metrics.paused)
        self.breaker = self.pauses.breaker
        self.permits = Permits(count=max_in_flight, size=max_in_flight_bytes, largest=route.max_message_bytes)
        self.settlement = Settlement(
            source,
            visibility_timeout=visibility_timeout,
            settled=self._settled,
            lost=self._lease_lost,
            timed=metrics.settling_took,
            spans=pipeline.spans,
        )
        self.held: dict[Held, None] = {}
        self.receiver = Receiver(source, self.permits, self, may_receive=lambda: self.pauses.none, spans=pipeline.spans)
        self._pipeline = pipeline
        self._metrics = metrics
        self._parking = ParkedLanes(inbox, source.name) if park_lanes else None
        self._desk = Desk(dead_letters, inbox, parking=self._parking)
        self._lanes: Lanes[Held] = Lanes()
        self._asides = Asides()
        self.retrying = Retrying()
        self.paused = self.pauses.any
        """Set while the source is paused, by trouble or by an operator."""
        self.retention: timedelta | None = None
        """How long the queue keeps a message, as the last one received told."""
        self.tripped_by: str | None = None
        """The message that last met trouble, by its broker's id: the first probe is for another one."""
        self._judge = Judge(route, suspect=lambda: self._pause("signatures", None))
        self._ended = asyncio.Event()
        if isinstance(source, LosingMessages):
            source.on_lost = self._messages_lost
        metrics.watch(self)

    # Taking

    def arrived(self, count: int) -> None:
        """Count messages received."""
        self._metrics.received(count)

    def refuse(self, messages: Iterable[Message], delay: float = 0.0) -> None:
        """Give messages back that hold no permits, to come again after `delay` seconds."""
        for message in messages:
            self.pauses.leave_behind(message)
            held = Held(message, received_at=time.monotonic())
            held.permit = False
            self.held[held] = None
            self.settlement.release(held, delay)
        if self.route.lane_by_member:
            self.settlement.flush()  # before a receive brings what comes after them in a lane nobody knows yet

    def admit(self, messages: Iterable[Message]) -> list[Held]:
        """Take messages in hand: they have permits, and get a lease that is kept alive."""
        now = time.monotonic()
        taken = []
        for message in messages:
            if message.expires_at is not None:
                self.retention = message.expires_at - message.accepted_at
            held = Held(message, received_at=now)
            self.held[held] = None
            self.settlement.hold(held)
            taken.append(held)
            held.lane = None if self.route.lane_by_member else message.ordering_key
            if held.lane is None or self._lanes.enter(held.lane, held):
                self._start(held)
        return taken

    def _start(self, held: Held) -> None:
        """Open a delivery whose turn it is, and hand its envelopes on; aside if that takes a while."""
        if self._takes_a_while(held):
            self._asides.start(self._start_aside(held))
            return
        try:
            items = open_message(held, self.route) if held.opened is None else held.opened
        except Exception as error:  # noqa: BLE001 - a bug of ours must not lose the delivery
            self._not_opened(held, error)
        else:
            self._opened(held, items)

    def _takes_a_while(self, held: Held) -> bool:
        if self._parking is not None and held.lane is not None:
            return True
        # Opened aside, a large one would fall behind others of its member.
        return not self.route.lane_by_member and (held.size > _OFFLOAD_BYTES or held.message.body[:1] in _ARRAY)

    async def _start_aside(self, held: Held) -> None:
        try:
            if await self._is_parked(held):
                self._stay_parked(held)
                return
            # Hashing and parsing a large body, or an array, takes milliseconds: off the loop, where heartbeats run.
            items = await asyncio.to_thread(open_message, held, self.route) if held.opened is None else held.opened
        except Exception as error:  # noqa: BLE001 - as above
            self._not_opened(held, error)
        else:
            self._opened(held, items)

    async def _is_parked(self, held: Held) -> bool:
        return self._parking is not None and held.lane is not None and await self._parking.holds(held.lane)

    def _stay_parked(self, held: Held) -> None:
        left = time_left(held.message, datetime.now(UTC))
        if left > 0:
            held.delay = min(PARKED_DELAY, left)
            self._settle(held)
        else:
            self._expire(held)

    def _not_opened(self, held: Held, error: Exception) -> None:
        if not isinstance(error, DatabaseError):
            _log.error("opening_failed", source=self.source.name, **describe(error))
        held.gave_back = True
        self._settle(held)
        self._pause(type(error).__name__, None)

    def _opened(self, held: Held, items: list[Item]) -> None:
        held.items = items
        held.open_items = len(items)
        held.several = len(items) > 1
        if self.route.lane_by_member and held.opened is None and not self._takes_its_place(held, items):
            return
        if held.lane is not None and held.several:
            held.rest = deque(items)
            items = [held.rest.popleft()]
        for item in items:
            self._submit(item)

    def _takes_its_place(self, held: Held, items: list[Item]) -> bool:
        """Put a delivery among those of its member. False: its turn comes later, here or from its source."""
        held.opened = items
        lane = member_lane(items)
        if lane is None:
            return True
        if isinstance(self.source, LaneJoining) and not self.source.join(
            held.message, lane, follows=lane in self._lanes
        ):
            held.gave_back = True
            self._settle(held)
            return False
        held.lane = lane
        heads = self._lanes.enter(lane, held)
        if heads and self._parking is not None:
            self._start(held)  # again: now that its lane is known, that may turn out to be parked
            return False
        return heads

    def _submit(self, item: Item) -> None:
        if item.verdict is None and self.pauses.by_operator is not None:
            self._conclude(item, GivenBack("withdrawn"))
        elif item.verdict is None:
            self._pipeline.submit(item, self._done)
        else:
            self._pipeline.spans.refused(item, item.verdict)
            self._done(item, item.verdict)

    # Outcomes

    def _done(self, item: Item, verdict: Verdict) -> None:
        """An envelope's outcome is known, and durable unless it is a dead letter, which is made durable first."""
        verdict = self._judge.judge(item, verdict)
        if isinstance(verdict, DeadLettered):
            self._asides.start(self._put_aside(item, verdict))
        else:
            self._conclude(item, verdict)

    async def _put_aside(self, item: Item, verdict: DeadLettered) -> None:
        self._conclude(item, await self._desk.put_aside(item, verdict))

    def _conclude(self, item: Item, verdict: Verdict) -> None:
        held = item.held
        self._note(item, verdict)
        if isinstance(verdict, Handled):
            self.breaker.proved()
        if self.route.guard.suspicion == "handlers" and self.breaker.closed:
            self._pause("handlers", None)
        if isinstance(verdict, WillRetry):
            held.delay = verdict.delay if held.delay is None else min(held.delay, verdict.delay)
        elif isinstance(verdict, GivenBack):
            held.gave_back = True
            if verdict.why == "signatures":
                held.delay = _SUSPECT_DELAY
            elif verdict.why not in _QUIET:
                self.tripped_by = held.message.message_id
                self._pause(verdict.why, verdict.retry_after, verdict.detail)
        elif isinstance(verdict, Lost):
            held.lost = held.unhandled = True
        held.open_items -= 1
        if held.rest and not (held.gave_back or held.unhandled or held.delay is not None):
            # Not at once: a long row of envelopes, or of followers below, would pile up on the stack.
            asyncio.get_running_loop().call_soon(self._submit, held.rest.popleft())
            return
        held.open_items -= len(held.rest)
        held.rest.clear()
        if held.open_items == 0:
            self._settle(held)

    def _note(self, item: Item, verdict: Verdict) -> None:
        """Let metrics and operators know what became of an envelope."""
        self._metrics.outcome(verdict, type(item.event), item.held.message.accepted_at)
        if item.event is not None:
            self.retrying.note(item, verdict)
        if self.route.skips and isinstance(verdict, Handled | Duplicate | DeadLettered):
            self.route.skips.done(item.event_id)

    def _settle(self, held: Held) -> None:
        done = not (held.gave_back or held.delay is not None or held.unhandled)
        if done:
            self.route.skips.done(held.message.message_id)
            if held.marked:
                self._asides.start(self._desk.forget_marks(held))
            # With the lease lost this is best effort: the effect is there, whoever has the message now finds it.
            self.settlement.ack(held)
        elif held.lost:
            self.settlement.forget(held)
        else:
            self.pauses.leave_behind(held.message)
            self.settlement.release(held, held.delay or 0.0)
        if held.lane is not None:
            self._move_lane(held.lane, done=done)
        held.conclude()

    def _move_lane(self, lane: str, *, done: bool) -> None:
        if done:
            follower = self._lanes.advance(lane)
            if follower is not None:
                asyncio.get_running_loop().call_soon(self._start, follower)
            return
        self._let_go(self._lanes.block(lane))

    def _let_go(self, followers: Iterable[Held]) -> None:
        for follower in followers:
            self.settlement.release(follower, 0.0)
            follower.conclude()

    def _settled(self, held: Held) -> None:
        self.held.pop(held, None)
        if held.permit:
            self.permits.give_back(held.size)
        self._ended.set()
        self.receiver.wake()

    def _messages_lost(self, messages: Iterable[Message]) -> None:
        lost = set(map(id, messages))
        for held in [held for held in self.held if id(held.message) in lost and not held.concluded]:
            self._lease_lost(held)

    def _lease_lost(self, held: Held) -> None:
        held.lost = True
        self._metrics.lease_lost()
        _log.warning("lease_lost", source=self.source.name, message_id=held.message.message_id)
        for task in held.tasks:
            task.cancel()

    @property
    def aside(self) -> int | None:
        """The number of what has gone on aside for longest, like putting an event aside; None: nothing does."""
        return self._asides.spells.oldest

    # Pauses: for trouble of our own, or by an operator

    def _pause(self, why: str, retry_after: float | None, detail: str | None = None) -> None:
        self.pauses.trip(why, retry_after, detail)
        self._withdraw("withdrawn")

    def _withdraw(self, why: str) -> None:
        for item in self._pipeline.withdraw(self.source.name):
            self._conclude(item, GivenBack(why))

    def resume(self) -> None:
        """Receive as usual again."""
        self.pauses.mended()
        self.receiver.wake()

    def pause_by_operator(self, reason: str) -> None:
        """Receive no more and give back what has not started, until `resume_by_operator`; what runs may finish."""
        self.pauses.halt(reason)
        self._withdraw("withdrawn")
        self._let_go(self._lanes.clear())

    def resume_by_operator(self) -> bool:
        """End what `pause_by_operator` began, and nothing else. False: there was nothing to end."""
        ended = self.pauses.go_on()
        self.receiver.wake()
        return ended

    def secrets_changed(self) -> None:
        """New secrets were loaded: what the old ones said of signatures no longer counts."""
        self.route.guard.secrets_changed()
        self.hurry("signatures")

    def hurry(self, *reasons: str) -> None:
        """What it may be paused for has been mended: then look at once."""
        if self.breaker.reason in reasons:
            self.breaker.retry_at = time.monotonic()

    def expire(self, messages: Iterable[Message]) -> list[Message]:
        """Dead-letter those of these messages that their queue is about to delete; the others are returned.

        What is returned still holds its permits.
        """
        kept = []
        for message in messages:
            if time_left(message, datetime.now(UTC)) > 0:
                kept.append(message)
                continue
            held = Held(message, received_at=time.monotonic())
            self.held[held] = None
            self.settlement.hold(held)
            self._expire(held)
        return kept

    def _expire(self, held: Held) -> None:
        items = open_message(held, self.route)
        held.open_items = len(items)
        held.several = len(items) > 1
        for item in items:
            self._done(item, item.verdict or DeadLettered("expiring", "its queue was about to delete it"))

    # Ending

    async def finished(self) -> None:
        """Wait until nothing is in hand and the queue has answered every settlement."""
        while self.held or self._asides:
            if self._asides:
                await self._asides.wait(0.05)
            else:
                self._ended.clear()
                self.settlement.flush()
                await self._ended.wait()
        await self.settlement.settled()

    def give_back_all(self) -> None:
        """Give back at once whatever has not started; what runs must be cancelled and ends by itself."""
        self._withdraw("stopped")
        self._let_go(self._lanes.clear())

    def oldest_age(self) -> float:
        """Seconds since its queue accepted the oldest delivery in hand, or left behind by a pause; 0 with none."""
        now = datetime.now(UTC)
        oldest = min((held.message.accepted_at for held in self.held), default=now)
        return max(0.0, (now - min(oldest, self.pauses.oldest_left or now)).total_seconds())
