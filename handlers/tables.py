"""The tables of the health store that Thrive's events fill; those of Sahha's are in `handlers.sahha_tables`.

The worker creates those that are missing when it starts. Changing a table that exists is up to you: with `ALTER TABLE`,
or with a tool such as Alembic, which works with this `metadata` as it is. Every row says which event wrote it
(`event_id`) and when that happened (`occurred_at`), or belongs to a row that does; and every row says whose it is, by
your own id of the member: `user_id` here, `external_id` in Sahha's tables.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Boolean, Column, Date, DateTime, Dialect, Double, Integer, MetaData, String, Table, TypeDecorator

__all__ = [
    "UtcTime",
    "daily_summaries",
    "key",
    "lab_results",
    "lab_values",
    "metadata",
    "nudges",
    "priorities",
    "priority_lists",
    "to_fetch",
    "written_by",
]


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


def written_by() -> tuple[Column[datetime], Column[str]]:
    """What every row keeps of the event it came from."""
    return Column("occurred_at", UtcTime, nullable=False), Column("event_id", String, nullable=False)


def key(name: str, kind: Any = String) -> Column[Any]:
    """A part of a table's primary key."""
    return Column(name, kind, primary_key=True)


lab_results = Table(
    "lab_results",
    metadata,
    key("user_id"),
    key("lab_result_id"),
    Column[str | None]("status", String),
    Column[str | None]("title", String),
    Column[str | None]("lab_name", String),
    Column[date | None]("test_date", Date),
    Column[str | None]("overall_assessment", String),
    Column[bool | None]("follow_up_needed", Boolean),
    *written_by(),
)
"""One lab result of a member."""

lab_values = Table(
    "lab_values",
    metadata,
    key("user_id"),
    key("lab_result_id"),
    key("position", Integer),
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
    key("user_id"),
    key("day", Date),
    key("device"),
    Column[float | None]("steps", Double),
    Column[float | None]("calories_active", Double),
    Column[float | None]("distance_meters", Double),
    Column[float | None]("resting_heart_rate", Double),
    Column[float | None]("sleep_minutes", Double),
    Column[float | None]("sleep_efficiency", Double),
    Column[float | None]("hrv_ms", Double),
    Column[float | None]("weight", Double),
    Column[str | None]("weight_unit", String),
    *written_by(),
)
"""A day of a member as one device saw it (`device` is the provider's slug, empty if it has none)."""

nudges = Table(
    "nudges",
    metadata,
    key("user_id"),
    key("kind"),
    key("nudge_id"),
    Column[str | None]("title", String),
    Column[str | None]("text", String),
    Column[str | None]("status", String),
    Column[str | None]("trigger_name", String),
    Column[datetime | None]("scheduled_at", UtcTime),
    *written_by(),
)
"""What to show to a member; `kind` is card or health_action."""

priority_lists = Table("priority_lists", metadata, key("user_id"), *written_by())
"""That a member's priorities were fetched, and for which event; the list may well be empty."""

priorities = Table(
    "priorities",
    metadata,
    key("user_id"),
    key("position", Integer),
    Column[str | None]("priority_id", String),
    Column[str | None]("title", String),
    Column[str | None]("description", String),
    Column[str | None]("status", String),
    Column[float | None]("rank", Double),
    sqlite_with_rowid=False,
)
"""A member's active priorities, in the platform's order; always all those of one list."""

to_fetch = Table("to_fetch", metadata, key("user_id"), key("kind"), key("resource_id"), *written_by())
"""Resources that events announced without their data, while there was no tenant key to fetch them with. Whoever fetches
one deletes its row, unless `event_id` has changed meanwhile; the handlers do so when a later event brings it or lets
them fetch it. `kind` program means: fetch the member's priorities again. A late event may be noted though something
newer is kept: fetching once too often does no harm."""
