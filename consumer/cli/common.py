"""What commands share: settings from flags, errors as one line, the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from consumer.errors import ConsumerError, SettingsError
from consumer.failures import describe
from consumer.ops.logs import report_stray, strays_reported
from consumer.settings_loading import Loaded, load_settings

__all__ = ["Failed", "WrongSettings", "config_option", "handlers_options", "load", "queue_option", "run_async"]

T = TypeVar("T")


class Failed(click.ClickException):
    """One line on standard error, exit code 1: it was tried, and failed."""

    exit_code = 1


class WrongSettings(click.ClickException):
    """One line on standard error, exit code 2: wrong usage or settings."""

    exit_code = 2


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--config FILE`."""
    return click.option(
        "--config", type=click.Path(path_type=Path), help="TOML file; default consumer.toml, if it is there."
    )(function)


def queue_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--queue SOURCE`."""
    return click.option(
        "--queue",
        metavar="SOURCE",
        help="Read this source's dead-letter queue (sqs, storage_queue), whatever the store; a look counts a receive.",
    )(function)


def handlers_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--handlers` and `--app-dir`."""
    function = click.option("--app-dir", help="Folder the handlers are imported from; default the current one.")(
        function
    )
    return click.option("--handlers", metavar="MODULE[:ATTRIBUTE]", help="The dispatch table; default handlers:table.")(
        function
    )


def load(config: Path | None, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """The settings, or one line and exit code 2."""
    try:
        return load_settings(config=config, overrides=overrides)
    except SettingsError as error:
        raise WrongSettings(str(error)) from None


def run_async(main: Callable[[], Coroutine[Any, Any, T]], *, uvloop: bool = False) -> T:
    """Run a coroutine; errors become one line and the right exit code.

    Of those this package does not raise on purpose the line says class and place: their texts may hold health data.
    """
    try:
        with strays_reported(), asyncio.Runner(loop_factory=_loop_factory() if uvloop else None) as runner:
            runner.get_loop().set_exception_handler(report_stray)
            return runner.run(main())
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except SettingsError as error:
        raise WrongSettings(str(error)) from None
    except ConsumerError as error:
        raise Failed(str(error)) from None
    except Exception as error:  # noqa: BLE001 - a traceback would hold their texts
        what = describe(error)
        raise Failed(f"internal error, please report it: {what['type']} at {', '.join(what['at'])}") from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        raise SettingsError("CONSUMER_UVLOOP: pip install 'health-event-consumer[uvloop]'") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def on_terminal() -> bool:
    """Whether answers go to a person."""
    return sys.stdout.isatty()
