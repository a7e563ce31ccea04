"""The contract of a `Source`, as tests: what the worker relies on, stated once for every queue.

Subclass `SourceConformance`, say how your source is made, and let pytest collect it:

    from consumer.testing.conformance import SourceConformance

    class TestMySource(SourceConformance):
        visibility_timeout = 2.0

        @pytest.fixture
        async def open_again(self, tmp_path):
            async with opened_on_a_new_queue(tmp_path) as make:
                yield make

`open_again` yields an async function that opens a further source on one and the same new, empty queue, and closes
what it opened at the end. Where a queue cannot do something, its class says so (`ordered`, `headers`, ...): a test
then states what holds instead. So it is without leases (`Capabilities.leases`): what one source holds, or has given
back, comes again to itself, and to others once it is closed. Needs pytest and pytest-asyncio, in any of its modes.
Nothing else in `consumer.testing` needs them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from consumer.sources.base import Depth, Message, Outgoing

if TYPE_CHECKING:
    from consumer.sources.base import Source

__all__ = ["OpenAgain", "SourceConformance"]

OpenAgain = Callable[[], Awaitable["Source"]]
"""Opens one more source on the queue of this test."""

_PATIENCE = 20.0
"""Seconds in which a message that can be received must come."""


class SourceConformance:
    """What holds for every source. Attributes say what kind of queue this one is."""

    visibility_timeout: ClassVar[float] = 2.0
    """The source's visibility timeout, in seconds; tests wait for leases to lapse, so keep it short."""
    ordered: ClassVar[bool] = False
    """Whether messages with one `ordering_key` come in order, none while another of its lane is held."""
    always_ordered: ClassVar[bool] = False
    """Whether messages without a key are in order too, as on a FIFO queue; tests then give each a lane of its own."""
    binary: ClassVar[bool] = False
    """Whether it carries any bytes; False: UTF-8 text only."""
    headers: ClassVar[bool] = True
    """Whether it carries headers."""
    empty_bodies: ClassVar[bool] = False
    """Whether it carries messages without a byte."""
    delayed_sends: ClassVar[bool] = True
    """Whether `Outgoing.delay` works for single messages."""
    counts_receives: ClassVar[bool] = True
    """Whether `receive_count` counts; False: it is 0."""
    stale_receipts_fail: ClassVar[bool] = True
    """Whether the queue tells that a receipt is no longer good; False: it may call such a settlement done."""
    texts: ClassVar[Sequence[bytes]] = (
        b'{"plain": "ascii"}',
        "\u00e9\u4e2d\u202e\ufeff".encode(),
        "\U0001f600".encode(),
        b" leading, trailing and inner  white space\t",
        b"line\nfeeds\r\nand\rreturns\n",
        b"quotes \" ' \\ \\u00e9 & < > %00 +",
        b"{}",
    )
    """Bodies that must pass byte for byte; all of Unicode that SQS takes, unless a server cannot."""
    largest: ClassVar[int] = 200 * 1024
    """A size in bytes that must pass."""

    @pytest.fixture
    async def source(self, open_again: OpenAgain) -> Source:
        """The source under test, open."""
        return await open_again()

    def _loose(self, bodies: Iterable[bytes]) -> list[Outgoing]:
        """Messages that no order keeps from coming together."""
        if not self.always_ordered:
            return [Outgoing(body) for body in bodies]
        return [Outgoing(body, ordering_key=f"lane-{n}") for n, body in enumerate(bodies)]

    # Receiving

    @pytest.mark.asyncio
    async def test_an_empty_queue_gives_nothing(self, source: Source) -> None:
        """An empty receive returns an empty list, no later than `poll_wait` and a round trip."""
        started = time.monotonic()
        assert await source.receive(1) == []
        assert time.monotonic() - started < source.capabilities.poll_wait + 2

    @pytest.mark.asyncio
    async def test_never_more_than_asked_for(self, source: Source) -> None:
        """A receive returns at most `limit` messages, and at most `receive_batch`; nobody gets the same twice."""
        count = 25
        await source.send(self._loose(b"%d" % n for n in range(count)))
        seen: list[Message] = []
        for limit in (1, 3, 1000):
            messages = await source.receive(limit)
            assert len(messages) <= min(limit, source.capabilities.receive_batch)
            seen += messages
        seen += await _received(source, count - len(seen))
        assert sorted(int(message.body) for message in seen) == list(range(count))
        await _acknowledged(source, seen)

    @pytest.mark.asyncio
    async def test_facts_of_a_message(self, source: Source) -> None:
        """A message has an id, the queue's time, a first receive and a lease of the visibility timeout."""
        before = datetime.now(UTC)
        await source.send([Outgoing(b"{}")])
        (message,) = await _received(source, 1)
        assert message.message_id
        assert message.accepted_at.tzinfo is not None
        assert abs(message.accepted_at - before) < timedelta(seconds=30)
        assert message.expires_at is None or message.expires_at > before
        assert message.receive_count == (1 if self.counts_receives else 0)
        if source.capabilities.leases:
            left = message.lease_until - time.monotonic()
            assert self.visibility_timeout - 2 < left <= self.visibility_timeout

    @pytest.mark.asyncio
    async def test_bodies_are_byte_exact(self, source: Source) -> None:
        """What comes out is what went in, byte for byte: all text, white space, line ends, and large ones."""
        bodies = [*self.texts, b"x" * self.largest, ("\u00e9" * 1000).encode()]
        if self.binary:
            bodies += [bytes(range(256)), b"\x00", b"\xff\xfe"]
        if self.empty_bodies:
            bodies.append(b"")
        await source.send(self._loose(bodies))
        messages = await _received(source, len(bodies))
        assert sorted(message.body for message in messages) == sorted(bodies)
        assert {type(message.body) for message in messages} == {bytes}
        await _acknowledged(source, messages)

    @pytest.mark.asyncio
    async def test_headers_come_along(self, source: Source) -> None:
        """Headers arrive as they were sent, or not at all where the queue has none."""
        sent = {"X-Signature": "a+b/c=", "X-External-Id": "m\u00e9mber 1"}
        with_headers, without = self._loose([b"with", b"without"])
        await source.send([replace(with_headers, headers=sent), without])
        messages = await _received(source, 2)
        found = {message.body: dict(message.headers) for message in messages}
        assert found == {b"with": sent if self.headers else {}, b"without": {}}

    @pytest.mark.asyncio
    async def test_a_message_that_comes_during_a_poll(self, source: Source, open_again: OpenAgain) -> None:
        """A receive that waits returns with a message somebody else sends meanwhile."""
        other = await open_again()
        poll = asyncio.create_task(_received(source, 1))
        await asyncio.sleep(0.2)
        await other.send([Outgoing(b"late")])
        (message,) = await poll
        assert message.body == b"late"

    # Leases

    @pytest.mark.asyncio
    async def test_a_held_message_is_nobody_elses(self, source: Source, open_again: OpenAgain) -> None:
        """While its lease lasts a message is handed to nobody; then it comes again, counted."""
        other = await open_again()
        await source.send([Outgoing(b"one")])
        (message,) = await _received(source, 1)
        assert await other.receive(10) == []
        await _until_others_may(source)
        (again,) = await _received(other, 1)
        assert time.monotonic() > message.lease_until - 1
        assert again.message_id == message.message_id
        assert again.body == message.body
        assert again.accepted_at == message.accepted_at
        assert again.receive_count == (2 if self.counts_receives else 0)

    @pytest.mark.asyncio
    async def test_extend_renews_the_lease(self, source: Source, open_again: OpenAgain) -> None:
        """Renewing moves `lease_until`, and the message stays away from others beyond its first lease."""
        other = await open_again()
        await source.send([Outgoing(b"one")])
        messages = await _received(source, 1)
        first = messages[0].lease_until
        until = time.monotonic() + 1.6 * self.visibility_timeout
        while time.monotonic() < until:
            assert await source.extend(messages) == []
            assert messages[0].lease_until >= first
            assert await _glance(other, 0.3 * self.visibility_timeout) == []
        if source.capabilities.leases:
            assert messages[0].lease_until > first + 0.5 * self.visibility_timeout
        await _acknowledged(source, messages)

    @pytest.mark.asyncio
    async def test_a_stale_receipt_settles_nothing(self, source: Source, open_again: OpenAgain) -> None:
        """Once a message was handed out again, the first receipt may neither renew nor release nor end it."""
        other = await open_again()
        await source.send([Outgoing(b"one")])
        stale = await _received(source, 1)
        await _until_others_may(source)
        fresh = await _received(other, 1)
        failures = [*await source.extend(stale), *await source.release(stale, 0)]
        if self.stale_receipts_fail:
            assert {failure.kind for failure in failures} <= {"gone"}
        assert all(failure.message is stale[0] for failure in failures)
        assert await other.acknowledge(fresh) == []
        await _stays_empty(other, self.visibility_timeout)

    # Settling

    @pytest.mark.asyncio
    async def test_acknowledge_is_final(self, source: Source, open_again: OpenAgain) -> None:
        """What was acknowledged never comes again, for anybody, and the queue counts nothing any more."""
        other = await open_again()
        await source.send(self._loose(b"%d" % n for n in range(10)))
        await _acknowledged(source, await _received(source, 10))
        assert (await source.depth()).total == 0
        await _stays_empty(other, self.visibility_timeout)

    @pytest.mark.asyncio
    async def test_release_gives_back_at_once(self, source: Source, open_again: OpenAgain) -> None:
        """A message released without delay can be received at once, by anybody, and the release costs nothing."""
        other = await _who_may(source, open_again)
        await source.send(self._loose(b"%d" % n for n in range(5)))
        held = await _received(source, 5)
        started = time.monotonic()
        assert await source.release(held, 0) == []
        again = await _received(other, 5)
        assert time.monotonic() - started < self.visibility_timeout - 0.2
        assert {message.message_id for message in again} == {message.message_id for message in held}

    @pytest.mark.asyncio
    async def test_release_with_a_delay(self, source: Source) -> None:
        """A message released with a delay stays away that long, however long its lease was, and then comes."""
        await source.send([Outgoing(b"one")])
        held = await _received(source, 1)
        delay = self.visibility_timeout + 1
        started = time.monotonic()
        assert await source.release(held, delay) == []
        assert (await source.depth()).visible == 0
        await _received(source, 1)
        assert time.monotonic() - started > delay - 1.1

    @pytest.mark.asyncio
    async def test_a_batch_answers_per_message(self, source: Source) -> None:
        """A batch with one message that is gone settles the others and names that one alone."""
        await source.send(self._loose(b"%d" % n for n in range(4)))
        messages = await _received(source, 4)
        await _acknowledged(source, messages[:1])
        failures = await source.extend(messages)
        assert all(failure.message is messages[0] and failure.kind == "gone" for failure in failures)
        if self.stale_receipts_fail:
            assert len(failures) == 1
        assert all(isinstance(failure.detail, str) for failure in failures)
        await _acknowledged(source, messages[1:])
        assert (await source.depth()).total == 0

    @pytest.mark.asyncio
    async def test_settling_as_many_as_it_says(self, source: Source) -> None:
        """Every settling call takes `settle_batch` messages."""
        most = source.capabilities.settle_batch
        await source.send(self._loose(b"%d" % n for n in range(most)))
        messages = await _received(source, most)
        for settle in (source.extend, source.acknowledge):
            assert await settle(messages) == []
        assert (await source.depth()).total == 0

    # Sending

    @pytest.mark.asyncio
    async def test_sends_are_there_when_send_returns(self, source: Source, open_again: OpenAgain) -> None:
        """More messages than fit one call are all accepted, and survive that the sender closes."""
        sender = await open_again()
        await sender.send(self._loose(b"%d" % n for n in range(33)))
        await sender.close()
        messages = await _received(source, 33)
        assert sorted(int(message.body) for message in messages) == list(range(33))

    @pytest.mark.asyncio
    async def test_sends_with_a_delay(self, source: Source) -> None:
        """A message sent with a delay does not come before it is over."""
        delay = 2.0 if self.delayed_sends else 0.0
        started = time.monotonic()
        await source.send([Outgoing(b"one", delay=delay)])
        await _received(source, 1)
        assert time.monotonic() - started > delay - 1.1

    @pytest.mark.asyncio
    async def test_depth_counts(self, source: Source) -> None:
        """Depth tells what can be received from what is held."""
        assert await source.depth() == Depth(0)
        await source.send(self._loose([b"a", b"b", b"c"]))
        assert (await source.depth()).visible == 3
        await _received(source, 1)
        depth = await source.depth()
        assert (depth.visible, depth.invisible, depth.total) == (2, 1, 3)

    # Order

    @pytest.mark.asyncio
    async def test_order_within_a_lane(self, source: Source) -> None:
        """Messages of one ordering key come in order, also after a release; without lanes the key is None."""
        await source.send(
            [Outgoing(b"%s%d" % (lane, n), ordering_key=lane.decode()) for n in range(4) for lane in _LANES]
        )
        seen: dict[str | None, list[bytes]] = {}
        released: set[str] = set()
        left = 4 * len(_LANES)
        async with asyncio.timeout(_PATIENCE):
            while left:
                messages = await source.receive(1)
                for message in messages:
                    lane = message.ordering_key
                    if lane is not None and lane not in released:
                        released.add(lane)
                        assert await source.release([message], 0) == []
                        continue
                    seen.setdefault(lane, []).append(message.body)
                    left -= 1
                    await _acknowledged(source, [message])
        if self.ordered:
            assert seen == {lane.decode(): [b"%s%d" % (lane, n) for n in range(4)] for lane in _LANES}
        else:
            assert set(seen) == {None}

    @pytest.mark.asyncio
    async def test_a_held_head_holds_its_lane(self, source: Source, open_again: OpenAgain) -> None:
        """While one message of a lane is held nobody gets its followers; other lanes go on."""
        other = await _who_may(source, open_again)
        await source.send([Outgoing(b"first", ordering_key="a"), Outgoing(b"second", ordering_key="a")])
        head = await _received(source, 1)
        await source.send([Outgoing(b"other", ordering_key="b")])
        (message,) = await _received(other, 1)
        assert message.body == b"other" if self.ordered else b"second"
        rest = await _glance(other, 0.3)
        assert [found.body for found in rest] == [] if self.ordered else [b"other"]
        await _acknowledged(source, head)

    # Ending

    @pytest.mark.asyncio
    async def test_interrupt_hurries_and_loses_nothing(self, source: Source, open_again: OpenAgain) -> None:
        """After `interrupt` receives return soon, and what they do not return stays on the queue."""
        poll = asyncio.create_task(source.receive(10))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        source.interrupt()
        assert await poll == []
        assert time.monotonic() - started < source.capabilities.poll_wait + 2
        started = time.monotonic()
        assert await source.receive(10) == []
        assert time.monotonic() - started < 1.5
        other = await open_again()
        await other.send([Outgoing(b"one")])
        found = await source.receive(10)
        await _until_others_may(source)
        found += await _received(other, 1 - len(found))
        assert [message.body for message in found] == [b"one"]

    @pytest.mark.asyncio
    async def test_settling_works_after_interrupt(self, source: Source) -> None:
        """A worker that stops still acknowledges, renews and releases."""
        await source.send(self._loose(b"%d" % n for n in range(3)))
        messages = await _received(source, 3)
        source.interrupt()
        assert await source.extend(messages) == []
        assert await source.acknowledge(messages[:2]) == []
        assert await source.release(messages[2:], 0) == []
        assert (await source.depth()).visible == 1

    @pytest.mark.asyncio
    async def test_what_a_closed_source_held_comes_again(self, source: Source, open_again: OpenAgain) -> None:
        """Closing leaves held messages to their leases; a source opened later gets them."""
        await source.send([Outgoing(b"one")])
        await _received(source, 1)
        await source.close()
        again = await open_again()
        (message,) = await _received(again, 1)
        assert message.body == b"one"

    @pytest.mark.asyncio
    async def test_check_finds_nothing_wrong(self, source: Source) -> None:
        """On a queue as these tests make it `check` names findings, and nothing that stops the worker."""
        findings = await source.check()
        assert findings
        assert all(finding.ok or finding.warning for finding in findings)

    def test_it_says_what_it_can(self) -> None:
        """The class that subclasses this one states a visibility timeout the tests can wait for."""
        assert 1 <= self.visibility_timeout <= 30


_LANES = (b"a", b"b", b"c")


async def _until_others_may(source: Source) -> None:
    """Without leases, what a source holds is for others only once it is closed."""
    if not source.capabilities.leases:
        await source.close()


async def _who_may(source: Source, open_again: OpenAgain) -> Source:
    """Who receives what a source has given back, or what it does not hold."""
    return await open_again() if source.capabilities.leases else source


async def _received(source: Source, count: int) -> list[Message]:
    """So many messages; a queue may hand out fewer at a time."""
    messages: list[Message] = []
    async with asyncio.timeout(_PATIENCE):
        while len(messages) < count:
            messages += await source.receive(count - len(messages))
    return messages


async def _glance(source: Source, seconds: float) -> list[Message]:
    """What comes within a moment; the receives are not cancelled."""
    until = time.monotonic() + seconds
    messages = await source.receive(10)
    while not messages and time.monotonic() < until:
        messages = await source.receive(10)
    return messages


async def _stays_empty(source: Source, seconds: float) -> None:
    until = time.monotonic() + seconds + 0.5
    while time.monotonic() < until:
        assert await source.receive(10) == []
    assert (await source.depth()).total == 0


async def _acknowledged(source: Source, messages: Sequence[Message]) -> None:
    size = source.capabilities.settle_batch
    for start in range(0, len(messages), size):
        batch: Any = messages[start : start + size]
        assert await source.acknowledge(batch) == []
