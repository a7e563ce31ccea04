"""What a type checker says of `@table.forget`; never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession

from consumer import DispatchTable, Member

table = DispatchTable()


@table.forget
async def by_table(member: Member, session: AsyncSession) -> dict[str, int]:
    return {"notes": 0}


@table.forget
async def altogether(member: Member, session: AsyncSession) -> int:
    return 0


async def called(member: Member, session: AsyncSession) -> None:
    """A decorated function keeps its own type."""
    assert_type(await by_table(member, session), dict[str, int])
    counts: Mapping[str, int] = await by_table(member, session)
    assert_type(await altogether(member, session), int)
    assert counts


@table.forget  # type: ignore[type-var]  # it says nothing about how much it erased
async def silent(member: Member, session: AsyncSession) -> None: ...


@table.forget  # type: ignore[type-var]  # nobody would await it
def not_async(member: Member, session: AsyncSession) -> int:
    return 0


@table.forget  # type: ignore[type-var]  # it is given the session too
async def too_short(member: Member) -> int:
    return 0
