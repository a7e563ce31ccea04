"""The platforms' REST clients, as the settings describe them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consumer.clients.http import HttpOptions
from consumer.clients.sahha import SahhaClient
from consumer.clients.thrive import ThriveClient
from consumer.context import Platforms
from consumer.settings import HttpSettings, SahhaSettings, ThriveSettings

__all__ = ["build_sahha", "build_thrive", "opened_platforms"]


def build_thrive(settings: ThriveSettings) -> ThriveClient:
    """Thrive's client. Without a tenant key its calls raise `NotConfigured`."""
    key = settings.tenant_key
    return ThriveClient(
        base_url=settings.base_url,
        tenant_key=key.get_secret_value() if key is not None else None,
        options=_options(settings.http),
    )


def build_sahha(settings: SahhaSettings) -> SahhaClient:
    """Sahha's client. Without credentials its calls raise `NotConfigured`."""
    return SahhaClient(
        base_url=settings.base_url,
        client_id=settings.client_id,
        client_secret=settings.client_secret.get_secret_value() if settings.client_secret else None,
        app_id=settings.app_id,
        app_secret=settings.app_secret.get_secret_value() if settings.app_secret else None,
        list_style=settings.list_style,
        options=_options(settings.http),
    )


@asynccontextmanager
async def opened_platforms(thrive: ThriveSettings, sahha: SahhaSettings) -> AsyncIterator[Platforms]:
    """Both clients for as long as the context lasts; no connection is made before one is used."""
    async with build_thrive(thrive) as thrive_client, build_sahha(sahha) as sahha_client:
        yield Platforms(thrive=thrive_client, sahha=sahha_client)


def _options(settings: HttpSettings) -> HttpOptions:
    return HttpOptions(
        timeout=settings.timeout,
        connect_timeout=settings.connect_timeout,
        total=settings.total,
        attempts=settings.attempts,
        max_concurrency=settings.max_concurrency,
        max_rps=settings.max_rps,
    )
