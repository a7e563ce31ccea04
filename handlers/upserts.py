"""Rows that end up the same whatever the order events arrive in, and however often.

An upsert replaces a row only if its event is newer: later in `occurred_at`, or at the same time with the greater
`event_id`. One statement decides and writes, so two workers cannot get between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, cast

from sqlalchemy import CursorResult, Result, Table, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from consumer import Context
from consumer.events import Event

__all__ = ["happened_at", "keep_each_newest", "keep_newest"]


async def keep_newest(context: Context, event: Event, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row, or replace the one with its key if the event is newer; whether it was written.

    The table's columns `occurred_at` and `event_id` come from the event, all others from `row`.
    """
    return cast("CursorResult[Any]", await _keep(context, event, table, [row])).rowcount > 0


async def keep_each_newest(context: Context, event: Event, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Do so with several rows, each on its own; of two with one key the first counts."""
    if rows:
        await _keep(context, event, table, rows)


async def _keep(context: Context, event: Event, table: Table, rows: Sequence[Mapping[str, Any]]) -> Result[Any]:
    session = context.session
    source = {"occurred_at": happened_at(context, event), "event_id": event.event_id}
    statement = _upsert(table, session.get_bind().dialect.name)
    parameters: Any = {**rows[0], **source} if len(rows) == 1 else [{**row, **source} for row in rows]
    return await session.execute(statement, parameters)


def happened_at(context: Context, event: Event) -> datetime:
    """When the event happened; one that does not say counts as happening when the queue accepted it."""
    return event.occurred_at or context.delivery.accepted_at


@cache
def _upsert(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    new = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return new.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={column.name: new.excluded[column.name] for column in table.columns if not column.primary_key},
        where=tuple_(new.excluded.occurred_at, new.excluded.event_id) > tuple_(table.c.occurred_at, table.c.event_id),
    )
