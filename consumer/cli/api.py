"""What the commands of the platforms' REST APIs share: a client for one call, and errors told to whoever made it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.spinner import Spinner

from consumer.cli.common import Failed, WrongSettings, config_option, load, run_async
from consumer.cli.console import harmless
from consumer.cli.platform_trouble import Platform, sahha_of, thrive_of
from consumer.clients.sahha import SahhaClient
from consumer.clients.thrive import ThriveClient
from consumer.errors import ApiError, CredentialsRefused
from consumer.ops.logs import configure_logging
from consumer.outcomes import Unavailable
from consumer.platforms import build_sahha, build_thrive
from consumer.settings import Settings

__all__ = ["answer_options", "ask_sahha", "ask_thrive", "limit_option", "refusal", "settings_of", "yes_option"]

C = TypeVar("C")
T = TypeVar("T")

_PATIENCE: Final = 2.0
"""Seconds without a word on a terminal."""
_LONGEST_TEXT: Final = 2000
_MOST_DETAILS: Final = 20


def answer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--json` and `--config`, which every one of these commands has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, every field of it.")(
        config_option(function)
    )


def limit_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--limit`: how much of a list is shown."""
    return click.option(
        "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Show no more than so many."
    )(function)


def yes_option(consequence: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--yes`, without which the command does nothing but say what it would do (exit code 2)."""

    def confirmed(_: click.Context, __: click.Parameter, value: bool) -> bool:
        if not value:
            raise click.UsageError(f"{consequence}: add --yes to do it")
        return value

    return click.option("--yes", is_flag=True, expose_value=False, callback=confirmed, help="Really do it.")


def settings_of(config: Path | None) -> Settings:
    """The settings, with logs set up as they say; unless they ask for more, only errors are logged."""
    loaded = load(config)
    settings = loaded.settings
    asked = loaded.origins["log.level"] != "default"
    configure_logging(level=settings.log.level if asked else "error", form=settings.log.format)
    return settings


def ask_thrive(settings: Settings, call: Callable[[ThriveClient], Coroutine[Any, Any, T]]) -> T:
    """Run `call` with Thrive's client; see `refusal` for what becomes of an `ApiError` it does not catch itself."""
    return run_async(lambda: _ask(thrive_of(settings), build_thrive(settings.thrive), call), uvloop=settings.uvloop)


def ask_sahha(settings: Settings, call: Callable[[SahhaClient], Coroutine[Any, Any, T]]) -> T:
    """Run `call` with Sahha's client; see `refusal` for what becomes of an `ApiError` it does not catch itself."""
    return run_async(lambda: _ask(sahha_of(settings), build_sahha(settings.sahha), call), uvloop=settings.uvloop)


async def _ask(
    platform: Platform, opened: AbstractAsyncContextManager[C], call: Callable[[C], Coroutine[Any, Any, T]]
) -> T:
    try:
        with _waiting(platform.name):
            async with opened as client:
                return await call(client)
    except CredentialsRefused as error:
        raise Failed(f"{refusal(error)}\n{platform.advice}") from None
    except ApiError as error:
        raise Failed(refusal(error)) from None
    except Unavailable as error:
        raise Failed(platform.unreachable(error)) from None
    except ValueError as error:
        if not _ours(error):
            raise
        raise WrongSettings(str(error)) from None


@contextlib.contextmanager
def _waiting(name: str) -> Iterator[None]:
    """On a terminal, say on standard error that the platform is waited for, once that takes long."""
    if not sys.stderr.isatty():
        yield
        return
    # What rich calls a status, but that would put its hands on standard output as well.
    shown = Live(
        Spinner("dots", f"waiting for {name} ..."),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )

    def show() -> None:
        # Where standard error is rich's already, a bar is shown.
        if not isinstance(sys.stderr, FileProxy):
            shown.start()

    timer = asyncio.get_running_loop().call_later(_PATIENCE, show)
    try:
        yield
    finally:
        timer.cancel()
        shown.stop()


def _ours(error: ValueError) -> bool:
    """Whether a client of ours refused an argument: such texts name arguments, others may hold what they are about."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    name = "" if place is None else str(place.tb_frame.f_globals.get("__name__"))
    return type(error) is ValueError and name.startswith("consumer.")


def refusal(error: ApiError) -> str:
    """What went wrong, for whoever made the call: the error's own line, the platform's words below it, indented.

    The words may repeat what was sent; so they are for a terminal, never for a log. They are cut where they get long.
    """
    lines = [harmless(str(error))]
    if error.message:
        lines.append(_words(error.message))
    lines += [
        _words(": ".join(part for part in (one.where, one.code, one.message) if part))
        for one in error.details[:_MOST_DETAILS]
    ]
    left = len(error.details) - _MOST_DETAILS
    if left > 0:
        lines.append(f"  and {left} more")
    return "\n".join(lines)


def _words(text: str) -> str:
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
    return "\n".join(f"  {line}" for line in harmless(cut).splitlines())
