"""`@table.forget`: what may be registered, and how what handlers keep is erased."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, String, Table, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from consumer import Context, DispatchTable, Member
from consumer.database import Database
from consumer.errors import ConsumerError, DatabaseUnavailable
from consumer.events import LabResultEvent
from consumer.events.reading import EVENT_CLASSES
from consumer.events.sahha_reading import SAHHA_CLASSES
from consumer.forgetting import forget_kept
from consumer.inbox import Inbox
from consumer.migrations import create_tables
from consumer.testing import Handled, TestConsumer, sample
from handlers import table as shipped_table
from handlers.tables import metadata as shipped_metadata

metadata = MetaData()
notes = Table("notes", metadata, Column("user_id", String), Column("text", String))

CANARY = "canary-9c"


async def forget_notes(member: Member, session: AsyncSession) -> dict[str, int]:
    """What a partner would write."""
    gone: Any = await session.execute(delete(notes).where(notes.c.user_id == member.user_id))
    return {"notes": gone.rowcount}


def sync_function(member: Member, session: AsyncSession) -> int:
    return 0


async def one_parameter(member: Member) -> int:
    return 0


async def wrong_member(member: LabResultEvent, session: AsyncSession) -> int:
    return 0


async def wrong_session(member: Member, session: Context) -> int:
    return 0


async def untyped(member, session):  # type: ignore[no-untyped-def]
    return 0


def test_registration_returns_the_function_unchanged() -> None:
    """Also one without annotations; and they are called in the order they were registered."""
    table = DispatchTable()
    assert table.forget(forget_notes) is forget_notes
    table.forget(untyped)
    assert [one.function for one in table.forgetters] == [forget_notes, untyped]


@pytest.mark.parametrize("function", [sync_function, one_parameter, wrong_member, wrong_session, 3, lambda m, s: 0])
def test_what_does_not_fit_is_refused_at_once(function: Any) -> None:
    """A function that would fail when a member asks to be forgotten fails when the program starts."""
    with pytest.raises(TypeError):
        DispatchTable().forget(function)


def test_included_tables_bring_theirs() -> None:
    """And a function that comes by two ways is told of, as a handler is."""
    table, other = DispatchTable(), DispatchTable()
    other.forget(forget_notes)
    table.include(other)
    assert [one.function for one in table.forgetters] == [forget_notes]
    with pytest.raises(TypeError, match="forget_notes is registered already"):
        table.forget(forget_notes)
    with pytest.raises(TypeError, match="forget_notes is registered already"):
        table.include(other)


async def filled(database: Database) -> Inbox:
    """A database in which u1 has two notes and u2 has one."""
    await create_tables(database, [metadata])
    async with database.transaction() as connection:
        rows = [{"user_id": user, "text": CANARY} for user in ("u1", "u1", "u2")]
        await connection.execute(insert(notes), rows)
    return Inbox(database)


async def left(database: Database) -> int:
    """How many notes there are."""
    async with database.transaction() as connection:
        return int((await connection.execute(select(func.count()).select_from(notes))).scalar_one())


def registered(*functions: Any) -> DispatchTable:
    table = DispatchTable()
    for function in functions:
        table.forget(function)
    return table


async def count_of_one(member: Member, session: AsyncSession) -> int:
    return 1


async def test_rows_are_erased_and_counted(database: Database) -> None:
    """By table, or under the function's name; the second time there is nothing left."""
    inbox = await filled(database)
    functions = registered(forget_notes, count_of_one).forgetters
    name = f"{__name__}.count_of_one"
    assert await forget_kept(inbox, functions, Member("u1")) == {"notes": 2, name: 1}
    assert await forget_kept(inbox, functions, Member("u1")) == {"notes": 0, name: 1}
    assert await left(database) == 1


async def test_a_dry_run_counts_and_erases_nothing(sqlite_database: Database) -> None:
    """Its functions run, and are told; their transaction is rolled back."""
    inbox = await filled(sqlite_database)
    told: list[bool] = []

    async def listen(member: Member, session: AsyncSession) -> int:
        told.append(member.dry_run)
        return 0

    counts = await forget_kept(inbox, registered(forget_notes, listen).forgetters, Member("u1", dry_run=True))
    assert counts["notes"] == 2
    assert told == [True]
    assert await left(sqlite_database) == 3


async def fails(member: Member, session: AsyncSession) -> int:
    raise ValueError(CANARY)


async def commits(member: Member, session: AsyncSession) -> int:
    await session.commit()
    return 0


async def breaks_a_constraint(member: Member, session: AsyncSession) -> int:
    await session.execute(insert(notes).values(nobody=CANARY))
    return 0


async def returns_text(member: Member, session: AsyncSession) -> Any:
    return CANARY


async def returns_texts(member: Member, session: AsyncSession) -> Mapping[str, Any]:
    return {"notes": None}


@pytest.mark.parametrize("function", [fails, commits, breaks_a_constraint, returns_text, returns_texts])
async def test_when_one_function_fails_nothing_is_erased(sqlite_database: Database, function: Any) -> None:
    """One clear line names it and holds no value."""
    inbox = await filled(sqlite_database)
    with pytest.raises(ConsumerError, match=function.__name__) as caught:
        await forget_kept(inbox, registered(forget_notes, function).forgetters, Member("u1"))
    assert CANARY not in str(caught.value)
    assert "u1" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert await left(sqlite_database) == 3


async def test_trouble_of_the_database_is_told_as_such(sqlite_database: Database, tmp_path: Path) -> None:
    """No function is blamed for it."""
    inbox = await filled(sqlite_database)
    (tmp_path / "consumer.db").unlink()
    with pytest.raises(DatabaseUnavailable, match="removed"):
        await forget_kept(inbox, registered(forget_notes).forgetters, Member("u1"))


async def test_a_handlers_own_test_can_forget() -> None:
    """`TestConsumer.forget` calls the table's functions on its database."""
    table = DispatchTable(metadata=metadata)

    @table.on(LabResultEvent)
    async def keep(event: LabResultEvent, context: Context) -> None:
        await context.session.execute(insert(notes).values(user_id=event.user_id, text="t"))

    async with TestConsumer(table) as consumer:
        await consumer.send(sample(LabResultEvent, user_id="u1"))
        with pytest.raises(ConsumerError, match=r"@table\.forget"):
            await consumer.forget("u1")
        table.forget(forget_notes)
        assert await consumer.forget("u1") == {"notes": 1}
        assert await consumer.forget("u1") == {"notes": 0}


SHIPPED = (*EVENT_CLASSES.values(), *SAHHA_CLASSES)


async def test_the_shipped_handlers_keep_nothing_of_what_they_were_sent() -> None:
    """Whatever events came: each left rows, and none is left of the one who asked, all of the other."""
    async with TestConsumer(shipped_table) as consumer:
        for event_class in SHIPPED:
            for user in ("u1", "u2"):
                assert await consumer.send(sample(event_class, user_id=user)) == Handled()
        before = await _rows(consumer)
        assert await consumer.forget("u1") == {name: len(rows) - len(kept(rows)) for name, rows in before.items()}
        assert await _rows(consumer) == {name: kept(rows) for name, rows in before.items()}
        assert sum(len(kept(rows)) for rows in before.values()) >= len(SHIPPED)


def kept(rows: list[Any]) -> list[Any]:
    """Those of the other member."""
    return [row for row in rows if "u1" not in row]


async def _rows(consumer: TestConsumer) -> dict[str, list[Any]]:
    async with consumer.session() as session:
        return {
            one.name: [tuple(row) for row in await session.execute(select(one))]
            for one in shipped_metadata.sorted_tables
        }
