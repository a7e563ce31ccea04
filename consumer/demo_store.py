"""What the demo shows of the handlers' tables when all is done. All of it is invented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import MetaData, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["MemberScore", "MemberValue", "latest_scores", "latest_values", "row_counts"]


@dataclass(frozen=True, slots=True)
class MemberValue:
    """One lab value of the member that is shown."""

    parameter: str
    value: float
    unit: str
    status: str


@dataclass(frozen=True, slots=True)
class MemberScore:
    """One score of the member that is shown."""

    type: str
    day: str
    score: float | None
    """From 0 to 1; None where it could not be computed."""
    state: str | None


async def row_counts(connection: AsyncConnection, metadata: MetaData) -> dict[str, int]:
    """How many rows each table has."""
    return {table.name: await _count(connection, table) for table in metadata.sorted_tables}


async def latest_values(connection: AsyncConnection, metadata: MetaData) -> tuple[str | None, list[MemberValue]]:
    """The member with the newest lab result, and the latest value of everything ever measured."""
    results, values = metadata.tables["lab_results"], metadata.tables["lab_values"]
    newest = select(results.c.user_id).order_by(results.c.occurred_at.desc()).limit(1)
    member: str | None = await connection.scalar(newest)
    found: Any = await connection.execute(
        select(values.c.parameter, values.c.value, values.c.unit, values.c.status)
        .join(
            results,
            (results.c.user_id == values.c.user_id) & (results.c.lab_result_id == values.c.lab_result_id),
        )
        .where(values.c.user_id == member)
        .order_by(results.c.occurred_at, values.c.position)
    )
    latest = {row.parameter: MemberValue(row.parameter, row.value, row.unit, row.status) for row in found}
    return member, [latest[name] for name in sorted(latest)]


async def latest_scores(connection: AsyncConnection, metadata: MetaData) -> tuple[str | None, list[MemberScore]]:
    """The member with the newest score, and the score of the latest day of each type."""
    scores = metadata.tables["sahha_scores"]
    newest = select(scores.c.external_id).order_by(scores.c.occurred_at.desc()).limit(1)
    member: str | None = await connection.scalar(newest)
    found: Any = await connection.execute(
        select(scores.c.type, scores.c.day, scores.c.score, scores.c.state)
        .where(scores.c.external_id == member)
        .order_by(scores.c.score_date_time)
    )
    latest = {row.type: MemberScore(row.type, row.day.isoformat(), row.score, row.state) for row in found}
    return member, [latest[name] for name in sorted(latest)]


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int(await connection.scalar(select(func.count()).select_from(table)) or 0)
