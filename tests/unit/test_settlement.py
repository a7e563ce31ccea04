"""Settlement: batches, partial failures, renewals, and one owner for each delivery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from consumer.deliveries import Held
from consumer.errors import SourceUnavailable
from consumer.settlement import Settlement
from consumer.sources.base import Capabilities, Depth, Finding, Message, Outgoing, SettleFailure


class ScriptedQueue:
    """A queue that answers as told, and remembers what it was asked."""

    name = "labs"
    kind = "scripted"

    def __init__(self, *, lease: float = 60.0, batch: int = 10) -> None:
        self.capabilities = Capabilities(receive_batch=10, settle_batch=batch, max_delay=100.0, poll_wait=1.0)
        self.lease = lease
        self.calls: list[tuple[str, list[str]]] = []
        self.answers: list[Any] = []
        self.busy: set[str] = set()
        self.latency = 0.0

    async def _call(self, what: str, messages: Sequence[Message]) -> list[SettleFailure]:
        names = [message.message_id for message in messages]
        assert len(names) <= self.capabilities.settle_batch
        assert not self.busy & set(names), "two calls at once for one message"
        self.busy |= set(names)
        self.calls.append((what, names))
        await asyncio.sleep(self.latency)
        self.busy -= set(names)
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        return [
            SettleFailure(message, answer[message.message_id], "code")
            for message in messages
            if message.message_id in answer
        ]

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        return await self._call("ack", messages)

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        return await self._call(f"release {delay:g}", messages)

    async def extend(self, messages: Sequence[Message]) -> list[SettleFailure]:
        failures = await self._call("extend", messages)
        failed = {id(failure.message) for failure in failures}
        for message in messages:
            if id(message) not in failed:
                message.lease_until = time.monotonic() + self.lease
        return failures

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def receive(self, limit: int) -> list[Message]:
        return []

    def interrupt(self) -> None: ...
    async def send(self, messages: Sequence[Outgoing]) -> None: ...
    async def depth(self) -> Depth:
        return Depth(0)

    async def check(self) -> list[Finding]:
        return []


class Desk:
    """A settlement over a scripted queue, with what it reported."""

    def __init__(self, queue: ScriptedQueue) -> None:
        self.queue = queue
        self.settled: list[str] = []
        self.lost: list[str] = []
        self.settlement = Settlement(
            queue,
            visibility_timeout=queue.lease,
            settled=lambda held: self.settled.append(held.message.message_id),
            lost=lambda held: self.lost.append(held.message.message_id),
        )

    def held(self, name: str) -> Held:
        now = time.monotonic()
        message = Message(b"", name, None, datetime.now(UTC), lease_until=now + self.queue.lease)
        held = Held(message, received_at=now)
        self.settlement.hold(held)
        return held

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        heart = asyncio.create_task(self.settlement.heartbeat())
        yield
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


async def test_acks_go_out_in_full_batches_and_the_rest_after_a_moment() -> None:
    """Twenty-three acks are three calls, and `settled` waits for the last answer."""
    desk = Desk(ScriptedQueue())
    for n in range(23):
        desk.settlement.ack(desk.held(f"m{n}"))
    assert desk.settlement.pending == 23
    await desk.settlement.settled()
    assert [len(names) for _, names in desk.queue.calls] == [10, 10, 3]
    assert len(desk.settled) == 23
    assert desk.settlement.pending == 0


async def test_only_the_entries_that_failed_are_asked_for_again() -> None:
    """A partial failure keeps its messages until the queue has taken them."""
    desk = Desk(ScriptedQueue())
    desk.queue.answers = [{"m1": "again", "m3": "again"}, {"m3": "again"}]
    for n in range(5):
        desk.settlement.ack(desk.held(f"m{n}"))
    await desk.settlement.settled()
    assert [names for _, names in desk.queue.calls] == [["m0", "m1", "m2", "m3", "m4"], ["m1", "m3"], ["m3"]]
    assert sorted(desk.settled) == ["m0", "m1", "m2", "m3", "m4"]
    assert desk.settlement.failures == 0


async def test_what_can_never_be_settled_is_given_up_and_counted() -> None:
    """A receipt that is gone, or refused: the message comes again, and the inbox knows it."""
    desk = Desk(ScriptedQueue())
    desk.queue.answers = [{"m0": "gone", "m1": "refused"}]
    for n in range(3):
        desk.settlement.ack(desk.held(f"m{n}"))
    await desk.settlement.settled()
    assert len(desk.queue.calls) == 1
    assert len(desk.settled) == 3
    assert desk.settlement.failures == 2


async def test_a_queue_that_is_away_is_asked_again_until_the_lease_ends() -> None:
    """Then it would only hit somebody else's message."""
    desk = Desk(ScriptedQueue(lease=0.5))
    desk.queue.answers = [SourceUnavailable("away")] * 100
    desk.settlement.ack(desk.held("m0"))
    await desk.settlement.settled()
    assert len(desk.queue.calls) > 1
    assert desk.settled == ["m0"]
    assert desk.settlement.failures == 1


async def test_leases_are_renewed_in_batches_at_half_their_time() -> None:
    """Twenty-five messages held over several leases stay ours, three calls a round."""
    desk = Desk(ScriptedQueue(lease=0.6))
    held = [desk.held(f"m{n}") for n in range(25)]
    async with desk.beating():
        await asyncio.sleep(1.0)
        assert all(one.message.lease_until > time.monotonic() for one in held)
    rounds = [len(names) for what, names in desk.queue.calls if what == "extend"]
    assert rounds[:3] == [10, 10, 5]
    assert desk.lost == []


async def test_a_renewal_that_is_refused_is_a_lost_lease() -> None:
    """Told once, and asked about no more."""
    desk = Desk(ScriptedQueue(lease=0.4))
    desk.queue.answers = [{"m0": "gone"}]
    desk.held("m0")
    desk.held("m1")
    async with desk.beating():
        await desk.until(lambda: len(desk.queue.calls) >= 3)
    assert desk.lost == ["m0"]
    assert all(names == ["m1"] for _, names in desk.queue.calls[1:])


async def test_a_renewal_that_fails_is_tried_again_before_the_lease_ends() -> None:
    """An outage shorter than half the visibility timeout costs nothing."""
    desk = Desk(ScriptedQueue(lease=3.0))
    desk.queue.answers = [SourceUnavailable("away"), SourceUnavailable("away")]
    held = desk.held("m0")
    held.message.lease_until = time.monotonic() + 1.6
    async with desk.beating():
        await desk.until(lambda: len(desk.queue.calls) >= 3)
    assert desk.lost == []
    assert held.message.lease_until > time.monotonic() + 2


async def test_a_settlement_waits_for_the_renewal_under_way() -> None:
    """Never two calls at once for one message, and no renewal once it is being settled."""
    desk = Desk(ScriptedQueue(lease=0.4))
    desk.queue.latency = 0.1
    held = [desk.held(f"m{n}") for n in range(3)]
    async with desk.beating():
        await desk.until(lambda: desk.queue.busy)
        desk.settlement.ack(held[0])
        desk.settlement.release(held[1], 7)
        await desk.until(lambda: len(desk.settled) == 2)
        await asyncio.sleep(0.5)
    after = [what for what, names in desk.queue.calls[1:] if "m0" in names or "m1" in names]
    assert sorted(after) == ["ack", "release 7"]


async def test_releases_are_batched_by_delay_and_cut_to_what_the_queue_can_hold() -> None:
    """Whole seconds above one, so that they share calls; 100 s is this queue's longest."""
    desk = Desk(ScriptedQueue())
    for n, delay in enumerate([0, 0, 2.2, 2.9, 5000]):
        desk.settlement.release(desk.held(f"m{n}"), delay)
    await desk.settlement.settled()
    assert sorted(desk.queue.calls) == [
        ("release 0", ["m0", "m1"]),
        ("release 100", ["m4"]),
        ("release 3", ["m2", "m3"]),
    ]
