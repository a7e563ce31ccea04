"""What is different from platform to platform: how messages are signed, and how their events are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from consumer.dispatch import DispatchTable
from consumer.errors import SettingsError
from consumer.events import Event, SahhaEvent, ThriveEvent
from consumer.events.reading import EVENT_CLASSES, ThriveReader
from consumer.events.sahha_reading import SAHHA_CLASSES, SahhaReader
from consumer.guard import Guard
from consumer.route import EventReader, Route, Signature
from consumer.settings import SahhaSignatureSettings, Settings, SourceSettings, ThriveSignatureSettings
from consumer.signatures import SahhaSignature, ThriveSignature

__all__ = [
    "SHIPPED_CLASSES",
    "build_readers",
    "build_route",
    "build_sahha_signature",
    "build_signature",
    "build_thrive_signature",
]

SHIPPED_CLASSES: Final[tuple[type[Event], ...]] = (*EVENT_CLASSES.values(), *SAHHA_CLASSES)
"""Every event class of this package but `UnknownEvent`."""


def build_signature(settings: SourceSettings) -> Signature:
    """The signature scheme of a source. Raises `SettingsError` when it has no secret."""
    return build_sahha_signature(settings) if settings.provider == "sahha" else build_thrive_signature(settings)


def build_thrive_signature(settings: SourceSettings) -> ThriveSignature:
    """The scheme of a source of Thrive's. Raises `SettingsError` when it has no secret, or is another provider's."""
    scheme = settings.signature
    if not isinstance(scheme, ThriveSignatureSettings):
        raise _other_provider(settings, "thrive")
    if not scheme.secrets:
        raise _no_secrets(settings)
    return ThriveSignature(
        secrets=[secret.get_secret_value() for secret in scheme.secrets],
        secret_encoding=scheme.secret_encoding,
        template=scheme.template,
        algorithm=scheme.algorithm,
        encoding=scheme.encoding,
        prefix=scheme.prefix,
        fields={name: where for name, where in scheme.fields.model_dump().items() if where is not None},
        max_age=scheme.max_age,
        max_future_skew=scheme.max_future_skew if scheme.max_age is not None else None,
    )


def build_sahha_signature(settings: SourceSettings) -> SahhaSignature:
    """The scheme of a source of Sahha's. Raises `SettingsError` when it has no secret, or is another provider's."""
    scheme = settings.signature
    if not isinstance(scheme, SahhaSignatureSettings):
        raise _other_provider(settings, "sahha")
    if not scheme.secrets:
        raise _no_secrets(settings)
    return SahhaSignature(
        secrets=[secret.get_secret_value() for secret in scheme.secrets],
        encoding=scheme.encoding,
        max_age=scheme.max_age,
    )


def _other_provider(settings: SourceSettings, expected: str) -> SettingsError:
    return SettingsError(f"CONSUMER_SOURCES__{settings.name.upper()}__PROVIDER: expected {expected} here")


def _no_secrets(settings: SourceSettings) -> SettingsError:
    return SettingsError(
        f"CONSUMER_{settings.provider.upper()}__SIGNATURE__SECRETS is not set (nor _FILE): "
        f"source {settings.name} cannot tell who sent its messages"
    )


def build_readers(settings: Settings, table: DispatchTable) -> Mapping[str, EventReader]:
    """The readers of events, by provider, knowing the classes the table uses.

    Raises `SettingsError` for a tie, and for a class of Sahha's that is not a shipped one: its type would stand in an
    unsigned header only, with nothing to check it by.
    """
    classes = sorted(table.event_types, key=lambda cls: cls.__qualname__)
    odd = next((cls for cls in classes if issubclass(cls, SahhaEvent) and cls not in SAHHA_CLASSES), None)
    if odd is not None:
        names = ", ".join(cls.__name__ for cls in SAHHA_CLASSES)
        raise SettingsError(f"CONSUMER_HANDLERS: no event of Sahha's is a {odd.__name__}: expected one of {names}")
    return {
        "thrive": ThriveReader(
            event_types=settings.thrive.event_types.model_dump(),
            fields=settings.thrive.fields.model_dump(),
            classes=[cls for cls in classes if issubclass(cls, ThriveEvent)],
        ),
        "sahha": SahhaReader(),
    }


def build_route(
    source: SourceSettings, settings: Settings, table: DispatchTable, readers: Mapping[str, EventReader]
) -> Route:
    """How a source's messages are opened and handled. Raises `SettingsError` when it has no secret."""
    return Route(
        source=source.name,
        provider=source.provider,
        namespace=source.namespace or "",
        signature=build_signature(source),
        reader=readers[source.provider],
        table=table,
        guard=Guard(),
        unknown_events=settings.unknown_events,
        max_attempts=source.max_attempts,
        handler_timeout=source.handler_timeout,
        max_message_bytes=source.max_message_bytes,
        lane_by_member=source.order_by == "member",
    )
