"""The shipped handlers of Sahha's events: what the health store holds after which of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, select

from consumer.events import ArchetypeEvent, BiomarkerEvent, DataLogEvent, SahhaEvent, ScoreEvent
from consumer.testing import DeadLettered, Duplicate, Handled, TestConsumer, sample
from handlers import table
from handlers.sahha_tables import (
    sahha_archetypes,
    sahha_biomarkers,
    sahha_data_logs,
    sahha_score_factors,
    sahha_scores,
)

NOON = datetime(2026, 3, 16, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = datetime.fromisoformat("2026-03-15T00:00:00+13:00")
NAMES = {"profile_id": "p1", "external_id": "u1"}


@pytest.fixture
async def consumer() -> AsyncIterator[TestConsumer]:
    # What is fixed here is older than what Sahha sends.
    async with TestConsumer(table, settings={"sahha.signature.max_age": "off"}) as opened:
        yield opened


async def rows(consumer: TestConsumer, of: Table, *columns: str) -> list[Any]:
    async with consumer.session() as session:
        found = (await session.execute(select(*(of.c[name] for name in columns)).order_by(*of.primary_key))).all()
    return [row[0] if len(columns) == 1 else tuple(row) for row in found]


def score(value: float | None, *, at: datetime = NOON, factors: tuple[str, ...] = (), **changes: Any) -> ScoreEvent:
    made = [{"id": "f", "name": name, "value": 1.5, "goal": 2, "unit": "hour", "score": 0.5} for name in factors]
    day = {"type": "sleep", "score_date_time": DAY, "created_at_utc": at, "factors": made}
    return sample(ScoreEvent, **(NAMES | day | {"score": value} | changes))


def biomarker(raw: str | float | None, value_type: str | None, **changes: Any) -> BiomarkerEvent:
    about = {"category": "activity", "type": "steps", "periodicity": "daily", "aggregation": "total", "unit": "count"}
    changes = NAMES | about | {"start_date_time": DAY, "created_at_utc": NOON} | changes
    return sample(BiomarkerEvent, raw_value=raw, value_type=value_type, **changes)


def archetype(value: str, **changes: Any) -> ArchetypeEvent:
    about = {"name": "sleep_pattern", "periodicity": "weekly", "data_type": "categorical", "ordinality": 0}
    changes = NAMES | about | {"start_date_time": DAY, "created_at_utc": NOON} | changes
    return sample(ArchetypeEvent, value=value, **changes)


async def test_a_score_is_kept_with_its_factors(consumer: TestConsumer) -> None:
    """A score makes one row with the day on the member's calendar, and one for each factor, in order."""
    event = score(0.75, factors=("sleep_debt", "sleep_duration"), state="medium", version=1)
    assert await consumer.send(event) == Handled()
    assert await rows(
        consumer, sahha_scores, "profile_id", "external_id", "type", "score_date_time", "day", "score", "state"
    ) == [("p1", "u1", "sleep", DAY, date(2026, 3, 15), 0.75, "medium")]
    assert await rows(consumer, sahha_scores, "occurred_at", "event_id", "version") == [(NOON, event.event_id, "1")]
    assert await rows(consumer, sahha_score_factors, "position", "name", "value", "goal", "unit") == [
        (0, "sleep_debt", 1.5, 2.0, "hour"),
        (1, "sleep_duration", 1.5, 2.0, "hour"),
    ]


async def test_a_score_computed_again_replaces_the_first(consumer: TestConsumer) -> None:
    """What was created last counts, with its factors and no others, also if it comes first."""
    new, old = score(0.4, at=NOON + HOUR, factors=("b",)), score(0.9, factors=("a", "b", "c"))
    for event in (old, new):
        await consumer.send(event)
    assert await rows(consumer, sahha_scores, "score") == [0.4]
    assert await rows(consumer, sahha_score_factors, "name") == ["b"]
    async with TestConsumer(table, settings={"sahha.signature.max_age": "off"}) as other:
        for event in (new, old):
            assert await other.send(event) == Handled()
        assert await rows(other, sahha_score_factors, "name") == ["b"]


async def test_a_score_that_could_not_be_computed_is_kept(consumer: TestConsumer) -> None:
    """Null as a score and a state is a fact too, and replaces what was there before."""
    await consumer.send(score(0.5))
    assert await consumer.send(score(None, at=NOON + HOUR, state=None)) == Handled()
    assert await rows(consumer, sahha_scores, "score", "state") == [(None, None)]


async def test_a_factor_without_a_name_has_its_id_for_one(consumer: TestConsumer) -> None:
    """Sahha does not promise a name; of some factors the id is the name."""
    await consumer.send(score(0.5, factors=(None,)))  # type: ignore[arg-type]
    assert await rows(consumer, sahha_score_factors, "name") == ["f"]


async def test_types_days_and_members_do_not_share_rows(consumer: TestConsumer) -> None:
    """A score is one of its member, type and day."""
    for changes in ({}, {"type": "activity"}, {"score_date_time": DAY + timedelta(days=1)}, {"profile_id": "p2"}):
        await consumer.send(score(0.5, **changes))
    assert len(await rows(consumer, sahha_scores, "score")) == 4


@pytest.mark.parametrize(
    ("raw", "value_type", "decoded"),
    [
        ("10000", "integer", (10_000, None, None)),
        ("0.972", "double", (0.972, None, None)),
        (384, "integer", (384, None, None)),
        ("2026-03-14T23:08+13:00", "datetime", (None, datetime(2026, 3, 14, 10, 8, tzinfo=UTC), None)),
        ("good", "text", (None, None, "good")),
        ("many", "integer", (None, None, "many")),
        ("12", None, (None, None, "12")),
        (None, "integer", (None, None, None)),
    ],
)
async def test_a_biomarkers_value_is_decoded_and_kept_raw(
    consumer: TestConsumer, raw: Any, value_type: str | None, decoded: tuple[Any, ...]
) -> None:
    """A value is in the column that fits it, and always as Sahha wrote it."""
    assert await consumer.send(biomarker(raw, value_type)) == Handled()
    assert await rows(consumer, sahha_biomarkers, "value_number", "value_time", "value_text") == [decoded]
    assert await rows(consumer, sahha_biomarkers, "raw_value") == [None if raw is None else str(raw)]


async def test_the_newest_biomarker_of_a_period_counts(consumer: TestConsumer) -> None:
    """A later value of one period replaces the earlier; another period or another way to sum up is another row."""
    for raw, changes in (
        ("2", {"created_at_utc": NOON + HOUR}),
        ("1", {}),
        ("3", {"aggregation": "average"}),
        ("4", {"start_date_time": DAY + HOUR}),
        ("5", {"periodicity": None, "aggregation": None}),
    ):
        assert await consumer.send(biomarker(raw, "integer", **changes)) == Handled()
    assert sorted(await rows(consumer, sahha_biomarkers, "raw_value")) == ["2", "3", "4", "5"]


async def test_the_newest_archetype_of_a_period_counts(consumer: TestConsumer) -> None:
    """As for biomarkers."""
    for value, changes in (
        ("new", {"created_at_utc": NOON + HOUR}),
        ("old", {}),
        ("month", {"periodicity": "monthly"}),
    ):
        assert await consumer.send(archetype(value, **changes)) == Handled()
    assert await rows(consumer, sahha_archetypes, "periodicity", "value", "data_type", "ordinality") == [
        ("monthly", "month", "categorical", 0.0),
        ("weekly", "new", "categorical", 0.0),
    ]


async def test_each_reading_is_kept_once(consumer: TestConsumer) -> None:
    """A reading is one row under its own id, whatever event brought it; the newest event about it counts."""

    def logs(at: datetime, **values: float) -> DataLogEvent:
        entries = [
            {"id": name, "value": value, "recordingMethod": "RECORDING_METHOD_UNKNOWN"}
            for name, value in values.items()
        ]
        return sample(DataLogEvent, **NAMES, data_logs=entries, received_at_utc=at, log_type="heart")

    for event in (logs(NOON + HOUR, b=2, c=3), logs(NOON, a=1, b=1)):
        assert await consumer.send(event) == Handled()
    assert await rows(consumer, sahha_data_logs, "log_id", "value", "log_type", "recording_method") == [
        ("a", 1.0, "heart", "unknown"),
        ("b", 2.0, "heart", "unknown"),
        ("c", 3.0, "heart", "unknown"),
    ]


async def test_readings_without_ids_are_kept_once_each(consumer: TestConsumer) -> None:
    """A reading that has no id is told from others by its event and place; none in an event is fine."""
    event = sample(DataLogEvent, **NAMES, data_logs=[{"value": 1, "parentId": ""}, {"value": 2}])
    assert await consumer.send(event) == Handled()
    assert await rows(consumer, sahha_data_logs, "value", "parent_id") == [(1.0, None), (2.0, None)]
    assert await consumer.send(sample(DataLogEvent, **NAMES, data_logs=[])) == Handled()


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        (score(0.5, profile_id=None), "no profile"),
        (biomarker("1", "integer", profile_id=None), "no profile"),
        (archetype("a", profile_id=None), "no profile"),
        (sample(DataLogEvent, profile_id=None), "no profile"),
        (biomarker("1", "integer", start_date_time=None), "startDateTime"),
        (archetype("a", start_date_time=None), "startDateTime"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_what_cannot_be_stored_is_rejected(consumer: TestConsumer, event: SahhaEvent, detail: str) -> None:
    """An event of nobody, or about no known time, becomes a dead letter that says so."""
    outcome = await consumer.send(event)
    assert isinstance(outcome, DeadLettered)
    assert outcome.reason == "rejected"
    assert detail in (outcome.detail or "")


async def test_a_body_without_an_external_id_is_kept(consumer: TestConsumer) -> None:
    """Its member is the signed profile's; the header beside the body is not believed."""
    assert await consumer.send(score(0.5, external_id=None)) == Handled()
    assert await rows(consumer, sahha_scores, "profile_id", "external_id") == [("p1", None)]


async def test_a_result_without_a_time_of_its_own_is_kept(consumer: TestConsumer) -> None:
    """It counts from when the queue accepted it, and does not come twice."""
    before = datetime.now(UTC)
    event = score(0.5, created_at_utc=None)
    assert await consumer.send(event) == Handled()
    assert await consumer.send(event) == Duplicate()
    (at,) = await rows(consumer, sahha_scores, "occurred_at")
    assert before <= at <= datetime.now(UTC)
