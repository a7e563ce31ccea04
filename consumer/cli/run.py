"""`consumer run`: the long-lived worker."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click
import structlog

from consumer.app import App
from consumer.cli.common import config_option, handlers_options, load, run_async
from consumer.cli.service import open_health_server, stopping_signals
from consumer.collector import settle_collector
from consumer.durations import parse_duration
from consumer.ops.logs import configure_logging
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

    async def main() -> None:
        async with (
            App.opened(loaded, only=source, reload=reload, poll_wait=_IDLE_POLL_WAIT if until_idle else None) as app,
            contextlib.AsyncExitStack() as stack,
        ):
            await open_health_server(
                stack, loaded, metrics=app.metrics, not_live=app.worker.not_live, not_ready=app.worker.not_ready
            )
            settle_collector()
            with stopping_signals(app.worker.stop):
                names = [intake.source.name for intake in app.worker.intakes]
                _log.info("started", sources=names, database=app.database.dialect)
                try:
                    await app.worker.run(idle_after=idle_after if until_idle else None)
                finally:
                    _log.info("stopped", **app.metrics.totals())
            stuck = app.worker.stuck
        if stuck:
            # The event loop would wait for that handler before it closed, perhaps for ever.
            sys.stderr.flush()
            os._exit(1)

    run_async(main, uvloop=settings.uvloop)
