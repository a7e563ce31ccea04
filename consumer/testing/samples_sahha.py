"""Sample events and bodies of Sahha's: what `sample` and `sample_body` make for its classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, TypeVar

from consumer.events.base import Event
from consumer.events.sahha import ArchetypeEvent, BiomarkerEvent, DataLogEvent, SahhaEvent, ScoreEvent
from consumer.events.sahha_reading import event_id_of
from consumer.testing import synthetic_sahha

__all__ = ["sahha_body", "sahha_sample"]

S = TypeVar("S", bound=SahhaEvent)


def sahha_sample(event_class: type[S], changes: Mapping[str, Any]) -> S:
    """An event of one of Sahha's classes, as its reader would make it of a body with these changes.

    `user_id` and `external_id` are one thing, and so are `occurred_at` and `createdAtUtc` (`receivedAtUtc`): changing
    either changes both. `event_id` follows from the body unless it is given.
    """
    changes = dict(changes)
    created = "received_at_utc" if issubclass(event_class, DataLogEvent) else "created_at_utc"
    for other, own in (("user_id", "external_id"), ("occurred_at", created), ("value", "raw_value")):
        if other in changes and own in event_class.model_fields:
            changes.setdefault(own, changes.pop(other))
    event_id = changes.pop("event_id", None)
    names = {name: field.alias or name for name, field in event_class.model_fields.items()}
    body = _body(event_class, Random())  # noqa: S311  # no secrets
    event_type = changes.pop("event_type", event_class.event_types[0])
    body |= {names[name]: value for name, value in changes.items()}
    values = {
        "provider": "sahha",
        **body,
        "eventId": event_id or "draft",
        "eventType": event_type,
    }
    event = event_class.model_validate(values)
    if event_id is not None:
        return event
    sent = event.model_dump_json(by_alias=True).encode()
    return event_class.model_validate(values | {"eventId": event_id_of(event_class, json.loads(sent), sent)})


def sahha_body(event_class: type[SahhaEvent], random: Random, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A body of one of Sahha's classes; `changes` are fields of it, by the body's names.

    Raises `TypeError` for a class that Sahha sends nothing of.
    """
    return {**_body(event_class, random), **changes}


def _body(event_class: type[SahhaEvent], random: Random) -> dict[str, Any]:
    kind = next((_KINDS[cls] for cls in event_class.__mro__ if cls in _KINDS), None)
    if kind is None:
        names = ", ".join(cls.__name__ for cls in _KINDS)
        raise TypeError(f"Sahha sends no {event_class.__name__}: expected one of {names}")
    return kind(random)


def _score(random: Random) -> dict[str, Any]:
    """A score that has a value: one in fifty has none, and a test should not fail one time in fifty."""
    while (body := synthetic_sahha.score(random))["score"] is None:
        pass
    return body


_KINDS: Final[Mapping[type[Event], Callable[[Random], dict[str, Any]]]] = {
    ScoreEvent: _score,
    BiomarkerEvent: synthetic_sahha.biomarker,
    ArchetypeEvent: synthetic_sahha.archetype,
    DataLogEvent: synthetic_sahha.data_log,
}
