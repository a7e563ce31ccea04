"""The relay's HTTP side: aiohttp's low-level server, with bounds on what a connection may cost.

No router, no access log, no decompression: every POST is a webhook, and its exact bytes are what is signed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from consumer.errors import SettingsError
from consumer.failures import describe
from consumer.relay.webhook import Refused

__all__ = ["HttpServer", "answer", "read_body"]

_log = structlog.get_logger("relay")

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_KEEP_ALIVE: Final = 3600.0
"""Longer than any ingress keeps an idle connection (Envoy: an hour): who closes first may lose a request under way."""
_HEAD_WITHIN: Final = 10.0
"""Seconds from a request's first byte to the end of its headers."""
_LINGER: Final = 2.0
"""Seconds that a body which nobody wants is read, so that its sender sees the answer and no reset."""
_MOST_HEADERS: Final = 64
"""What ingresses add stays below it; each may have 8 KiB, and every connection so many of them in memory."""
_SWEEP: Final = 2.0
_BACKLOG: Final = 1024
_SERVER: Final = {"Server": "health-event-consumer"}
_SERVER_FAULT: Final = 500
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def answer(status: int, text: str = "", *, close: bool = False, **headers: str) -> web.Response:
    """A plain answer; `headers` with _ for -."""
    response = web.Response(status=status, text=text, headers=_SERVER)
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    if close:
        response.force_close()
    return response


async def read_body(request: web.BaseRequest, length: int | None, limit: int, within: float) -> bytes:
    """A request's body, exactly as it was sent; `length` is what its headers say, None for chunks.

    Raises `Refused`: 413 once it is longer than `limit` bytes, 408 if it takes more than `within` seconds, 400 if it
    is broken, cut off or empty.
    """
    content = request.content
    try:
        if content.is_eof():  # it came with its headers, as small ones do
            body = content.read_nowait()
        else:
            async with asyncio.timeout(within):
                body = await _read_on(request, limit)
    except TimeoutError:
        raise Refused(408, "The body took too long.") from None
    except Refused:
        raise
    except Exception:  # noqa: BLE001 - aiohttp raises what it likes for a connection lost or a malformed chunk
        raise Refused(400, "The body cannot be read.") from None
    if len(body) > limit:
        raise Refused(413, "The body is too large.")
    if not body or (length is not None and len(body) != length):
        raise Refused(400, "The body is not all there.")
    return body


async def _read_on(request: web.BaseRequest, limit: int) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # as aiohttp itself does: this was no part of the answer
    parts = []
    size = 0
    while part := await request.content.readany():
        size += len(part)
        if size > limit:
            raise Refused(413, "The body is too large.")
        parts.append(part)
    return b"".join(parts)


class _Connection(web.RequestHandler):
    """One connection, which knows since when it waits for the rest of a request's headers."""

    __slots__ = ("_body", "_on_error", "busy", "head_since")

    def __init__(self, manager: web.Server, *, on_error: Callable[[int], None], **options: Any) -> None:
        super().__init__(manager, **options)
        self._on_error = on_error
        self._body: StreamReader | None = None
        self.head_since: float | None = None
        self.busy = False
        """Whether a request of it is in hand."""

    def begin(self, body: StreamReader) -> None:
        """A request's headers are there."""
        self._body, self.busy, self.head_since = body, True, None

    def data_received(self, data: bytes) -> None:
        # A body may come after an answer that did not wait for it, and aiohttp itself calls this with nothing.
        body_done = self._body is None or self._body.is_eof()
        if data and self.head_since is None and not self.busy and body_done:
            self.head_since = time.monotonic()
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - as below
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature; it quotes what was sent
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or a failure of ours: aiohttp would quote the request, to its sender and in a log."""
        malformed = status < _SERVER_FAULT
        if not malformed and exc is not None:
            _log.error("webhook_failed", error=describe(exc))
        response = answer(400, "Malformed.", close=True) if malformed else answer(503, "This failed.", close=True)
        self._on_error(response.status)
        return response


class _Server(web.Server):
    """Makes connections, at most so many: beyond, the one that has been there longest doing nothing has to go."""

    def __init__(self, handler: Answer, *, most: int, on_error: Callable[[int], None]) -> None:
        super().__init__(handler, request_factory=self._begin)
        self._most = most
        self._on_error = on_error
        self._running = asyncio.get_running_loop()

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            on_error=self._on_error,
            loop=self._running,
            keepalive_timeout=_KEEP_ALIVE,
            lingering_time=_LINGER,
            auto_decompress=False,
            max_headers=_MOST_HEADERS,
            access_log=None,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection, or drop one."""
        connections = self.connections
        if len(connections) >= self._most:
            idle = next((one for one in connections if _is_idle(one)), None)
            if idle is not None:
                idle.force_close()
            else:
                self._running.call_soon(transport.abort)  # once aiohttp has begun with it, which it cannot undo
        super().connection_made(handler, transport)

    def _begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if isinstance(protocol, _Connection):
            protocol.begin(payload)
        return web.BaseRequest(message, payload, protocol, writer, task, self._running)

    def sweep(self) -> None:
        """Close connections that take too long over their headers."""
        late = time.monotonic() - _HEAD_WITHIN
        for one in self.connections:
            if isinstance(one, _Connection) and one.head_since is not None and one.head_since < late:
                one.force_close()


def _is_idle(connection: web.RequestHandler) -> bool:
    if not isinstance(connection, _Connection) or connection.transport is None:
        return False
    return not connection.busy and connection.head_since is None


class HttpServer:
    """Listens, answers by `handler`, and stops in two steps: no more connections, then no more at all.

    At most `most` connections are held; `on_error` is told the status of every answer that `handler` did not make.
    """

    def __init__(self, handler: Answer, *, host: str, port: int, most: int, on_error: Callable[[int], None]) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._server = _Server(self._answer, most=most, on_error=on_error)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_LINGER)
        self._site: web.TCPSite | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; the port. Raises SettingsError if that cannot be."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                f"CONSUMER_RELAY__PORT: cannot listen on {self._host} port {self._port}: {error.strerror}"
            ) from None
        self._site = site
        self._sweeping = asyncio.create_task(self._sweep())
        return int(self._runner.addresses[0][1])

    async def refuse_connections(self) -> None:
        """Accept no further connection; those that are there go on."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def close(self) -> None:
        """End every connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._handler(request)
        finally:
            if isinstance(request.protocol, _Connection):
                request.protocol.busy = False

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self._server.sweep()
