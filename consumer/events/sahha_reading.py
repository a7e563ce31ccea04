"""From a verified body of Sahha's, and the event type its header claims, to a typed event.

The header is not signed. That the body has the fields of the type it claims was checked with the signature; a type
nobody knows gets a key without its name, so that one body cannot pass under many names, and a body that has the fields
of a type we know is none of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from consumer.errors import InvalidEvent, Unreadable, VerificationError
from consumer.events.base import Event, UnknownEvent
from consumer.events.reading import is_text, validated
from consumer.events.sahha import ArchetypeEvent, BiomarkerEvent, DataLogEvent, SahhaEvent, ScoreEvent
from consumer.sahha_shapes import type_by_shape
from consumer.signatures import Opened

__all__ = ["SAHHA_CLASSES", "SahhaReader", "event_id_of"]

SAHHA_CLASSES: Final[tuple[type[SahhaEvent], ...]] = (ScoreEvent, BiomarkerEvent, ArchetypeEvent, DataLogEvent)
"""The shipped classes; docs.sahha.ai (connect/webhooks) names no other types."""

_BY_TYPE: Final = {name: cls for cls in SAHHA_CLASSES for name in cls.event_types}
_DERIVED: Final = ("provider", "eventId", "eventType")
"""What an event says of itself besides its body, by the names under which a body would set it."""
_WHOM: Final = ("externalId", "profileId")
"""The texts that stores know members by."""
_LONGEST_TYPE: Final = 200
"""Characters of a type's name that are worth keeping."""


class _Mislabelled(VerificationError):
    """The header names a type that nobody knows, over a body that is of one we know: whoever wrote it, not Sahha."""

    reason = "unknown_event"


class SahhaReader:
    """Reads Sahha's event bodies."""

    def read(self, opened: Opened) -> Event:
        """The typed event in a verified body; an `UnknownEvent` for a type that no class is named for.

        Raises `InvalidEvent` when a field has another type than the class knows; the text names fields and never holds
        a value. Raises `VerificationError` when the header names no type, or one that nobody knows over a body of a
        known type: it reaches no handler, is not acknowledged unseen, and need not come from where Sahha sent it.
        """
        event_type = _event_type(opened)
        if event_type is None:
            raise Unreadable("X-Event-Type: expected a name")
        content = opened.content
        cls = _BY_TYPE.get(event_type, UnknownEvent)
        if cls is UnknownEvent and type_by_shape(content) is not None:
            raise _Mislabelled("the body has the fields of another event type than X-Event-Type claims")
        event_id = event_id_of(cls, content, opened.body)
        if not is_text(event_id):
            raise InvalidEvent("id, createdAtUtc: expected valid Unicode text")
        for name in _WHOM:
            if isinstance(content.get(name), str) and not is_text(content[name]):
                raise InvalidEvent(f"{name}: expected text that is not empty")
        if cls is UnknownEvent:
            return _unknown(event_type, event_id, opened)
        values = {**content, "provider": "sahha", "eventId": event_id, "eventType": event_type}
        # By the body's names only: a body's `external_id` is not its `externalId`.
        return validated(cls, values, {name: content[name] for name in _DERIVED if name in content}, by_name=False)

    def facts(self, opened: Opened) -> tuple[str | None, str | None]:
        """The event id and type of a verified body that cannot be read; raises nothing."""
        event_type = _event_type(opened)
        event_id = event_id_of(_BY_TYPE.get(event_type or "", UnknownEvent), opened.content, opened.body)
        return event_id if is_text(event_id) else None, event_type


def event_id_of(cls: type[Event], content: Mapping[str, Any], body: bytes) -> str:
    """What makes an event unique: the texts of `id` and `createdAtUtc` as they stand, or else a hash of the body.

    Ids are made from what a result is about, so a result that is computed again has the id of the first.
    """
    name = cls.event_types[0] if issubclass(cls, SahhaEvent) else "unknown"
    if name == "unknown" or cls is DataLogEvent:
        return f"sahha:{name}:{sha256(body).hexdigest()}"
    own, created = content.get("id"), content.get("createdAtUtc")
    if isinstance(own, str) and isinstance(created, str) and own and created:
        return f"sahha:{name}:{own}:{created}"
    return f"sahha:{name}:{sha256(body).hexdigest()}"


def _event_type(opened: Opened) -> str | None:
    name = opened.unsigned.get("x-event-type", "")
    return name if name and name.isprintable() and len(name) <= _LONGEST_TYPE else None


def _unknown(event_type: str, event_id: str, opened: Opened) -> Event:
    values = {
        "provider": "sahha",
        "event_id": event_id,
        "event_type": event_type,
        "user_id": opened.content.get("externalId"),
        "occurred_at": opened.signed_at,
    }
    return validated(UnknownEvent, values, opened.content)
