"""Sahha's resources: what its REST API returns and its webhooks carry.

Every field may be missing, because hardly anything promises that it is there. Values that Sahha lists are kept in
`consumer.models.sahha_names` and given as examples here, never enforced: its sets are open. Webhooks and the REST API
have shapes of their own for the same thing; the classes here are the REST API's, but for `ScoreFactor` and
`DataLogEntry`, which events carry. Sources: docs.sahha.ai, Sahha's own client libraries, and recorded answers.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from consumer.models.base import Flag, Number, Rows, Timestamp
from consumer.models.sahha_base import SahhaModel
from consumer.models.sahha_profiles import (
    DataLogItem,
    Demographic,
    DeviceInformation,
    Profile,
    ProfilePage,
    ProfileSource,
    SahhaAccountToken,
    SahhaProfileToken,
)
from consumer.models.sahha_values import Value, decode_value, plain_recording_method

__all__ = [
    "Archetype",
    "Biomarker",
    "Comparison",
    "ComparisonEntry",
    "DataLogEntry",
    "DataLogItem",
    "Demographic",
    "DeviceInformation",
    "Profile",
    "ProfilePage",
    "ProfileSource",
    "SahhaAccountToken",
    "SahhaModel",
    "SahhaProfileToken",
    "Score",
    "ScoreFactor",
    "Trend",
    "TrendEntry",
]

_NUMBER_TYPE = "double"

ScoreType = Annotated[str, Field(examples=["wellbeing", "activity", "sleep", "readiness", "mental_wellbeing"])]
ScoreState = Annotated[str, Field(examples=["minimal", "low", "medium", "high"])]
Periodicity = Annotated[str, Field(examples=["intraday", "daily", "weekly", "monthly"])]
TrendState = Annotated[str, Field(examples=["increasing", "decreasing", "stable"])]
ComparisonState = Annotated[str, Field(examples=["very_low", "low", "average", "high", "very_high"])]
ComparisonType = Annotated[str, Field(examples=["global", "demographic", "baseline"])]


def _number_from_text(value: Any) -> Any:
    # Uploads as text are documented beside uploads as numbers, so a log may come back as either.
    return decode_value(_NUMBER_TYPE, value) if isinstance(value, str) else value


Amount = Annotated[Number, BeforeValidator(_number_from_text)]
"""A number, also where it is written as text."""

RawBiomarkerValue = str | Number
"""Text, as observed; a number, as some documents show."""


class ScoreFactor(SahhaModel):
    """What went into a score (documented). `value` and `goal` are in `unit`, `score` is between 0 and 1."""

    id: str | None = None
    """A UUID, or the factor's name; neither is promised."""
    name: str | None = None
    value: Number | None = None
    goal: Number | None = None
    score: Number | None = None
    state: ScoreState | None = None
    unit: str | None = None


class DataLogEntry(SahhaModel):
    """One reading of a device, as a webhook carries it. `value` is in `unit`."""

    id: str | None = None
    parent_id: str | None = None
    """The log this one is a part of; both null and "" mean none."""
    value: Amount | None = None
    unit: str | None = None
    source: str | None = None
    raw_recording_method: str | None = Field(default=None, alias="recordingMethod")
    """As it came; two spellings are documented, see `recording_method`."""
    device_type: str | None = None
    device_id: str | None = None
    source_id: str | None = None
    aggregation: str | None = None
    periodicity: Periodicity | None = None
    start_date_time: Timestamp | None = None
    end_date_time: Timestamp | None = None
    post_date_time: Timestamp | None = None
    modified_date_time: Timestamp | None = None
    additional_properties: dict[str, Any] | None = None

    @property
    def recording_method(self) -> str | None:
        """`actively_recorded`, `automatically_recorded`, `manual_entry` or `unknown`, in this one spelling; open."""
        return plain_recording_method(self.raw_recording_method)


class Score(SahhaModel):
    """A health score, as the REST API gives it (`GET /api/v1/profile/score/{externalId}`).

    `score` is what Sahha sent: between 0 and 1 in everything observed; one edition of the documentation shows 0 to
    100. It is never rescaled. Floats may carry the noise of single precision: do not compare them for equality.
    """

    id: str | None = None
    """A UUID that an updated score may keep: with `created_at_utc` it is unique."""
    type: ScoreType | None = None
    state: ScoreState | None = None
    score: Number | None = Field(default=None, validation_alias=AliasChoices("score", "value"))
    """Read from `score`, or from `value` where there is no `score`."""
    factors: Rows[ScoreFactor] = ()
    data_sources: Rows[str] = ()
    score_date_time: Timestamp | None = None
    """The day the score is about, with the member's offset."""
    created_at_utc: Timestamp | None = Field(default=None, validation_alias=AliasChoices("createdAtUtc", "createdAt"))
    """Read from `createdAtUtc`, or from `createdAt` where there is none."""
    version: Number | str | None = None


class Biomarker(SahhaModel):
    """A biomarker's value over a time (`GET /api/v1/profile/biomarker/{externalId}`)."""

    id: str | None = None
    category: str | None = None
    type: str | None = None
    periodicity: Periodicity | None = None
    aggregation: Annotated[str, Field(examples=["total", "average", "none"])] | None = None
    raw_value: RawBiomarkerValue | None = Field(default=None, alias="value")
    """As it came: nearly always text."""
    unit: str | None = None
    value_type: Annotated[str, Field(examples=["integer", "double", "datetime"])] | None = None
    start_date_time: Timestamp | None = None
    end_date_time: Timestamp | None = None
    created_at_utc: Timestamp | None = None
    version: Number | str | None = None

    @property
    def value(self) -> Value:
        """`raw_value` read as `value_type` says, or as it came where it cannot be."""
        return decode_value(self.value_type, self.raw_value)


class Archetype(SahhaModel):
    """What kind of person a member is in one respect (`GET /api/v1/profile/archetypes/{externalId}`)."""

    id: str | None = None
    name: str | None = None
    value: str | None = None
    data_type: Annotated[str, Field(examples=["ordinal", "categorical"])] | None = None
    ordinality: Number | None = None
    """The value's place among an ordinal archetype's, from 0; 0 for a categorical one."""
    periodicity: Periodicity | None = None
    start_date_time: Timestamp | None = None
    end_date_time: Timestamp | None = None
    created_at_utc: Timestamp | None = None
    version: Number | str | None = None


class TrendEntry(SahhaModel):
    """One period of a trend."""

    start_date_time: Timestamp | None = None
    end_date_time: Timestamp | None = None
    value: Number | None = None
    percent_change_from_previous: Number | None = None
    """A fraction: 0.1 is ten per cent more."""


class Trend(SahhaModel):
    """How a score or factor develops (`GET /api/v1/profile/insight/trend/{externalId}`)."""

    id: str | None = None
    type: str | None = None
    category: Annotated[str, Field(examples=["score", "factor"])] | None = None
    name: str | None = None
    state: TrendState | None = None
    is_higher_better: Flag | None = None
    value_range: Any = None
    """Its shape is not published."""
    unit: str | None = None
    periodicity: Periodicity | None = None
    trend_start_date_time: Timestamp | None = None
    trend_end_date_time: Timestamp | None = None
    data: Rows[TrendEntry] = ()


class ComparisonEntry(SahhaModel):
    """A member against everybody (`global`), people like them (`demographic`) or their last 30 days (`baseline`)."""

    type: ComparisonType | None = None
    value: Number | None = None
    percentile: Number | None = None
    """Not given for `baseline`."""
    difference: Number | None = None
    percentage_difference: Number | None = None
    """A fraction: 0.1 is ten per cent more."""
    state: ComparisonState | None = None
    properties: Any = None


class Comparison(SahhaModel):
    """How a score or biomarker compares (`GET /api/v1/profile/insight/comparison/{externalId}`, documented)."""

    id: str | None = None
    type: str | None = None
    category: Annotated[str, Field(examples=["score", "biomarker"])] | None = None
    name: str | None = None
    value: Number | None = None
    unit: str | None = None
    is_higher_better: Flag | None = None
    periodicity: Periodicity | None = None
    start_date_time: Timestamp | None = None
    end_date_time: Timestamp | None = None
    data: Rows[ComparisonEntry] = ()
