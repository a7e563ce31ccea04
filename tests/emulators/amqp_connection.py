"""One AMQP 1.0 connection as a server sees it: headers, SASL, frames, heartbeats, sessions."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Any, Protocol

from tests.emulators.amqp_codec import Array, MalformedFrame, Symbol, Ubyte, Uint, Ushort
from tests.emulators.amqp_frames import (
    AMQP_HEADER,
    EMPTY_FRAME,
    SASL_HEADER,
    AmqpError,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Performative,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Transfer,
    frame,
    parse,
)
from tests.emulators.amqp_links import Endpoint, Link
from tests.emulators.amqp_session import Session

__all__ = ["Connection", "Container"]

_MECHANISMS = ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL")
_AUTH_FAILED = 1
_SMALLEST_FRAME = 512
_RESET = struct.pack("ii", 1, 0)


class Container(Protocol):
    """What serves the connections."""

    max_frame_size: int
    idle_timeout: float
    """Seconds without a frame from the peer that we announce; a connection is closed after twice as many."""
    latency: float
    """Seconds that everything is written late."""

    def connected(self, connection: Connection) -> bool:
        """A peer came; whether it is let in."""

    def disconnected(self, connection: Connection) -> None:
        """A peer went; its links are gone."""

    def authenticate(self, connection: Connection, mechanism: str, response: bytes) -> bool:
        """Whether these SASL credentials are good."""

    def attach(self, connection: Connection, link: Link) -> Endpoint:
        """What is at the other end of this new link. Raises AmqpError to refuse it."""


class Connection(asyncio.Protocol):
    """A connection."""

    def __init__(self, container: Container) -> None:
        self.loop = asyncio.get_running_loop()
        self.container = container
        self.max_frame_size = _SMALLEST_FRAME
        self.paused = False
        self.claims: dict[str, float] = {}
        """What the peer may reach, and until when; kept by the container."""
        self.timers: dict[str, asyncio.TimerHandle] = {}
        """Cancelled when the connection ends."""
        self.sessions: dict[int, Session] = {}
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._protocol = b""
        self._late: deque[tuple[float, bytes]] = deque()
        self._peer_idle = 0.0
        self._sent = self._received = self.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self.container.connected(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for timer in self.timers.values():
            timer.cancel()
        for session in list(self.sessions.values()):
            session.end()
        self.sessions.clear()
        self.container.disconnected(self)

    def abort(self) -> None:
        """Break the connection off, with a reset: after a mere end of the stream some clients never close theirs."""
        if self._transport is not None:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    @property
    def links(self) -> list[Link]:
        """All links of all sessions."""
        return [link for session in self.sessions.values() for link in session.links.values()]

    def attach(self, link: Link) -> Endpoint:
        """What is at the other end of a new link."""
        return self.container.attach(self, link)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        for session in list(self.sessions.values()):
            session.wake()

    def write(self, data: bytes) -> None:
        """Write now, or late if a latency is set; the order is kept."""
        if self._transport is None:
            return
        self._sent = self.loop.time()
        if not self.container.latency and not self._late:
            self._transport.write(data)
            return
        self._late.append((self._sent + self.container.latency, data))
        if len(self._late) == 1:
            self.timers["late"] = self.loop.call_at(self._late[0][0], self._write_late)

    def _write_late(self) -> None:
        while self._late and self._late[0][0] <= self.loop.time():
            _, data = self._late.popleft()
            if self._transport is not None:
                self._transport.write(data)
        if self._late:
            self.timers["late"] = self.loop.call_at(self._late[0][0], self._write_late)

    def data_received(self, data: bytes) -> None:
        self._received = self.loop.time()
        self._buffer += data
        try:
            self._read()
        except AmqpError as error:
            self.close(error)
        except MalformedFrame as error:
            self.close(AmqpError("amqp:decode-error", str(error)))

    def _read(self) -> None:
        at = 0
        while len(self._buffer) - at >= 8 and self._transport is not None and not self._transport.is_closing():
            size = 8
            if self._buffer[at : at + 4] == b"AMQP":
                self._header(bytes(self._buffer[at : at + 8]))
            else:
                size = int.from_bytes(self._buffer[at : at + 4], "big")
                if not 8 <= size <= self.container.max_frame_size or not self._protocol:
                    raise AmqpError("amqp:connection:framing-error", "A frame of an impossible size.")
                if len(self._buffer) - at < size:
                    break
                self._frame(bytes(self._buffer[at : at + size]))
            at += size
        del self._buffer[:at]

    def _header(self, header: bytes) -> None:
        if header not in {AMQP_HEADER, SASL_HEADER}:
            self.write(SASL_HEADER)
            self._finish()
            return
        self._protocol = header
        self.write(header)
        if header == SASL_HEADER:
            self.write(frame(SaslMechanisms(Array(Symbol(name) for name in _MECHANISMS))))

    def _frame(self, data: bytes) -> None:
        channel, performative, payload = parse(data)
        if performative is None:
            return
        if self._protocol == SASL_HEADER:
            self._sasl(performative)
        elif isinstance(performative, Open):
            self._open(performative)
        elif isinstance(performative, Close):
            self.write(frame(Close()))
            self._finish()
        elif isinstance(performative, Begin):
            self.sessions[channel] = Session(self, channel, performative)
        else:
            self._in_session(channel, performative, payload)

    def _sasl(self, init: Any) -> None:
        if not isinstance(init, SaslInit):
            raise AmqpError("amqp:not-allowed", "Only sasl-init is expected here.")
        good = str(init.mechanism) in _MECHANISMS and self.container.authenticate(
            self, str(init.mechanism), init.initial_response or b""
        )
        self.write(frame(SaslOutcome(Ubyte(0 if good else _AUTH_FAILED))))
        if not good:
            self._finish()

    def _open(self, request: Open) -> None:
        self.max_frame_size = max(_SMALLEST_FRAME, min(int(request.max_frame_size or 1 << 32), 1 << 20))
        self._peer_idle = float(request.idle_timeout or 0) / 1000
        answer = Open(
            container_id="event-hubs-emulator",
            hostname=request.hostname,
            max_frame_size=Uint(self.container.max_frame_size),
            channel_max=Ushort(4999),
            idle_timeout=Uint(round(self.container.idle_timeout * 1000)),
            properties={},
        )
        self.write(frame(answer))
        self._watch()

    def _watch(self) -> None:
        """Send an empty frame in time, and close when nothing came for too long."""
        now = self.loop.time()
        if now - self._received > 2 * self.container.idle_timeout:
            self.close(AmqpError("amqp:connection:forced", "The connection was inactive for too long."))
            return
        half = self._peer_idle / 2
        if half and now - self._sent >= half * 0.9:
            self.write(EMPTY_FRAME)
        period = min(self.container.idle_timeout / 2, half or self.container.idle_timeout)
        self.timers["watch"] = self.loop.call_later(period, self._watch)

    def _in_session(self, channel: int, performative: Performative, payload: bytes) -> None:
        session = self.sessions.get(channel)
        if session is None:
            raise AmqpError("amqp:not-allowed", f"Channel {channel} has no session.")
        match performative:
            case Transfer():
                session.transfer(performative, payload)
            case Flow():
                session.flow(performative)
            case Attach():
                session.attach(performative)
            case Detach():
                session.detached(performative)
            case Disposition():
                pass  # Event hubs keep events whatever their readers think of them.
            case End():
                session.end()
                del self.sessions[channel]
                self.write(frame(End(), channel=channel))
            case _:
                raise AmqpError("amqp:not-allowed", "This frame is not expected here.")

    def close(self, error: AmqpError | None = None) -> None:
        """Close in the protocol's way, with the reason."""
        self.write(frame(Close(error.described() if error else None)))
        self._finish()

    def _finish(self) -> None:
        """Let what was written go out, then close."""
        if self._transport is None:
            return
        if self._late:
            self.timers["finish"] = self.loop.call_at(self._late[-1][0] + 0.001, self._transport.close)
        else:
            self._transport.close()
