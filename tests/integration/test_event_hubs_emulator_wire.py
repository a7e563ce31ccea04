"""The Event Hubs emulator frame by frame: windows, credit, heartbeats, and what breaks the protocol's rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from azure.eventhub._pyamqp.utils import generate_sas_token

from tests.emulators.amqp_codec import Described, Symbol, Uint, Ulong
from tests.emulators.amqp_frames import (
    AMQP_HEADER,
    SASL_HEADER,
    Attach,
    Begin,
    Close,
    Detach,
    Flow,
    Open,
    Performative,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Section,
    Transfer,
    frame,
    parse,
    section,
)
from tests.emulators.event_hubs import KEY_NAME, EventHubsEmulator

READER = "events/ConsumerGroups/$Default/Partitions/0"
PLAIN = b"\0RootManageSharedAccessKey\0SAS_KEY_VALUE"


class Peer:
    """The other end of a connection, which says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *performatives: Performative, payload: bytes = b"", channel: int = 0) -> None:
        for performative in performatives:
            self.raw(frame(performative, channel=channel, payload=payload))

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def header(self) -> bytes:
        return await self._reader.readexactly(8)

    async def next(self) -> tuple[Any, bytes]:
        """The next frame: its performative and payload."""
        async with asyncio.timeout(5):
            size = await self._reader.readexactly(4)
            data = size + await self._reader.readexactly(int.from_bytes(size, "big") - 4)
        _, performative, payload = parse(data)
        return performative, payload

    async def until(self, kind: type[Any]) -> Any:
        """The next frame of a kind; those before it are passed over."""
        while True:
            performative, _ = await self.next()
            if isinstance(performative, kind):
                return performative

    async def transfers(self, count: int) -> list[bytes]:
        """The payloads of the next transfers."""
        payloads = []
        while len(payloads) < count:
            performative, payload = await self.next()
            if isinstance(performative, Transfer):
                payloads.append(payload)
        return payloads

    async def quiet(self) -> bool:
        """Whether nothing comes for a while."""
        try:
            await asyncio.wait_for(self._reader.readexactly(1), 0.1)
        except TimeoutError:
            return True
        return False

    async def ended(self) -> bool:
        """Whether the other end closes the connection."""
        async with asyncio.timeout(5):
            return not await self._reader.read()

    async def sasl(self, mechanism: str, response: bytes) -> int:
        """Authenticate; the code of the outcome."""
        self.raw(SASL_HEADER)
        await self.header()
        await self.until(SaslMechanisms)
        self.send(SaslInit(Symbol(mechanism), response))
        return int((await self.until(SaslOutcome)).outcome)

    async def begin(self, *, frame_size: int = 65536, window: int = 1000) -> None:
        """Authenticate, and begin a session."""
        assert await self.sasl("PLAIN", PLAIN) == 0
        self.raw(AMQP_HEADER)
        await self.header()
        self.send(Open(container_id="peer", max_frame_size=Uint(frame_size)))
        self.send(Begin(None, Uint(0), Uint(window), Uint(1000)))
        await self.until(Begin)

    async def attach(self, address: str, *, reads: bool = True) -> None:
        """Attach a link, handle 0."""
        theirs, ours = (0x28, 0x29) if reads else (0x29, 0x28)
        there = Described(Ulong(theirs), [address])
        here = Described(Ulong(ours), ["here"])
        source, target = (there, here) if reads else (here, there)
        count = None if reads else Uint(0)
        self.send(Attach("link", Uint(0), reads, source=source, target=target, initial_delivery_count=count))
        await self.until(Attach)

    def flow(self, *, received: int, window: int, count: int, credit: int) -> None:
        """Tell the window and the credit, with what was received so far."""
        windows = (Uint(received), Uint(window), Uint(0), Uint(1000))
        self.send(Flow(*windows, handle=Uint(0), delivery_count=Uint(count), link_credit=Uint(credit)))


@asynccontextmanager
async def peer(hub: EventHubsEmulator) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection(hub.host, hub.port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


async def test_no_more_is_sent_than_the_window_and_the_credit_allow() -> None:
    """A full session window holds deliveries back though there is credit; credit that is taken back counts at once."""
    async with EventHubsEmulator() as hub, peer(hub) as one:
        await one.begin(window=3)
        await one.attach(READER)
        hub.fill("events", (b"%d" % number for number in range(20)), partition="0")
        one.flow(received=0, window=3, count=0, credit=10)
        await one.transfers(3)
        assert await one.quiet()
        one.flow(received=3, window=100, count=3, credit=2)
        await one.transfers(2)
        assert await one.quiet()
        one.flow(received=5, window=100, count=4, credit=0)  # It knows of four when five are on their way.
        assert await one.quiet()
        one.flow(received=5, window=100, count=5, credit=15)
        await one.transfers(15)


async def test_a_large_message_goes_out_in_frames_as_the_window_opens() -> None:
    """A message of many frames is sent piece by piece, whole and in order, and the next one waits for its end."""
    async with EventHubsEmulator() as hub, peer(hub) as one:
        await one.begin(frame_size=512, window=2)
        await one.attach(READER)
        hub.fill("events", [b"x" * 2000, b"small"], partition="0")
        one.flow(received=0, window=2, count=0, credit=10)
        payloads = await one.transfers(2)
        assert await one.quiet()
        one.flow(received=2, window=100, count=0, credit=10)
        payloads += await one.transfers(4)
        large, small = (event.encoded for event in hub.log.hub("events").partitions[0].events)
        assert b"".join(payloads[:-1]) == large
        assert payloads[-1] == small
        assert max(len(payload) for payload in payloads) <= 512


async def test_a_message_in_many_frames_is_taken_once_it_is_whole() -> None:
    """Parts are joined; an aborted message is forgotten; what cannot be read is rejected and the link lives on."""
    async with EventHubsEmulator() as hub, peer(hub) as one:
        await one.begin()
        await one.attach("events/Partitions/0", reads=False)
        whole = section(Section.DATA, b"z" * 100)
        first = Transfer(Uint(0), Uint(0), b"a", Uint(0), False)
        one.send(Transfer(Uint(0), Uint(9), b"x", Uint(0), False, True), payload=b"to be forgotten")
        one.send(Transfer(Uint(0), aborted=True))
        one.send(Transfer(Uint(0), Uint(0), b"a", Uint(0), False, True), payload=whole[:50])
        one.send(Transfer(Uint(0)), payload=whole[50:])
        assert (await one.until(Flow)).link_credit > 0
        for payload in (b"\xff\xff", whole):
            one.send(first, payload=payload)
        performatives = [(await one.next())[0] for _ in range(3)]
        assert [found.state.descriptor for found in performatives] == [0x24, 0x25, 0x24]
        assert performatives[1].state.value[0].value[0] == "amqp:decode-error"
        assert [event.body for event in hub.log.hub("events").partitions[0].events] == [b"z" * 100] * 2


async def test_wrong_credentials_end_the_connection() -> None:
    """PLAIN with a wrong key and mechanisms that are not offered are told so, and the connection is closed."""
    async with EventHubsEmulator() as hub:
        for mechanism, response in (("PLAIN", b"\0RootManageSharedAccessKey\0x"), ("PLAIN", b""), ("OTHER", b"")):
            async with peer(hub) as one:
                assert await one.sasl(mechanism, response) == 1
                assert await one.ended()


async def test_what_breaks_the_rules_closes_the_connection_with_its_condition() -> None:
    """Impossible sizes, unknown channels and handles, and nonsense each have their own condition."""
    cases: list[tuple[Callable[[Peer], None], str]] = [
        (lambda one: one.raw(b"\xff\xff\xff\xff" + bytes(4)), "amqp:connection:framing-error"),
        (lambda one: one.raw(b"\x00\x00\x00\x0a\x02\x00\x00\x00\xff\xff"), "amqp:decode-error"),
        (lambda one: one.send(Flow(), channel=9), "amqp:not-allowed"),
        (lambda one: one.send(Transfer(Uint(7))), "amqp:session:unattached-handle"),
    ]
    async with EventHubsEmulator() as hub:
        for do, condition in cases:
            async with peer(hub) as one:
                await one.begin()
                do(one)
                assert (await one.until(Close)).error.value[0] == condition
                assert await one.ended()


async def test_a_peer_that_says_nothing_is_closed_and_one_with_heartbeats_is_not() -> None:
    """Twice the idle time-out without a frame, not even an empty one, ends the connection."""
    async with EventHubsEmulator(idle_timeout=0.1) as hub, peer(hub) as silent, peer(hub) as alive:
        await silent.begin()
        await alive.begin()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            alive.raw(b"\x00\x00\x00\x08\x02\x00\x00\x00")
            await asyncio.sleep(0.03)
        assert (await silent.until(Close)).error.value[0] == "amqp:connection:forced"
        alive.send(Close())
        assert (await alive.until(Close)).error is None


async def test_links_end_with_the_token_that_opened_them() -> None:
    """When a token is over and no newer one came, its links are detached for want of authorization."""
    end = int(time.time()) + 1000
    token = generate_sas_token("sb://host/events", KEY_NAME, "SAS_KEY_VALUE", end)
    request = section(
        Section.APPLICATION_PROPERTIES,
        {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": "sb://host/events"},
    ) + section(Section.VALUE, token)
    started = time.time()
    async with EventHubsEmulator(clock=lambda: end - 0.3 + time.time() - started) as hub, peer(hub) as one:
        assert await one.sasl("MSSBCBS", b"") == 0
        one.raw(AMQP_HEADER)
        await one.header()
        one.send(Open(container_id="peer", max_frame_size=Uint(65536)), Begin(None, Uint(0), Uint(100), Uint(100)))
        address, here = Described(Ulong(0x29), ["$cbs"]), Described(Ulong(0x28), ["here"])
        one.send(Attach("in", Uint(1), True, source=Described(Ulong(0x28), ["$cbs"]), target=here))
        one.send(Attach("out", Uint(2), False, source=here, target=address, initial_delivery_count=Uint(0)))
        one.send(Transfer(Uint(2), Uint(0), b"t", Uint(0), True), payload=request)
        await one.attach(READER)
        detach = await one.until(Detach)
        assert (detach.handle, detach.error.value[0]) == (0, "amqp:unauthorized-access")
