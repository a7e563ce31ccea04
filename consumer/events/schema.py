"""JSON Schemas of the events, for those who read or produce them in another language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from consumer.events.base import Event
from consumer.events.sahha import SahhaEvent
from consumer.events.thrive import ThriveEvent

__all__ = ["event_schemas"]


def event_schemas(classes: Iterable[type[Event]]) -> dict[str, dict[str, Any]]:
    """The JSON Schema of each class's events, by class name; a name used twice gets its module in front.

    The schemas describe bodies under the default field names. `x-event-types` lists the class's own event types,
    which settings may replace (Thrive's; of Sahha's the header `X-Event-Type` says it).
    """
    wanted = list(dict.fromkeys(classes))
    uses = Counter(cls.__name__ for cls in wanted)
    return {
        cls.__name__ if uses[cls.__name__] == 1 else f"{cls.__module__}.{cls.__qualname__}": _schema(cls)
        for cls in wanted
    }


def _schema(cls: type[Event]) -> dict[str, Any]:
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **cls.model_json_schema()}
    if issubclass(cls, ThriveEvent | SahhaEvent) and cls.event_types:
        schema["x-event-types"] = list(cls.event_types)
    return schema
