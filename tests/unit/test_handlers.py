"""The shipped handlers: what the health store holds after which events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from consumer.events import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, ThriveEvent
from consumer.models.thrive import HealthAction, LabResult, LabValue, NudgeCard
from consumer.testing import DeadLettered, Duplicate, Handled, TestConsumer, sample
from handlers import table
from handlers.tables import daily_summaries, lab_results, lab_values, metadata, nudges, to_fetch

NOON = datetime(2026, 3, 16, 12, tzinfo=UTC)


@pytest.fixture
async def consumer() -> AsyncIterator[TestConsumer]:
    async with TestConsumer(table) as opened:
        yield opened


async def rows(consumer: TestConsumer, of: Table, *columns: str) -> list[Any]:
    wanted = [of.c[name] for name in columns] or list(of.c)
    async with consumer.session() as session:
        found = (await session.execute(select(*wanted).order_by(*of.primary_key))).all()
    return [row[0] if len(columns) == 1 else tuple(row) for row in found]


def lab(values: list[str], *, event_id: str, at: datetime, title: str = "Panel") -> LabResultEvent:
    domain = {"domain_name": "Domain", "values": [{"parameter": name, "value": 1.5} for name in values]}
    data = LabResult.model_validate({"lab_result_id": "lab-1", "title": title, "domains": [domain]})
    return sample(LabResultEvent, user_id="u1", event_id=event_id, occurred_at=at, data=data)


async def test_a_lab_result_is_kept_with_its_values(consumer: TestConsumer) -> None:
    """A lab result makes one row, and one for each value, in order, with its unit and range."""
    event = sample(LabResultEvent, user_id="u1")
    assert await consumer.send(event) == Handled()
    assert event.data is not None
    values: list[LabValue] = [value for domain in event.data.domains for value in domain.values]
    (kept,) = await rows(consumer, lab_results, "user_id", "lab_result_id", "test_date", "event_id", "occurred_at")
    assert kept == ("u1", event.data.lab_result_id, event.data.test_date, event.event_id, event.occurred_at)
    assert await rows(consumer, lab_values, "parameter", "value", "unit", "low") == [
        (value.parameter, value.value, value.unit, value.reference_range.low if value.reference_range else None)
        for value in values
    ]


async def test_a_newer_lab_result_replaces_all_values(consumer: TestConsumer) -> None:
    """The values of an older version of a lab result are gone once a newer one has come."""
    await consumer.send(lab(["A", "B", "C"], event_id="1", at=NOON))
    await consumer.send(lab(["B"], event_id="0", at=NOON + timedelta(seconds=1), title="New"))
    assert await rows(consumer, lab_results, "title", "event_id") == [("New", "0")]
    assert await rows(consumer, lab_values, "parameter") == ["B"]


async def test_an_older_lab_result_changes_nothing(consumer: TestConsumer) -> None:
    """An event that comes late is handled, and leaves the newer version as it is."""
    await consumer.send(lab(["B"], event_id="0", at=NOON + timedelta(microseconds=1)))
    assert await consumer.send(lab(["A"], event_id="9", at=NOON)) == Handled()
    assert await rows(consumer, lab_values, "parameter") == ["B"]


async def test_the_event_id_breaks_a_tie(consumer: TestConsumer) -> None:
    """Of two events of the same instant the one with the greater id wins, in either order."""
    for order in ("12", "21"):
        async with TestConsumer(table) as fresh:
            for event_id in order:
                await fresh.send(lab([event_id], event_id=event_id, at=NOON))
            assert await rows(fresh, lab_values, "parameter") == ["2"]


async def test_offsets_do_not_confuse_the_order(consumer: TestConsumer) -> None:
    """Times are compared as instants, whatever offset they were written with."""
    newer = datetime.fromisoformat("2026-03-16T10:00:00-05:00")
    await consumer.send(lab(["newer"], event_id="1", at=newer))
    await consumer.send(lab(["older"], event_id="2", at=datetime.fromisoformat("2026-03-16T15:30:00+01:00")))
    assert await rows(consumer, lab_values, "parameter") == ["newer"]
    assert await rows(consumer, lab_results, "occurred_at") == [newer]


async def test_members_do_not_share_rows(consumer: TestConsumer) -> None:
    """The same resource id of two members is two resources."""
    for user_id in ("u1", "u2"):
        await consumer.send(sample(LabResultEvent, user_id=user_id, data=LabResult(lab_result_id="lab-1")))
    assert await rows(consumer, lab_results, "user_id") == ["u1", "u2"]


async def test_a_day_of_each_device_is_kept(consumer: TestConsumer) -> None:
    """A daily summary makes one row for its member, day and device."""
    event = sample(DailyDeviceEvent, user_id="u1")
    assert event.data is not None
    assert event.data.activity_summary is not None
    await consumer.send(event)
    (kept,) = await rows(consumer, daily_summaries, "day", "device", "steps")
    assert kept == (event.data.date, event.data.provider_slug, event.data.activity_summary.steps)
    assert type(kept[0]) is date


async def test_cards_and_health_actions_are_kept(consumer: TestConsumer) -> None:
    """A nudge is kept under its kind, with the text to show."""
    card = NudgeCard.model_validate({"card_item_id": "c1", "item_header": "Walk", "item_body": {"main": "Now"}})
    await consumer.send(sample(NudgeEvent, user_id="u1", data=card))
    action = HealthAction(health_action_id="a1", title="Stretch", description="Five minutes", scheduled_at=NOON)
    await consumer.send(sample(NudgeEvent, user_id="u1", data=action))
    assert await rows(consumer, nudges, "kind", "nudge_id", "title", "text", "scheduled_at") == [
        ("card", "c1", "Walk", "Now", None),
        ("health_action", "a1", "Stretch", "Five minutes", NOON),
    ]


@pytest.mark.parametrize(
    ("event_class", "target", "kind"),
    [
        (LabResultEvent, {"type": "lab_result", "id": "x"}, "lab_result"),
        (DailyDeviceEvent, {"type": "daily_summary", "id": "x"}, "daily_summary"),
        (NudgeEvent, {"type": "card", "id": "x"}, "card"),
        (NudgeEvent, {"type": "health_action", "id": "x"}, "health_action"),
        (ProgramEvent, {"type": "program", "id": "x"}, "program"),
    ],
)
async def test_an_event_without_data_is_noted(
    consumer: TestConsumer, event_class: type[ThriveEvent[Any]], target: dict[str, str], kind: str
) -> None:
    """Under the basic contract nothing is lost: what must be fetched is noted, once for each resource."""
    for event_id in ("1", "2"):
        event = sample(event_class, user_id="u1", event_id=event_id, occurred_at=NOON, target=target, data=None)
        assert await consumer.send(event) == Handled()
    assert await rows(consumer, to_fetch, "kind", "resource_id", "event_id") == [(kind, "x", "2")]


async def test_data_take_back_the_note(consumer: TestConsumer) -> None:
    """Once an event brings what an earlier one only announced, it need not be fetched."""
    target = {"type": "lab_result", "id": "lab-1"}
    about = {"user_id": "u1", "target": target}
    await consumer.send(sample(LabResultEvent, **about, event_id="1", occurred_at=NOON, data=None))
    assert await rows(consumer, to_fetch, "resource_id") == ["lab-1"]
    await consumer.send(sample(LabResultEvent, **about, event_id="2", occurred_at=NOON, data=LabResult()))
    assert await rows(consumer, to_fetch, "resource_id") == []


async def test_a_program_is_always_to_be_fetched(consumer: TestConsumer) -> None:
    """Priorities are in no event, so a program event with data is noted as well, and one without any id too."""
    await consumer.send(sample(ProgramEvent, user_id="u1"))
    await consumer.send(sample(ProgramEvent, user_id="u2", target=None, data=None))
    assert await rows(consumer, to_fetch, "kind") == ["program", "program"]


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        (sample(LabResultEvent, user_id=None), "no user"),
        (sample(LabResultEvent, data=LabResult(), target=None), "an id"),
        (sample(DailyDeviceEvent, data={}), "no date"),
        (sample(NudgeEvent, data=None, target={"type": "something new", "id": "x"}), "target.type"),
        (sample(LabResultEvent, data=None, target=None), "target.id is missing"),
    ],
)
async def test_what_cannot_be_stored_is_rejected(consumer: TestConsumer, event: ThriveEvent[Any], detail: str) -> None:
    """An event that names no member, resource or day, nor what to fetch, becomes a dead letter that says so."""
    outcome = await consumer.send(event)
    assert isinstance(outcome, DeadLettered)
    assert outcome.reason == "rejected"
    assert detail in (outcome.detail or "")


async def test_an_event_without_a_time_is_kept(consumer: TestConsumer) -> None:
    """An event that does not say when it happened counts from when the queue accepted it."""
    before = datetime.now(UTC)
    await consumer.send(sample(LabResultEvent, occurred_at=None))
    (at,) = await rows(consumer, lab_results, "occurred_at")
    assert before <= at <= datetime.now(UTC)


async def test_a_duplicate_changes_nothing(consumer: TestConsumer) -> None:
    """The same event twice is one set of rows."""
    event = sample(LabResultEvent)
    assert await consumer.send(event) == Handled()
    kept = await rows(consumer, lab_values)
    assert await consumer.send(event) == Duplicate()
    assert await rows(consumer, lab_values) == kept


async def test_every_table_says_whose_its_rows_are_and_where_from(consumer: TestConsumer) -> None:
    """All tables are made; each row says whose it is, and which event wrote it unless it is part of one that does."""
    parts = {"lab_values": "lab_results", "priorities": "priority_lists", "sahha_score_factors": "sahha_scores"}
    async with consumer.session() as session:
        for kept in metadata.sorted_tables:
            assert await session.scalar(select(func.count()).select_from(kept)) == 0
            keys, columns = set(kept.primary_key.columns.keys()), set(kept.columns.keys())
            assert "user_id" in keys or ("profile_id" in keys and "external_id" in columns)
            if kept.name in parts:
                assert set(metadata.tables[parts[kept.name]].primary_key.columns.keys()) == keys - {"position"}
            else:
                assert {"occurred_at", "event_id"} <= columns
