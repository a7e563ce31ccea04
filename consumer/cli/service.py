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
from consumer.operating import Operator
from consumer.ops.control import serve_control
from consumer.ops.control_folder import ControlError, default_folder
from consumer.ops.server import Probes, Rendered, serve_health
from consumer.settings_loading import Loaded
from consumer.worker import Worker

__all__ = ["open_control", "open_health_server", "stopping_signals"]

_log = structlog.get_logger("service")


async def open_health_server(
    stack: contextlib.AsyncExitStack,
    loaded: Loaded,
    *,
    metrics: Rendered,
    probes: Probes,
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
            serve_health(host=chosen.host, port=wanted, metrics=metrics, probes=probes)
        )
    except SettingsError as error:
        if not is_default:
            raise
        _log.warning("health_server_off", detail=str(error))
    else:
        _log.info("health_server", host=chosen.host, port=port)


async def open_control(stack: contextlib.AsyncExitStack, loaded: Loaded, worker: Worker) -> None:
    """Open the worker's control socket for as long as the stack lasts, unless the settings turn it off.

    Where it cannot be opened the events come first, unless somebody chose its folder (`SettingsError`).
    """
    chosen = loaded.settings.control
    if not chosen.enabled:
        return
    try:
        folder = chosen.path or default_folder()
        path = await stack.enter_async_context(serve_control(folder, Operator(worker).execute))
    except ControlError as error:
        if chosen.path is not None:
            raise SettingsError(f"CONSUMER_CONTROL__PATH: {error}") from None
        _log.warning("control_socket_off", detail=str(error))
    else:
        _log.info("control_socket", path=str(path))


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
