"""AMQP 1.0 links as a server sees them: credit, drain, deliveries in several frames."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tests.emulators.amqp_codec import Described, Uint
from tests.emulators.amqp_frames import (
    ACCEPTED,
    AmqpError,
    Attach,
    Detach,
    Disposition,
    Flow,
    Transfer,
    frame,
    rejected,
    terminus_address,
)

if TYPE_CHECKING:
    from tests.emulators.amqp_session import Session

__all__ = ["SERIAL", "Endpoint", "Feed", "Incoming", "Link", "Outgoing", "Sink", "Wire"]

_CREDIT = 1_000
_AT_ONCE = 256
"""Messages written before other links and connections get their turn."""
SERIAL = 0xFFFFFFFF
"""The counters of AMQP wrap here."""
_SETTLED = 1
_QUICK = struct.Struct(">IBBH 6B BI BI BBI 8B")
"""A transfer that carries a whole message, with all its fields: one pack call for each event delivered."""
_QUICK_LIST = _QUICK.size - 8 - 5
"""Bytes of its list after the size byte."""


class Wire(Protocol):
    """What sessions and links need of their connection."""

    loop: asyncio.AbstractEventLoop
    max_frame_size: int
    """The largest frame the peer takes."""
    paused: bool
    """The peer does not read as fast as is written."""

    def write(self, data: bytes) -> None: ...

    def attach(self, link: Link) -> Endpoint:
        """What is at the other end of this new link. Raises AmqpError to refuse it."""


class Feed(Protocol):
    """Where the messages of an outgoing link come from."""

    def start(self, link: Outgoing) -> None:
        """The link is attached; its `wake` is to be called when there are new messages."""

    def take(self, limit: int) -> Sequence[bytes]:
        """Take up to `limit` encoded messages."""

    def close(self) -> None:
        """The link is gone."""


@runtime_checkable
class Sink(Protocol):
    """Where the messages of an incoming link go."""

    max_message_size: int

    def put(self, message: bytes, message_format: int) -> None:
        """Take one message. Raises AmqpError to reject it."""

    def close(self) -> None:
        """The link is gone."""


Endpoint = Feed | Sink


class Link:
    """One attached link; `closed` from the moment either side detached it."""

    def __init__(self, session: Session, request: Attach) -> None:
        self.session = session
        self.name = str(request.name)
        self.handle = request.handle
        self.request = request
        self.closed = False

    @property
    def address(self) -> str:
        """The address at our end."""
        request = self.request
        return terminus_address(request.source if request.role else request.target)

    @property
    def peer_address(self) -> str:
        """The address at the peer's end: where replies to it go."""
        request = self.request
        return terminus_address(request.target if request.role else request.source)

    def detach(self, error: AmqpError | None = None) -> None:
        """Detach from our side, for good."""
        if self.closed:
            return
        self.end()
        self.session.closing.add(self.handle)
        self.session.send(Detach(Uint(self.handle), True, error.described() if error else None))

    def end(self) -> None:
        """Forget the link; nothing is sent."""
        self.closed = True
        self.session.links.pop(self.handle, None)

    def flow(self, flow: Flow) -> None:
        """The peer says how much it can take."""

    def transfer(self, transfer: Transfer, payload: bytes) -> None:
        """The peer sends on a link that is for receiving only."""
        self.detach(AmqpError("amqp:not-allowed", "This link does not take messages."))


class Incoming(Link):
    """The peer sends on it."""

    def __init__(self, session: Session, request: Attach, sink: Sink) -> None:
        super().__init__(session, request)
        self._sink = sink
        self._count = int(request.initial_delivery_count or 0)
        self._credit = 0
        self._first: Transfer | None = None
        self._parts: list[bytes] = []
        self._size = 0

    def grant(self) -> None:
        """Give the peer credit again once half of it is used."""
        if self._credit > _CREDIT // 2:
            return
        self._credit = _CREDIT
        self.session.send_flow(handle=self.handle, delivery_count=self._count, link_credit=self._credit)

    def flow(self, flow: Flow) -> None:
        if flow.echo:
            self.session.send_flow(handle=self.handle, delivery_count=self._count, link_credit=self._credit)

    def end(self) -> None:
        super().end()
        self._sink.close()

    def transfer(self, transfer: Transfer, payload: bytes) -> None:
        first = self._first = self._first or transfer
        self._parts.append(payload)
        self._size += len(payload)
        limit = self._sink.max_message_size
        if self._size > limit:
            text = f"The received message (delivery-id:{first.delivery_id}, size:{self._size} bytes) exceeds the limit"
            text += f" ({limit} bytes) currently allowed on the link."
            self.detach(AmqpError("amqp:link:message-size-exceeded", text))
            return
        if transfer.more and not transfer.aborted:
            return
        message = b"".join(self._parts)
        self._first, self._parts, self._size = None, [], 0
        self._count = (self._count + 1) & SERIAL
        self._credit -= 1
        if not transfer.aborted:
            self._settle(first, message)
        if not self.closed:
            self.grant()

    def _settle(self, first: Transfer, message: bytes) -> None:
        outcome: Described = ACCEPTED
        try:
            self._sink.put(message, int(first.message_format or 0))
        except AmqpError as error:
            outcome = rejected(error)
        except ValueError:  # MalformedFrame and what it leads to
            outcome = rejected(AmqpError("amqp:decode-error", "The message cannot be read."))
        if not first.settled and not self.closed:
            delivery = Uint(first.delivery_id or 0)
            self.session.send(Disposition(role=True, first=delivery, last=delivery, settled=True, state=outcome))


class Outgoing(Link):
    """The peer receives on it."""

    def __init__(self, session: Session, request: Attach, feed: Feed) -> None:
        super().__init__(session, request)
        self._feed = feed
        self._credit = 0
        self._drain = False
        self._count = 0
        self._settled = request.snd_settle_mode != 0
        self._scheduled = False
        self._parts: deque[bytes] = deque()

    def flow(self, flow: Flow) -> None:
        if flow.link_credit is not None:
            credit = ((flow.delivery_count or 0) + flow.link_credit - self._count) & SERIAL
            # Credit that was taken back while messages were under way wraps around: there is none.
            self._credit = credit if credit <= SERIAL // 2 else 0
        self._drain = bool(flow.drain)
        self._pump()
        if flow.echo:
            self._tell()

    def end(self) -> None:
        super().end()
        self._feed.close()

    def wake(self) -> None:
        """Send what there is, soon."""
        if not self._scheduled:
            self._scheduled = True
            self.session.wire.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._pump()

    def _pump(self) -> None:
        session = self.session
        if self.closed or session.wire.paused or not self._send_parts():
            return
        room = min(self._credit, session.remote_window, _AT_ONCE)
        if room <= 0:
            return
        messages = self._feed.take(room)
        if messages:
            self._send(messages)
        if len(messages) == room:
            self.wake()
        elif self._drain and self._credit and not self.closed:
            self._count = (self._count + self._credit) & SERIAL
            self._credit = 0
            self._tell()

    def _tell(self) -> None:
        self.session.send_flow(
            handle=self.handle, delivery_count=self._count, link_credit=self._credit, drain=self._drain
        )

    def _send(self, messages: Sequence[bytes]) -> None:
        session = self.session
        largest = session.wire.max_frame_size - _QUICK.size
        self._credit -= len(messages)
        self._count = (self._count + len(messages)) & SERIAL
        pieces: list[bytes] = []
        for message in messages:
            delivery, session.next_delivery_id = session.next_delivery_id, (session.next_delivery_id + 1) & SERIAL
            if len(message) <= largest and not self._parts:
                session.sent(1)
                pieces += (self._quick(delivery, len(message)), message)
            else:
                self._split(delivery, message, largest)
        session.wire.write(b"".join(pieces))
        self._send_parts()

    def _quick(self, delivery: int, size: int) -> bytes:
        settled = 0x41 if self._settled else 0x42
        head = (_QUICK.size + size, 2, 0, self.session.channel, 0x00, 0x53, 0x14, 0xC0, _QUICK_LIST, 11)
        ids = (0x70, self.handle, 0x70, delivery, 0xA0, 4, delivery)
        return _QUICK.pack(*head, *ids, 0x43, settled, 0x42, 0x40, 0x40, 0x40, 0x40, 0x40)

    def _split(self, delivery: int, message: bytes, largest: int) -> None:
        for start in range(0, len(message), largest):
            end = start + largest
            transfer = Transfer(
                handle=Uint(self.handle),
                delivery_id=Uint(delivery),
                delivery_tag=delivery.to_bytes(4, "big"),
                message_format=Uint(0),
                settled=self._settled,
                more=end < len(message),
            )
            self._parts.append(frame(transfer, channel=self.session.channel, payload=message[start:end]))

    def _send_parts(self) -> bool:
        """Send the frames of messages that need several, as the window allows; whether all are out."""
        while self._parts and self.session.remote_window > 0:
            self.session.sent(1)
            self.session.wire.write(self._parts.popleft())
        return not self._parts
