"""What `consumer check` finds out about the platforms' APIs: whether they answer, and take the credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from consumer.cli.platform_trouble import Platform, sahha_of, thrive_of
from consumer.errors import ApiError, CredentialsRefused, NotFound, SettingsError
from consumer.outcomes import Unavailable
from consumer.platforms import build_sahha, build_thrive
from consumer.settings import HttpSettings, Settings
from consumer.sources.base import Finding

__all__ = ["platform_checks"]

_STREAM: Final = "consumer-check"
"""A stream that nobody has: asking for its queue changes nothing, and needs the tenant key."""
_NO_QUEUE: Final = "queue_not_configured"
_HTTP: Final = HttpSettings(timeout=5.0, connect_timeout=3.0, total=6.0, attempts=1)
_OURS: Final = frozenset({"unreadable_answer", "too_large_answer", "redirect"})
"""Codes of `ApiError` that no platform gave."""


def platform_checks(settings: Settings) -> list[tuple[str, Coroutine[Any, Any, list[Finding]]]]:
    """A part of the check for each platform that credentials are set for; each asks once, within seconds."""
    parts: list[tuple[str, Coroutine[Any, Any, list[Finding]]]] = []
    if settings.thrive.tenant_key is not None:
        parts.append(("thrive API", _thrive(settings)))
    if settings.sahha.client_id is not None or settings.sahha.client_secret is not None:
        parts.append(("sahha API", _sahha(settings)))
    return parts


async def _thrive(settings: Settings) -> list[Finding]:
    async def ask() -> None:
        async with build_thrive(settings.thrive.model_copy(update={"http": _HTTP})) as client:
            try:
                await client.queues.show(_STREAM)
            except CredentialsRefused:
                raise
            except ApiError as error:
                # A reason of Thrive's own says that it has looked at the key. A 404 for another one is for the path.
                absent = isinstance(error, NotFound) and error.code != _NO_QUEUE
                if absent or error.code is None or error.code in _OURS:
                    raise

    return [await _finding(thrive_of(settings), ask)]


async def _sahha(settings: Settings) -> list[Finding]:
    async def ask() -> None:
        async with build_sahha(settings.sahha.model_copy(update={"http": _HTTP})) as client:
            await client.account_token()

    return [await _finding(sahha_of(settings), ask)]


async def _finding(platform: Platform, ask: Callable[[], Awaitable[None]]) -> Finding:
    """What becomes of asking, said. Only wrong credentials fail: events that bring their data need no API."""
    try:
        await ask()
    except SettingsError as error:
        return Finding("credentials", ok=False, detail=str(error))
    except CredentialsRefused as error:
        return Finding("credentials", ok=False, detail=f"{error}: {platform.advice}")
    except ApiError as error:
        detail = f"{error}: no answer of {platform.name}'s; look at {platform.place}, which that path is added to"
        return Finding("answer", ok=False, warning=True, detail=detail)
    except Unavailable as error:
        return Finding("connection", ok=False, warning=True, detail=platform.unreachable(error))
    return Finding("credentials", ok=True, detail=f"accepted at {platform.base_url}")
