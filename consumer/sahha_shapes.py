"""What tells Sahha's event types apart by their bodies, which do not say their type: an unsigned header does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["misfit", "type_by_shape"]

_SHAPES: Final = {
    "ScoreCreatedIntegrationEvent": ("type", "scoreDateTime", "score"),
    "BiomarkerCreatedIntegrationEvent": ("category", "type", "value"),
    "ArchetypeCreatedIntegrationEvent": ("name", "value", "dataType"),
    "DataLogReceivedIntegrationEvent": ("logType", "dataLogs"),
}
"""Fields that every body of a type has (docs.sahha.ai, connect/webhooks/events); null counts."""


def misfit(event_type: str, content: Mapping[str, Any]) -> str | None:
    """Why a body cannot be of the type that its header claims, or None. A type nobody knows fits everything."""
    shape = _SHAPES.get(event_type, ())
    if not all(name in content for name in shape):
        return "the body has not the fields of the event type that X-Event-Type claims"
    if "dataLogs" in shape and not isinstance(content["dataLogs"], list):
        return "the body's dataLogs is not a list"
    return None


def type_by_shape(content: Mapping[str, Any]) -> str | None:
    """The one known type that a body fits; None if it fits none, or several."""
    fitting = [event_type for event_type in _SHAPES if misfit(event_type, content) is None]
    return fitting[0] if len(fitting) == 1 else None
