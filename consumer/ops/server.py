"""The small HTTP server of a worker or relay: /startupz, /livez, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from consumer.errors import SettingsError
from consumer.ops.metrics import CONTENT_TYPE

__all__ = ["Probe", "Probes", "Rendered", "serve_health"]

Probe = Callable[[], "str | None"]
"""Says what is wrong, or None."""


@dataclass(frozen=True, slots=True)
class Probes:
    """What the server is asked for. Each is answered at once: it looks, and waits for nothing."""

    not_started: Probe
    not_live: Probe
    not_ready: Probe


class Rendered(Protocol):
    """Metrics that can be written out."""

    def render(self) -> bytes:
        """In the text format of Prometheus."""


@asynccontextmanager
async def serve_health(*, host: str, port: int, metrics: Rendered, probes: Probes) -> AsyncIterator[int]:
    """Serve while the context lasts; yields the port (useful with `port` 0).

    A probe that returns a text answers 503 with it. Raises `SettingsError` when the address cannot be listened on.
    """
    app = web.Application()
    app.router.add_get("/startupz", _probe(probes.not_started))
    app.router.add_get("/livez", _probe(probes.not_live))
    app.router.add_get("/readyz", _probe(probes.not_ready))

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/metrics", scrape)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(
                f"CONSUMER_HEALTH__PORT: cannot listen on {host} port {port}: {error.strerror}"
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _probe(problem: Probe) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        text = problem()
        return web.Response(status=200 if text is None else 503, text=f"{text or 'ok'}\n")

    return answer
