"""What commands that run until they are told to stop have in common: signals and the health server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import structlog

from consumer.errors import SettingsError
from consumer.ops.server import Probe, Rendered, serve_health
from consumer.settings_loading import Loaded

__all__ = ["open_health_server", "stopping_signals"]

_log = structlog.get_logger("service")


async def open_health_server(
    stack: contextlib.AsyncExitStack,
    loaded: Loaded,
    *,
    metrics: Rendered,
    not_live: Probe,
    not_ready: Probe,
    default_port: int | None = None,
) -> None:
    """Open the health server for as long as the stack lasts, unless the settings turn it off.

    `default_port` is taken instead of the settings' own default. A second process on one machine finds the port taken.
    That is an error if somebody chose the port, because somebody will ask there (`SettingsError`); otherwise the work
    matters more.
    """
    chosen = loaded.settings.health
    if not chosen.enabled:
        return
    is_default = loaded.origins.get("health.port") == "default"
    wanted = default_port if default_port is not None and is_default else chosen.port
    try:
        port = await stack.enter_async_context(
            serve_health(host=chosen.host, port=wanted, metrics=metrics, not_live=not_live, not_ready=not_ready)
        )
    except SettingsError as error:
        if not is_default:
            raise
        _log.warning("health_server_off", detail=str(error))
    else:
        _log.info("health_server", host=chosen.host, port=port)


@contextlib.contextmanager
def stopping_signals(stop: Callable[[], None]) -> Iterator[None]:
    """First SIGTERM or SIGINT: `stop` is called in the event loop. Second: exit at once with 128 + its number."""
    loop = asyncio.get_running_loop()
    chosen = (signal.SIGTERM, signal.SIGINT)
    first = True

    def received(number: int, _: FrameType | None) -> None:
        # Not by the loop, which a handler that blocks it would keep from ever hearing of the second signal.
        nonlocal first
        if not first:
            os._exit(128 + number)
        first = False
        loop.call_soon_threadsafe(told, number)

    def told(number: int) -> None:
        _log.info("signal", name=signal.Signals(number).name)
        stop()

    before = [signal.signal(number, received) for number in chosen]
    try:
        yield
    finally:
        for number, handler in zip(chosen, before, strict=True):
            signal.signal(number, handler)
