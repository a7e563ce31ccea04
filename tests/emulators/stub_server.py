"""The part that is the same in every HTTP emulator: connections, faults, the control path, running as a program."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

from tests.emulators.faults import Fault, Faults

__all__ = ["Clock", "Connection", "StubServer", "header"]

_REASONS = {
    200: b"OK",
    201: b"Created",
    204: b"No Content",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    413: b"Too Large",
    500: b"Error",
    503: b"Unavailable",
}
_LENGTH = b"\r\ncontent-length: "

F = TypeVar("F", bound=Fault)


class Clock:
    """A clock that a test moves by hand; starts at the real time. Long polls still wait in real time."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class StubServer(ABC, Generic[F]):
    """A server on loopback; an async context manager.

    `latency` is added to every answer, in seconds. Over HTTP it is steered so:

        POST   /_stub/faults   {"kind": "reset", "action": "...", "count": 3}
        DELETE /_stub/faults
        POST   /_stub/queues   {"name": "labs", "attributes": {...}}
        POST   /_stub/fill     {"queue": "labs", "count": 1000, "template": "message {n}"}
        POST   /_stub/fill     {"queue": "labs", "bodies": ["one", "two"]}
        GET    /_stub/stats
    """

    content_type: ClassVar[bytes]

    def __init__(
        self,
        *,
        faults: type[F],
        port: int = 0,
        clock: Callable[[], float] = time.time,
        latency: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.clock = clock
        self.latency = latency
        self.faults = Faults(faults, seed)
        self.calls: Counter[str] = Counter()
        self.requests: deque[tuple[str, dict[str, Any]]] = deque(maxlen=100)
        """The latest requests: the action in lower case, and its parameters."""
        self.base_url = ""
        self.connections: set[Connection] = set()
        self._port = port
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self._server = await self.loop.create_server(lambda: Connection(self), "127.0.0.1", self._port)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in list(self.connections):
            connection.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where it is reached."""
        return self.base_url

    @abstractmethod
    def create_queue(self, name: str, **attributes: str) -> str:
        """Make a queue and return what clients call it."""

    @abstractmethod
    def fill(self, name: str, bodies: Iterable[str], **options: Any) -> int:
        """Put messages on a queue at once; returns how many."""

    @abstractmethod
    def described(self) -> dict[str, dict[str, int]]:
        """What each queue holds."""

    @abstractmethod
    def dispatch(self, connection: Connection, head: bytes, body: bytes) -> None:
        """Answer one request, now or later."""

    def fault(self, kind: str, **options: Any) -> F:
        """Put a fault in force; see `Fault`."""
        return self.faults.add(kind, **options)

    def disturb(self, connection: Connection, action: str) -> list[F] | None:
        """Break what faults break for this request; None: it gets no answer."""
        faults = self.faults.draw(action)
        kinds = {fault.kind for fault in faults}
        connection.delay = self.latency
        if not kinds:
            return faults
        if "hang" in kinds:
            return None
        if "reset" in kinds:
            connection.abort()
            return None
        connection.breaks = "reset_after" in kinds
        connection.cuts = "cut" in kinds
        for fault in faults:
            if fault.kind == "latency":
                connection.delay = fault.seconds
        return faults

    def control(self, connection: Connection, head: bytes, body: bytes) -> bool:
        """Serve the control path; False: the request is not for it."""
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if not path.startswith("/_stub/"):
            return False
        try:
            answer = self._controlled(method, path.removeprefix("/_stub/"), json.loads(body or b"{}"))
        except (ValueError, KeyError, TypeError) as error:
            connection.answer(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode(), 400)
        else:
            connection.answer(json.dumps(answer).encode())
        return True

    def _controlled(self, method: str, what: str, payload: dict[str, Any]) -> dict[str, Any]:
        match method, what:
            case "DELETE", "faults":
                self.faults.clear()
            case "POST", "faults":
                self.fault(**payload)
            case "POST", "queues":
                return {"url": self.create_queue(payload["name"], **payload.get("attributes", {}))}
            case "POST", "fill":
                options = {name: value for name, value in payload.items() if name == "groups"}
                return {"filled": self.fill(payload["queue"], _bodies(payload), **options)}
            case "GET", "stats":
                return {"calls": dict(self.calls), "queues": self.described()}
            case _:
                raise ValueError(f"{method} {what}")
        return {"faults": len(self.faults.active)}

    @classmethod
    def main(cls) -> None:
        """Run it until SIGTERM or SIGINT; its URL is the one line it prints."""
        parser = argparse.ArgumentParser(description=(cls.__doc__ or "").splitlines()[0])
        parser.add_argument("--port", type=int, default=0, help="0: a free one")
        parser.add_argument("--latency", type=float, default=0.0, help="seconds added to every answer")
        options = parser.parse_args()
        asyncio.run(cls._serve(port=options.port, latency=options.latency))

    @classmethod
    async def _serve(cls, **options: Any) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with cls(**options) as stub:
            sys.stdout.write(f"{stub.url}\n")
            sys.stdout.flush()
            await stop.wait()


def _bodies(payload: Mapping[str, Any]) -> Iterator[str]:
    if "bodies" in payload:
        yield from payload["bodies"]
        return
    # Not str.format: a template is JSON, full of braces of its own.
    before, mark, after = str(payload["template"]).partition("{n}")
    for number in range(int(payload["count"])):
        yield f"{before}{number}{after}" if mark else before


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive: one request after the other, each with a Content-Length."""

    def __init__(self, server: StubServer[Any]) -> None:
        self._server = server
        self._buffer = bytearray()
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self.delay = 0.0
        self.breaks = False
        self.cuts = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # what create_server gives a stream protocol
        self._transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connections.discard(self)

    def abort(self) -> None:
        """Break the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        length = int(header(head.lower(), _LENGTH) or 0)
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self._busy = True
        self.breaks = self.cuts = False
        self.delay = 0.0
        self._server.dispatch(self, head, body)

    def answer(self, body: bytes, status: int = 200, extra: bytes = b"") -> None:
        """Answer, late if a latency is set."""
        if self.cuts:
            body = body[: len(body) // 2] or body[:1]
        head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n"
        # A reply without content says so by its status, and has no length.
        data = (
            b"HTTP/1.1 204 No Content\r\n%s\r\n" % extra
            if status == 204
            else head % (status, _REASONS.get(status, b"Error"), self._server.content_type, extra, len(body)) + body
        )
        if self.delay:
            self._server.loop.call_later(self.delay, self._write, data)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self.breaks:
            self.abort()
            return
        self._transport.write(data)
        self._busy = False
        if self._buffer:
            self._next()


def header(head: bytes, name: bytes) -> bytes | None:
    """The value of a header; `name` with the line break before it and the colon and space after it."""
    start = head.find(name)
    if start < 0:
        return None
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start:] if end < 0 else head[start:end]
