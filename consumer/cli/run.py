"""`consumer run`: the long-lived worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
import structlog

from consumer.app import App, load_table
from consumer.cli.common import config_option, handlers_options, load, run_async
from consumer.cli.service import open_control, open_health_server, stopping_signals
from consumer.collector import settle_collector
from consumer.durations import parse_duration
from consumer.ops.logs import configure_logging
from consumer.ops.metrics import Metrics
from consumer.ops.startup import StartUp
from consumer.ops.tracing_sdk import exported_spans
from consumer.settings_loading import Loaded, load_settings

__all__ = ["command"]

_log = structlog.get_logger("worker")

_IDLE_POLL_WAIT = 1.0


def _duration(_: click.Context, __: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    name="run", epilog="Example: consumer run --source labs. Stop it with Ctrl-C: it finishes what it has in hand."
)
@config_option
@handlers_options
@click.option("--source", help="Only this source; default all that are configured.")
@click.option("--until-idle", is_flag=True, help="Exit 0 once every source has been empty for --idle-after.")
@click.option("--idle-after", default="2s", callback=_duration, show_default=True, help="See --until-idle.")
def command(
    *,
    config: Path | None,
    handlers: str | None,
    app_dir: str | None,
    source: str | None,
    until_idle: bool,
    idle_after: float,
) -> None:
    """Consume the configured sources until SIGTERM or Ctrl-C, then finish what is in hand and exit 0.

    A second signal exits at once. The handlers are imported from the current folder (--app-dir).
    """
    overrides = {"handlers": handlers, "app_dir": app_dir}
    loaded = load(config, overrides)
    settings = loaded.settings
    configure_logging(level=settings.log.level, form=settings.log.format)

    def reload() -> Loaded:
        return load_settings(config=config, overrides=overrides)

    async def serve(start_up: StartUp) -> None:
        metrics = Metrics()
        poll_wait = _IDLE_POLL_WAIT if until_idle else None
        async with contextlib.AsyncExitStack() as stack:
            # Before anything that may take long: who asks whether it has started is told what it waits for.
            await open_health_server(stack, loaded, metrics=metrics, probes=start_up.probes)
            # Then this, since the module may set up an SDK for spans of its own.
            table = load_table(settings.handlers, settings.app_dir)
            await stack.enter_async_context(exported_spans())
            app = await stack.enter_async_context(
                App.opened(
                    loaded,
                    only=source,
                    table=table,
                    reload=reload,
                    poll_wait=poll_wait,
                    metrics=metrics,
                    doing=start_up.doing,
                )
            )
            await open_control(stack, loaded, app.worker)
            settle_collector()
            start_up.done(app.worker)
            names = [intake.source.name for intake in app.worker.intakes]
            _log.info("started", sources=names, database=app.database.dialect)
            try:
                await app.worker.run(idle_after=idle_after if until_idle else None)
            finally:
                _log.info("stopped", **metrics.totals())

    async def main() -> None:
        start_up = StartUp()
        stopping = _Stopping(start_up)
        with stopping_signals(stopping.stop):
            await stopping.while_starting(serve(start_up))
        if start_up.worker is not None and start_up.worker.stuck:
            # The event loop would wait for that handler before it closed, perhaps for ever.
            sys.stderr.flush()
            os._exit(1)

    run_async(main, uvloop=settings.uvloop)


class _Stopping:
    """A signal stops the worker; before there is one, it ends the start."""

    def __init__(self, start_up: StartUp) -> None:
        self._start_up = start_up
        self._serving: asyncio.Task[None] | None = None
        self._given_up = False

    def stop(self) -> None:
        if self._start_up.worker is not None:
            self._start_up.worker.stop()
        elif self._serving is not None:
            self._given_up = True
            self._serving.cancel()

    async def while_starting(self, serve: Coroutine[Any, Any, None]) -> None:
        """Run it; a start that was given up has ended well."""
        self._serving = asyncio.create_task(serve)
        try:
            await self._serving
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            _log.info("stopped_while_starting")
