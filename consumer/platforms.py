"""The platforms' REST clients, as the settings describe them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from consumer.clients.http import HttpOptions
from consumer.clients.sahha import SahhaClient
from consumer.clients.thrive import ThriveClient
from consumer.context import Platforms
from consumer.settings import HttpSettings, SahhaSettings, ThriveSettings

__all__ = ["Observe", "build_sahha", "build_thrive", "opened_platforms"]


Observe = Callable[[str, int | None, float], None]
"""Told of a request to a platform: method and template, status or None, seconds."""


def build_thrive(settings: ThriveSettings, observe: Observe | None = None) -> ThriveClient:
    """Thrive's client. Without a tenant key its calls raise `NotConfigured`. `observe` is told of every request."""
    key = settings.tenant_key
    return ThriveClient(
        base_url=settings.base_url,
        tenant_key=key.get_secret_value() if key is not None else None,
        options=_options(settings.http, observe),
    )


def build_sahha(settings: SahhaSettings, observe: Observe | None = None) -> SahhaClient:
    """Sahha's client. Without credentials its calls raise `NotConfigured`. `observe` is told of every request."""
    return SahhaClient(
        base_url=settings.base_url,
        client_id=settings.client_id,
        client_secret=settings.client_secret.get_secret_value() if settings.client_secret else None,
        app_id=settings.app_id,
        app_secret=settings.app_secret.get_secret_value() if settings.app_secret else None,
        list_style=settings.list_style,
        options=_options(settings.http, observe),
    )


@asynccontextmanager
async def opened_platforms(
    thrive: ThriveSettings, sahha: SahhaSettings, observed: Callable[[str], Observe] | None = None
) -> AsyncIterator[Platforms]:
    """Both clients for as long as the context lasts; no connection is made before one is used.

    `observed` gives, by a platform's name, what is to be told of its requests.
    """
    told = [observed(name) if observed is not None else None for name in ("thrive", "sahha")]
    async with build_thrive(thrive, told[0]) as thrive_client, build_sahha(sahha, told[1]) as sahha_client:
        yield Platforms(thrive=thrive_client, sahha=sahha_client)


def _options(settings: HttpSettings, observe: Observe | None = None) -> HttpOptions:
    return HttpOptions(
        timeout=settings.timeout,
        connect_timeout=settings.connect_timeout,
        total=settings.total,
        attempts=settings.attempts,
        max_concurrency=settings.max_concurrency,
        max_rps=settings.max_rps,
        observe=observe,
    )
