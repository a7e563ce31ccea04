"""A member's right to be forgotten: what `consumer forget` calls to empty the health store of one member.

Every table in the `metadata` is gone through, so one that you add later is not overlooked: its rows say whose they are
by `user_id`, or as Sahha's by `profile_id` and `external_id`. A table that says so in another way needs lines of its
own here.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Table, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from consumer import Member
from handlers.tables import metadata

__all__ = ["forget_member"]


async def forget_member(member: Member, session: AsyncSession) -> dict[str, int]:
    """Erase every row of a member; returns how many went, by table."""
    profiles = await _profiles(member, session) if member.of("sahha") else set()
    counts = {}
    for table in metadata.sorted_tables:
        whose = _whose(table, member, profiles)
        if whose is not None:
            result = await session.execute(delete(table).where(whose))
            counts[table.name] = cast("CursorResult[Any]", result).rowcount
    return counts


async def _profiles(member: Member, session: AsyncSession) -> set[str]:
    """Sahha's ids of the member: those given, and those under which rows with the member's external id stand.

    A row whose event named no external id is known by its profile alone.
    """
    found = set(member.profile_ids)
    for table in metadata.sorted_tables:
        if "external_id" in table.c:
            profiles = select(table.c.profile_id).where(table.c.external_id == member.user_id).distinct()
            found.update(await session.scalars(profiles))
    return found


def _whose(table: Table, member: Member, profiles: set[str]) -> ColumnElement[bool] | None:
    """What holds for the member's rows of a table; None: it has none that are meant."""
    if "user_id" in table.c and member.of("thrive"):
        return table.c.user_id == member.user_id
    if "profile_id" in table.c and member.of("sahha"):
        return or_(table.c.external_id == member.user_id, table.c.profile_id.in_(profiles))
    return None
