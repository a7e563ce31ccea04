"""AMQP 1.0 sessions as a server sees them: windows, and links that are attached, refused and detached."""

from __future__ import annotations

from tests.emulators.amqp_codec import Uint, Ulong, Ushort
from tests.emulators.amqp_frames import AmqpError, Attach, Begin, Detach, Disposition, Flow, Transfer, frame
from tests.emulators.amqp_links import SERIAL, Incoming, Link, Outgoing, Sink, Wire

__all__ = ["Session"]

_WINDOW = 5_000


class Session:
    """One session of a connection, on the same channel in both directions."""

    def __init__(self, wire: Wire, channel: int, begin: Begin) -> None:
        self.wire = wire
        self.channel = channel
        self.links: dict[int, Link] = {}
        self.closing: set[int] = set()
        """Handles we detached, until the peer detaches them too: what comes on them is ignored."""
        self.remote_window = int(begin.incoming_window)
        self.next_delivery_id = 0
        self._next_outgoing = 0
        self._next_incoming = int(begin.next_outgoing_id)
        self._window = _WINDOW
        self.send(
            Begin(
                remote_channel=Ushort(channel),
                next_outgoing_id=Uint(self._next_outgoing),
                incoming_window=Uint(_WINDOW),
                outgoing_window=Uint(_WINDOW),
                handle_max=Uint(255),
            )
        )

    def send(self, performative: Attach | Begin | Detach | Disposition | Flow) -> None:
        """Send a frame on this session's channel."""
        self.wire.write(frame(performative, channel=self.channel))

    def send_flow(
        self,
        *,
        handle: int | None = None,
        delivery_count: int | None = None,
        link_credit: int | None = None,
        drain: bool = False,
    ) -> None:
        """Tell the peer our windows, and the state of a link."""
        uints = [None if value is None else Uint(value) for value in (handle, delivery_count, link_credit)]
        flow = Flow(
            next_incoming_id=Uint(self._next_incoming),
            incoming_window=Uint(self._window),
            next_outgoing_id=Uint(self._next_outgoing),
            outgoing_window=Uint(_WINDOW),
            handle=uints[0],
            delivery_count=uints[1],
            link_credit=uints[2],
            available=Uint(0) if handle is not None else None,
            drain=drain,
            echo=False,
        )
        self.send(flow)

    def sent(self, frames: int) -> None:
        """Count transfers we send."""
        self._next_outgoing = (self._next_outgoing + frames) & SERIAL
        self.remote_window -= frames

    def attach(self, request: Attach) -> None:
        """Attach a link, or refuse it as the specification says: attach without a terminus, then detach."""
        self.closing.discard(request.handle)
        try:
            endpoint = self.wire.attach(Link(self, request))
        except AmqpError as error:
            self._answer(request, refused=True)
            self.closing.add(request.handle)
            self.send(Detach(Uint(request.handle), True, error.described()))
            return
        if isinstance(endpoint, Sink):
            incoming = self.links[request.handle] = Incoming(self, request, endpoint)
            self._answer(request, max_message_size=endpoint.max_message_size)
            incoming.grant()
        else:
            outgoing = self.links[request.handle] = Outgoing(self, request, endpoint)
            self._answer(request)
            endpoint.start(outgoing)

    def _answer(self, request: Attach, *, refused: bool = False, max_message_size: int | None = None) -> None:
        self.send(
            Attach(
                name=request.name,
                handle=Uint(request.handle),
                role=not request.role,
                snd_settle_mode=request.snd_settle_mode,
                rcv_settle_mode=request.rcv_settle_mode,
                source=None if refused else request.source,
                target=None if refused else request.target,
                initial_delivery_count=Uint(0) if request.role else None,
                max_message_size=Ulong(max_message_size) if max_message_size else None,
                properties=request.properties,
            )
        )

    def detached(self, detach: Detach) -> None:
        """The peer detached a link, or answers our own detach."""
        link = self.links.get(detach.handle)
        if link is not None:
            link.end()
            self.send(Detach(Uint(detach.handle), bool(detach.closed), None))
        self.closing.discard(detach.handle)

    def flow(self, flow: Flow) -> None:
        """The peer's windows, and maybe a link's credit."""
        if flow.next_incoming_id is not None:
            ahead = (self._next_outgoing - flow.next_incoming_id) & SERIAL
            self.remote_window = int(flow.incoming_window) - ahead
        else:
            self.remote_window = int(flow.incoming_window)
        if flow.handle is not None:
            if (link := self.links.get(flow.handle)) is not None:
                link.flow(flow)
        elif flow.echo:
            self.send_flow()
        self.wake()

    def wake(self) -> None:
        """Let every outgoing link send what it can."""
        for link in list(self.links.values()):
            if isinstance(link, Outgoing):
                link.wake()

    def transfer(self, transfer: Transfer, payload: bytes) -> None:
        """A message of the peer, or a part of one."""
        self._next_incoming = (self._next_incoming + 1) & SERIAL
        self._window -= 1
        if self._window < _WINDOW // 2:
            self._window = _WINDOW
            self.send_flow()
        link = self.links.get(transfer.handle)
        if link is not None:
            link.transfer(transfer, payload)
        elif transfer.handle not in self.closing:
            raise AmqpError("amqp:session:unattached-handle", f"No link has the handle {transfer.handle}.")

    def end(self) -> None:
        """Forget all links."""
        for link in list(self.links.values()):
            link.end()
