"""The tables of the health store that Sahha's events fill, in the same `metadata` as `handlers.tables`.

Whose a row is, is in its key as `profile_id`, Sahha's id of the profile: it is always in the signed body. `external_id`
is your own id of that member, None in a row whose event's body had none (the header beside a body is not signed, so it
is not kept). `occurred_at` is when Sahha created what the row says, for data logs when Sahha received it. All times are
in UTC.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import Column, Date, Double, Integer, String, Table

from handlers.tables import UtcTime, key, metadata, written_by

__all__ = ["sahha_archetypes", "sahha_biomarkers", "sahha_data_logs", "sahha_score_factors", "sahha_scores"]


def _whose() -> tuple[Column[Any], Column[str | None]]:
    return key("profile_id"), Column[str | None]("external_id", String, index=True)


def _period() -> tuple[Column[Any], ...]:
    return (
        key("start_date_time", UtcTime),
        Column[datetime | None]("end_date_time", UtcTime),
    )


sahha_scores = Table(
    "sahha_scores",
    metadata,
    *_whose(),
    key("type"),
    key("score_date_time", UtcTime),
    Column[date | None]("day", Date),
    Column[str | None]("score_id", String),
    Column[float | None]("score", Double),
    Column[str | None]("state", String),
    Column[str | None]("version", String),
    *written_by(),
)
"""A member's score of one type and day, between 0 and 1; None where Sahha could not compute it. `day` is the day on the
member's own calendar, which `score_date_time` no longer tells."""

sahha_score_factors = Table(
    "sahha_score_factors",
    metadata,
    *_whose(),
    key("type"),
    key("score_date_time", UtcTime),
    key("position", Integer),
    Column[str | None]("name", String),
    Column[float | None]("value", Double),
    Column[float | None]("goal", Double),
    Column[str | None]("unit", String),
    Column[float | None]("score", Double),
    Column[str | None]("state", String),
    sqlite_with_rowid=False,
)
"""What went into a score, in its order; always the factors of one event, the one that wrote the score."""

sahha_biomarkers = Table(
    "sahha_biomarkers",
    metadata,
    *_whose(),
    key("category"),
    key("type"),
    key("periodicity"),
    key("aggregation"),
    *_period(),
    Column[str | None]("biomarker_id", String),
    Column[str | None]("value_type", String),
    Column[str | None]("raw_value", String),
    Column[float | None]("value_number", Double),
    Column[datetime | None]("value_time", UtcTime),
    Column[str | None]("value_text", String),
    Column[str | None]("unit", String),
    Column[str | None]("version", String),
    *written_by(),
)
"""A member's biomarker over one period. `raw_value` is what Sahha wrote; what it means is in the one of `value_number`,
`value_time` and `value_text` that fits. A total and an average over the same time are two rows."""

sahha_archetypes = Table(
    "sahha_archetypes",
    metadata,
    *_whose(),
    key("name"),
    key("periodicity"),
    *_period(),
    Column[str | None]("archetype_id", String),
    Column[str | None]("value", String),
    Column[str | None]("data_type", String),
    Column[float | None]("ordinality", Double),
    Column[str | None]("version", String),
    *written_by(),
)
"""What a member was like in one respect over one period."""

sahha_data_logs = Table(
    "sahha_data_logs",
    metadata,
    *_whose(),
    key("log_id"),
    Column[str | None]("parent_id", String),
    Column[str | None]("log_type", String),
    Column[str | None]("data_type", String),
    Column[float | None]("value", Double),
    Column[str | None]("unit", String),
    Column[str | None]("source", String),
    Column[str | None]("recording_method", String),
    Column[str | None]("device_type", String),
    Column[datetime | None]("start_date_time", UtcTime),
    Column[datetime | None]("end_date_time", UtcTime),
    Column[datetime | None]("modified_date_time", UtcTime),
    *written_by(),
)
"""One reading of a member's device; `log_id` is its own id, or made of its event's where it has none."""
