"""What `consumer check --for relay` looks at."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from consumer.app import build_source
from consumer.errors import ConsumerError, SettingsError
from consumer.providers import build_sahha_signature
from consumer.relay import relay_source
from consumer.settings import Settings, SourceSettings
from consumer.sources.base import Finding, SendChecking, SendPreparing

__all__ = ["relay_checks"]


def relay_checks(settings: Settings) -> list[tuple[str, Coroutine[Any, Any, list[Finding]]]]:
    """The part of the table that says whether the relay could put webhooks on its queue. Raises SettingsError."""
    chosen = relay_source(settings)
    return [("relay", _verifying(settings, chosen)), (f"source {chosen.name}", _sending(chosen))]


async def _verifying(settings: Settings, chosen: SourceSettings) -> list[Finding]:
    if not settings.relay.verify:
        return [Finding("signatures", ok=True, detail="not verified here: the worker does")]
    try:
        build_sahha_signature(chosen)
    except SettingsError as error:
        return [Finding("signatures", ok=False, detail=str(error))]
    return [Finding("signatures", ok=True, detail=f"verified with {len(chosen.signature.secrets)} secrets")]


async def _sending(chosen: SourceSettings) -> list[Finding]:
    """Whether the queue may be sent to; nothing is sent."""
    source = build_source(chosen, for_sending=True)
    try:
        await source.open()
        found = [Finding("queue", ok=True, detail="reachable")]
        if isinstance(source, SendPreparing):
            await source.prepare_sending()
            found.append(Finding("sending", ok=True, detail="allowed"))
        if isinstance(source, SendChecking):
            found += await source.check_sending()
        return found
    except ConsumerError as error:
        return [Finding("queue", ok=False, detail=str(error))]
    finally:
        await source.close()
