"""The tables of the health store. The worker creates those that are missing when it starts.

Changing a table that exists is up to you: with `ALTER TABLE`, or with a tool such as Alembic, which works with this
`metadata` as it is. Every row says which event wrote it (`event_id`) and when that happened (`occurred_at`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Boolean, Column, Date, DateTime, Dialect, Double, Integer, MetaData, String, Table, TypeDecorator

__all__ = ["daily_summaries", "lab_results", "lab_values", "metadata", "nudges", "to_fetch"]


class UtcTime(TypeDecorator[datetime]):
    """An aware time. SQLite keeps no offset, so it goes in as UTC, and comes out saying so."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """On the way in."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        """On the way out."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


metadata = MetaData()


def _written_by() -> tuple[Column[datetime], Column[str]]:
    """What every row keeps of the event it came from."""
    return Column("occurred_at", UtcTime, nullable=False), Column("event_id", String, nullable=False)


def _key(name: str, kind: Any = String) -> Column[Any]:
    return Column(name, kind, primary_key=True)


lab_results = Table(
    "lab_results",
    metadata,
    _key("user_id"),
    _key("lab_result_id"),
    Column[str | None]("status", String),
    Column[str | None]("title", String),
    Column[str | None]("lab_name", String),
    Column[date | None]("test_date", Date),
    Column[str | None]("overall_assessment", String),
    Column[bool | None]("follow_up_needed", Boolean),
    *_written_by(),
)
"""One lab result of a member."""

lab_values = Table(
    "lab_values",
    metadata,
    _key("user_id"),
    _key("lab_result_id"),
    _key("position", Integer),
    Column[str | None]("domain", String),
    Column[str | None]("parameter", String),
    Column[float | None]("value", Double),
    Column[str | None]("comparator", String),
    Column[str | None]("unit", String),
    Column[float | None]("low", Double),
    Column[float | None]("high", Double),
    Column[str | None]("status", String),
    sqlite_with_rowid=False,
)
"""The values of a lab result, in its order; always those of one event, the one that wrote the lab result."""

daily_summaries = Table(
    "daily_summaries",
    metadata,
    _key("user_id"),
    _key("day", Date),
    _key("device"),
    Column[float | None]("steps", Double),
    Column[float | None]("calories_active", Double),
    Column[float | None]("distance_meters", Double),
    Column[float | None]("resting_heart_rate", Double),
    Column[float | None]("sleep_minutes", Double),
    Column[float | None]("sleep_efficiency", Double),
    Column[float | None]("hrv_ms", Double),
    Column[float | None]("weight", Double),
    Column[str | None]("weight_unit", String),
    *_written_by(),
)
"""A day of a member as one device saw it (`device` is the provider's slug, empty if it has none)."""

nudges = Table(
    "nudges",
    metadata,
    _key("user_id"),
    _key("kind"),
    _key("nudge_id"),
    Column[str | None]("title", String),
    Column[str | None]("text", String),
    Column[str | None]("status", String),
    Column[str | None]("trigger_name", String),
    Column[datetime | None]("scheduled_at", UtcTime),
    *_written_by(),
)
"""What to show to a member; `kind` is card or health_action."""

to_fetch = Table(
    "to_fetch",
    metadata,
    _key("user_id"),
    _key("kind"),
    _key("resource_id"),
    *_written_by(),
)
"""Resources that events announced without their data, to be fetched from the platform. Whoever fetches one deletes
its row, unless `event_id` has changed meanwhile. `kind` program means: fetch the member's priorities again."""
