"""A small HTTP server whose answers the test writes, and which remembers every request."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

__all__ = ["Scripted", "Seen", "answering", "raw_server", "scripted", "stream_server"]

Answer = Callable[["Seen"], web.StreamResponse | Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; `target` is the path and query as sent."""

    method: str
    target: str
    headers: Any
    body: bytes


@dataclass
class Scripted:
    """Where the server is, and what it was asked."""

    url: str
    requests: list[Seen] = field(default_factory=list)


@contextlib.asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[Scripted]:
    """Serve on a free port of 127.0.0.1 until the context ends; `answer` is called for each request."""
    server = Scripted("")

    async def handle(request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, request.headers.copy(), await request.read())
        server.requests.append(seen)
        answered = answer(seen)
        return answered if isinstance(answered, web.StreamResponse) else await answered

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def answering(*answers: web.Response | Callable[[Seen], web.Response]) -> Answer:
    """The answers in turn; the last one again and again."""
    left = list(answers)

    def answer(seen: Seen) -> web.Response:
        current = left.pop(0) if len(left) > 1 else left[0]
        # A response can be sent once, so each is copied.
        if callable(current):
            return current(seen)
        return web.Response(status=current.status, body=current.body, headers=current.headers.copy())

    return answer


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def stream_server(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that does with each connection what `talk` does, then hangs up; yields its port."""
    talking: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if talking:
            await asyncio.wait(talking, timeout=5)


@contextlib.asynccontextmanager
async def raw_server(data: bytes) -> AsyncIterator[str]:
    """A server that reads a request's head, sends `data` whatever it is, and hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    async with stream_server(talk) as port:
        yield f"http://127.0.0.1:{port}"
