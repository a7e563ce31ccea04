"""The health store and handlers' tables on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import itertools
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
from consumer.events import (
    ArchetypeEvent,
    BiomarkerEvent,
    DailyDeviceEvent,
    DataLogEvent,
    Event,
    LabResultEvent,
    NudgeEvent,
    ProgramEvent,
    ScoreEvent,
)
from consumer.migrations import create_tables, missing_tables
from consumer.models.thrive import LabResult, Priority
from consumer.settings_loading import load_settings
from consumer.testing import Handled, TestConsumer, make_context, sample
from handlers import sahha_store, store, table
from handlers.sahha_tables import (
    sahha_archetypes,
    sahha_biomarkers,
    sahha_data_logs,
    sahha_score_factors,
    sahha_scores,
)
from handlers.tables import lab_results, lab_values, metadata, priorities, priority_lists, to_fetch

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


THRIVE = (LabResultEvent, DailyDeviceEvent, NudgeEvent, ProgramEvent)
SAHHA = (ScoreEvent, BiomarkerEvent, ArchetypeEvent, DataLogEvent)


async def test_every_event_is_handled(database_url: str) -> None:
    """Events of every class that is shipped are handled, with data and without; none is forgotten."""
    assert table.event_types == {*THRIVE, *SAHHA}
    changes = {"database.url": database_url, "sahha.signature.max_age": "off"}
    async with TestConsumer(table, settings=changes) as consumer:
        for event_class in (*THRIVE, *SAHHA):
            for _ in range(3):
                assert await consumer.send(sample(event_class)) == Handled()
        for event_class in THRIVE:
            assert await consumer.send(sample(event_class, data=None)) == Handled()


def computed(number: int, *, at: datetime, profile: str) -> Sequence[Event]:
    """Events of every class of Sahha's about the same things of a profile, with that number for a value."""
    whose = {"profile_id": profile, "external_id": f"member of {profile}"}
    made = {**whose, "created_at_utc": at, "event_id": f"e{number}"}
    period = {"periodicity": "daily", "start_date_time": NOON, "end_date_time": NOON}
    factors = [{"name": f"{number}.{index}"} for index in range(number)]
    logs = [{"id": name, "value": number} for name in ("a", "b")]
    return (
        sample(ScoreEvent, **made, type="sleep", score_date_time=NOON, score=number, factors=factors),
        sample(BiomarkerEvent, **made, **period, category="c", type="t", aggregation="total", raw_value=str(number)),
        sample(ArchetypeEvent, **made, **period, name="n", value=str(number)),
        sample(DataLogEvent, **whose, event_id=f"e{number}", received_at_utc=at, data_logs=logs),
    )


async def keep(session: AsyncSession, event: Event) -> None:
    """As the handler of its class would."""
    context = make_context(session=session)
    match event:
        case ScoreEvent():
            await sahha_store.keep_score(context, event)
        case BiomarkerEvent():
            await sahha_store.keep_biomarker(context, event)
        case ArchetypeEvent():
            await sahha_store.keep_archetype(context, event)
        case DataLogEvent():
            await sahha_store.keep_data_logs(context, event)
        case _:
            raise AssertionError


@pytest.mark.usefixtures("store_tables")
async def test_results_of_sahhas_may_come_in_any_order(database: Database) -> None:
    """Any permutation of computed results, each given twice, ends in the newest; the event id breaks a tie."""
    orders = list(itertools.permutations([(1, 0), (4, 1), (2, 2), (3, 2)]))
    async with AsyncSession(database.engine) as session, session.begin():
        for place, order in enumerate(orders):
            for number, seconds in (*order, *order):
                for event in computed(number, at=NOON + timedelta(seconds=seconds), profile=f"p{place}"):
                    await keep(session, event)

    async def seen(*columns: Column[Any]) -> set[Any]:
        (whose, *_) = columns
        found = (await session.execute(select(*columns).order_by(whose))).all()
        assert {row[0] for row in found} == {f"p{place}" for place in range(len(orders))}
        return {tuple(row[1:]) for row in found}

    async with AsyncSession(database.engine) as session:
        scores, factors, logs = sahha_scores.c, sahha_score_factors.c, sahha_data_logs.c
        at = NOON + timedelta(seconds=2)
        assert await seen(scores.profile_id, scores.score, scores.occurred_at, scores.event_id) == {(3.0, at, "e3")}
        assert await seen(factors.profile_id, factors.position, factors.name) == {(0, "3.0"), (1, "3.1"), (2, "3.2")}
        assert await seen(sahha_biomarkers.c.profile_id, sahha_biomarkers.c.raw_value) == {("3",)}
        assert await seen(sahha_archetypes.c.profile_id, sahha_archetypes.c.value) == {("3",)}
        assert await seen(logs.profile_id, logs.log_id, logs.value) == {("a", 3.0), ("b", 3.0)}


@pytest.mark.usefixtures("store_tables")
async def test_lists_of_priorities_may_come_in_any_order(database: Database) -> None:
    """Whatever the order, the newest list is kept, whole, and nothing is left to be fetched; it may be empty."""

    async def handled(session: AsyncSession, user_id: str, number: int) -> None:
        at = NOON + timedelta(seconds=number)
        event = sample(ProgramEvent, user_id=user_id, event_id=str(number), occurred_at=at, target=None)
        context = make_context(session=session)
        if number == 0:
            await store.fetch_later(context, event, "program")
            return
        found = [Priority(user_priority_id=f"{number}.{rank}", rank=rank) for rank in range(number % 3)]
        await store.keep_priorities(context, event, found)
        await store.need_not_fetch(context, event, "program")

    async with AsyncSession(database.engine) as session, session.begin():
        for order in itertools.permutations((1, 2, 3)):
            for number in (0, *order):
                await handled(session, f"empty {order}", number)
                await handled(session, f"full {order}", number if number < 3 else 5)
    async with AsyncSession(database.engine) as session:
        assert set(await session.scalars(select(priority_lists.c.event_id))) == {"3", "5"}
        assert set(await session.scalars(select(priorities.c.priority_id))) == {"5.0", "5.1"}
        assert len((await session.scalars(select(priorities.c.position))).all()) == 12
        assert (await session.scalars(select(to_fetch.c.event_id))).all() == []


@pytest.mark.usefixtures("store_tables")
async def test_a_note_of_something_newer_stays(database: Database) -> None:
    """What was announced after the event that is handled now is still to be fetched, also in the same instant."""
    async with AsyncSession(database.engine) as session, session.begin():
        context = make_context(session=session)
        for noted, handled in (("2", "1"), ("2", "2"), ("2", "3")):
            about = {"target": {"type": "lab_result", "id": f"{noted}{handled}"}, "user_id": "u1", "occurred_at": NOON}
            await store.fetch_later(context, sample(LabResultEvent, **about, event_id=noted), "lab_result")
            await store.need_not_fetch(context, sample(LabResultEvent, **about, event_id=handled), "lab_result")
        assert (await session.scalars(select(to_fetch.c.resource_id))).all() == ["21"]


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
