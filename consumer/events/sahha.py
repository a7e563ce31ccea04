"""Sahha's events: the bodies of its webhooks, which are the thing itself without an envelope.

Fields as documented at docs.sahha.ai (connect/webhooks/events); those of biomarkers, archetypes and data logs are known
from integrators' code too. What may be absent or null is None; what tells one type from another must be there.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from consumer.events.base import Event
from consumer.models.base import Number, Rows, Timestamp
from consumer.models.sahha import DataLogEntry, ScoreFactor
from consumer.models.sahha_base import SahhaModel
from consumer.models.sahha_values import Value, decode_value

__all__ = ["ArchetypeEvent", "BiomarkerEvent", "DataLogEvent", "SahhaEvent", "ScoreEvent"]


class SahhaEvent(Event, SahhaModel):
    """An event of Sahha's. Attributes are snake_case, and `model_dump(by_alias=True)` gives the body's names and shape.

    `event_id`, `event_type`, `user_id`, `occurred_at` and `provider` are worked out from body and headers, so that
    they are not in a dump; fields of a body that happen to have these names are in `model_extra`.
    """

    event_types: ClassVar[tuple[str, ...]] = ()
    """What `X-Event-Type` says of this class's events."""

    provider: SkipJsonSchema[str] = Field(default="sahha", exclude=True)
    event_id: SkipJsonSchema[str] = Field(min_length=1, exclude=True)
    """Type, id and `createdAtUtc`, since a result that is computed again keeps its id; without those two, a hash of
    the body."""
    event_type: SkipJsonSchema[str] = Field(min_length=1, exclude=True)
    user_id: SkipJsonSchema[str | None] = Field(default=None, validation_alias="externalId", exclude=True)
    """The external id; None when the body has none, because the header that names one is not signed."""
    occurred_at: SkipJsonSchema[Timestamp | None] = Field(default=None, validation_alias="createdAtUtc", exclude=True)
    """When Sahha computed or received it: `createdAtUtc`, of data logs `receivedAtUtc`."""

    profile_id: str | None = None
    """Sahha's id of the member; signed, and the same whatever the external id is."""
    account_id: str | None = None
    external_id: str | None = None
    """The partner's id of the member, as far as the body says it."""


class ScoreEvent(SahhaEvent):
    """A health score was computed, or computed again."""

    event_types: ClassVar[tuple[str, ...]] = ("ScoreCreatedIntegrationEvent",)

    id: str | None = None
    type: Annotated[str, Field(examples=["activity", "sleep", "readiness", "wellbeing", "mental_wellbeing"])]
    state: Annotated[str, Field(examples=["minimal", "low", "medium", "high"])] | None = None
    score: Number | None
    """0 to 1, 1 is best; null where it could not be computed. Single precision: do not compare for equality."""
    factors: Rows[ScoreFactor] = ()
    data_sources: Rows[str] = ()
    score_date_time: Timestamp
    """The day the score is about, at its start, with the member's offset."""
    created_at_utc: Timestamp | None = None
    version: Number | str | None = None


class BiomarkerEvent(SahhaEvent):
    """A biomarker's value was computed, or computed again."""

    event_types: ClassVar[tuple[str, ...]] = ("BiomarkerCreatedIntegrationEvent",)

    id: str | None = None
    category: Annotated[str, Field(examples=["activity", "body", "sleep", "vitals"])]
    type: Annotated[str, Field(examples=["steps", "sleep_duration", "heart_rate_resting"])]
    periodicity: Annotated[str, Field(examples=["intraday", "daily", "weekly"])] | None = None
    aggregation: Annotated[str, Field(examples=["total", "average", "none"])] | None = None
    raw_value: str | Number | None = Field(alias="value")
    """As it came: nearly always text. See `value`."""
    unit: str | None = None
    value_type: Annotated[str, Field(examples=["integer", "double", "datetime"])] | None = None
    start_date_time: Timestamp | None = None
    end_date_time: Timestamp | None = None
    created_at_utc: Timestamp | None = None
    version: Number | str | None = None

    @property
    def value(self) -> Value:
        """The value as `value_type` says; the raw value where it is not that."""
        return decode_value(self.value_type, self.raw_value)


class ArchetypeEvent(SahhaEvent):
    """An archetype was assigned."""

    event_types: ClassVar[tuple[str, ...]] = ("ArchetypeCreatedIntegrationEvent",)

    id: str | None = None
    name: Annotated[str, Field(examples=["activity_level", "sleep_duration", "sleep_pattern"])]
    value: Annotated[str, Field(examples=["highly_active", "short_sleeper"])]
    data_type: Annotated[str, Field(examples=["ordinal", "categorical"])]
    ordinality: Number | None = None
    """The value's place among those of its name, from 0; 0 for categorical ones."""
    periodicity: Annotated[str, Field(examples=["weekly", "monthly"])] | None = None
    start_date_time: Timestamp | None = None
    end_date_time: Timestamp | None = None
    created_at_utc: Timestamp | None = None
    version: Number | str | None = None


class DataLogEvent(SahhaEvent):
    """A device's readings arrived. It has no id of its own; each of `data_logs` has."""

    event_types: ClassVar[tuple[str, ...]] = ("DataLogReceivedIntegrationEvent",)

    occurred_at: SkipJsonSchema[Timestamp | None] = Field(default=None, validation_alias="receivedAtUtc", exclude=True)
    log_type: Annotated[str, Field(examples=["activity", "sleep", "heart"])]
    data_type: Annotated[str, Field(examples=["steps", "sleep_stage_deep", "heart_rate"])] | None = None
    received_at_utc: Timestamp | None = None
    data_logs: Rows[DataLogEntry]
