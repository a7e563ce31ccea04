"""The health store and handlers' tables on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select
from sqlalchemy.ext.asyncio import AsyncSession

from consumer import DispatchTable
from consumer.app import opened_database
from consumer.database import Database
from consumer.errors import DatabaseError, SettingsError
from consumer.events import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, ThriveEvent
from consumer.migrations import create_tables, missing_tables
from consumer.models.thrive import LabResult
from consumer.settings_loading import load_settings
from consumer.testing import Handled, TestConsumer, make_context, sample
from handlers import store, table
from handlers.tables import lab_results, lab_values, metadata

NOON = datetime(2026, 3, 16, 12, tzinfo=UTC)


def version(number: int, *, seconds: int) -> LabResultEvent:
    """A version of one and the same lab result, with as many values as its number."""
    values = [{"parameter": f"{number}.{index}", "value": index, "unit": "mg/dL"} for index in range(number)]
    data = LabResult.model_validate({"lab_result_id": "lab-1", "domains": [{"domain_name": "D", "values": values}]})
    at = NOON + timedelta(seconds=seconds)
    return sample(LabResultEvent, user_id="u1", event_id=f"e{number}", occurred_at=at, data=data)


VERSIONS = [version(2, seconds=0), version(4, seconds=1), version(1, seconds=2), version(3, seconds=2)]


async def handle(database: Database, event: LabResultEvent) -> None:
    """As a worker would, with the inbox having forgotten everything."""
    assert event.data is not None
    async with AsyncSession(database.engine) as session, session.begin():
        await store.keep_lab_result(make_context(session=session), event, event.data)


async def kept(database: Database) -> tuple[Sequence[Any], Sequence[Any]]:
    async with AsyncSession(database.engine) as session:
        results = (await session.execute(select(lab_results.c.event_id, lab_results.c.occurred_at))).all()
        values = (await session.scalars(select(lab_values.c.parameter).order_by(lab_values.c.position))).all()
    return results, values


@pytest.fixture
async def store_tables(database: Database) -> None:
    await create_tables(database, [metadata])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("store_tables")
async def test_any_order_and_any_repeats_end_alike(database: Database, seed: int) -> None:
    """Whatever the order of events and however often each comes, the newest version is what is kept, whole."""
    draw = random.Random(seed)
    events = [*VERSIONS, *draw.choices(VERSIONS, k=4)]
    draw.shuffle(events)
    for event in events:
        await handle(database, event)
    assert await kept(database) == ([("e3", VERSIONS[3].occurred_at)], ["3.0", "3.1", "3.2"])


@pytest.mark.usefixtures("store_tables")
async def test_versions_at_the_same_time(database: Database) -> None:
    """Handled by many at once, the versions of a lab result never mix."""

    async def patiently(event: LabResultEvent) -> None:
        for _ in range(20):
            try:
                return await handle(database, event)
            except DatabaseError:  # two transactions met: a worker begins again
                await asyncio.sleep(0.01)
        raise AssertionError

    for _ in range(5):
        await asyncio.gather(*(patiently(event) for event in VERSIONS))
        assert await kept(database) == ([("e3", VERSIONS[3].occurred_at)], ["3.0", "3.1", "3.2"])


@pytest.mark.parametrize("event_class", [LabResultEvent, DailyDeviceEvent, NudgeEvent, ProgramEvent])
async def test_every_event_is_handled(database_url: str, event_class: type[ThriveEvent[Any]]) -> None:
    """Events of every shipped class are handled, with data and without."""
    async with TestConsumer(table, settings={"database.url": database_url}) as consumer:
        for _ in range(3):
            assert await consumer.send(sample(event_class)) == Handled()
        assert await consumer.send(sample(event_class, data=None)) == Handled()


async def test_tables_are_created_once(database: Database) -> None:
    """Missing tables are named and created, by many processes at once or none; then none is missing."""
    names = sorted(metadata.tables)
    assert await missing_tables(database, [metadata]) == names
    other = Database(str(database.engine.url)) if database.dialect == "sqlite" else database
    await other.open()
    created = await asyncio.gather(*(create_tables(one, [metadata]) for one in (database, other, database)))
    assert names in created
    assert await missing_tables(database, [metadata]) == []
    assert await create_tables(database, [metadata]) == []
    if other is not database:
        await other.close()


async def test_only_what_is_missing_is_created(database: Database) -> None:
    """A table that exists stays as it is, with its rows, though the handlers now say otherwise."""
    old, new = MetaData(), MetaData()
    Table("mine", old, Column("id", Integer, primary_key=True))
    Table("mine", new, Column("id", Integer, primary_key=True), Column("more", Integer))
    Table("other", new, Column("id", Integer, primary_key=True))
    await create_tables(database, [old])
    assert await create_tables(database, [old, new]) == ["other"]
    async with AsyncSession(database.engine) as session:
        assert (await session.execute(select(old.tables["mine"]))).all() == []


async def test_a_worker_does_not_start_without_its_handlers_tables(postgres_url: str, tmp_path: Path) -> None:
    """On PostgreSQL, where nothing is created unasked, a missing table is one line that says what to do."""
    loaded = load_settings(env={"CONSUMER_DATABASE__URL": postgres_url}, cwd=tmp_path)
    migrated = load_settings(
        env={"CONSUMER_DATABASE__URL": postgres_url, "CONSUMER_DATABASE__AUTO_MIGRATE": "true"}, cwd=tmp_path
    )
    async with opened_database(migrated.settings):
        pass
    with pytest.raises(SettingsError, match=r"no table daily_summaries.*consumer migrate"):
        await opened_database(loaded.settings, table).__aenter__()
    async with opened_database(migrated.settings, table):
        pass
    async with opened_database(loaded.settings, table):
        pass


def test_included_tables_bring_theirs() -> None:
    """A dispatch table has the database tables of those it includes, each once."""
    mine, theirs = MetaData(), MetaData()
    outer, inner, innermost = DispatchTable(metadata=mine), DispatchTable(metadata=theirs), DispatchTable()
    inner.include(innermost)
    outer.include(inner)
    other = DispatchTable(metadata=theirs)
    outer.include(other)
    assert outer.metadata == (mine, theirs)
    assert innermost.metadata == ()
