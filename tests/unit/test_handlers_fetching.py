"""The shipped handlers and the platform's API: what they fetch, what they report, and what if they cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from sqlalchemy import Table, insert, select

from consumer.clients.http import HttpOptions
from consumer.clients.thrive import ThriveClient
from consumer.errors import SettingsError
from consumer.events import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent
from consumer.sandbox.faults import FaultRule
from consumer.sandbox.members import Member
from consumer.sandbox.server import Sandbox
from consumer.testing import DeadLettered, Handled, TestConsumer, WillRetry, sample
from handlers import table
from handlers.fetching import REPORT_CARDS_AS
from handlers.tables import daily_summaries, lab_results, lab_values, nudges, priorities, to_fetch
from tests.servers.scripted import Seen, scripted


@pytest.fixture(autouse=True)
def _nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REPORT_CARDS_AS, raising=False)


@pytest.fixture
async def thrive(sandbox: Sandbox) -> AsyncIterator[ThriveClient]:
    options = HttpOptions(attempts=1)
    async with ThriveClient(base_url=sandbox.url, tenant_key=sandbox.tenant_key, options=options) as client:
        yield client


@pytest.fixture
async def consumer(thrive: ThriveClient) -> AsyncIterator[TestConsumer]:
    async with TestConsumer(table, thrive=thrive) as opened:
        yield opened


@pytest.fixture
def member(sandbox: Sandbox) -> Member:
    found = sandbox.world.find(sandbox.world.members[0])
    assert found is not None
    return found


async def rows(consumer: TestConsumer, of: Table, *columns: str) -> list[Any]:
    async with consumer.session() as session:
        found = (await session.execute(select(*(of.c[name] for name in columns)).order_by(*of.primary_key))).all()
    return [row[0] if len(columns) == 1 else tuple(row) for row in found]


def card_event(member: Member, *, inline: bool = False) -> tuple[NudgeEvent, dict[str, Any]]:
    """An event about the member's first card, and the card as the platform has it."""
    card = member.cards.all()[0]
    target = {"type": "card", "id": card["card_item_id"]}
    data = dict(card) if inline else None
    return sample(NudgeEvent, user_id=member.user_id, target=target, data=data), card


async def test_what_events_come_without_is_fetched(consumer: TestConsumer, member: Member) -> None:
    """Under the basic contract labs, cards, health actions and days are fetched and kept; nothing is left to fetch."""
    lab, action = member.labs.all()[0], member.health_actions.all()[0]
    card_event_, card = card_event(member)
    day = max(row["activity_summary"]["date"] for row in member.days.all())
    for event in (
        sample(
            LabResultEvent, user_id=member.user_id, target={"type": "lab_result", "id": lab["lab_result_id"]}, data=None
        ),
        card_event_,
        sample(
            NudgeEvent,
            user_id=member.user_id,
            target={"type": "health_action", "id": action["health_action_id"]},
            data=None,
        ),
        sample(
            DailyDeviceEvent,
            user_id=member.user_id,
            target={"type": "daily_summary", "id": "any", "date": day},
            data=None,
        ),
    ):
        assert await consumer.send(event) == Handled()
    assert await rows(consumer, lab_results, "user_id", "lab_result_id", "title") == [
        (member.user_id, lab["lab_result_id"], lab["title"])
    ]
    assert len(await rows(consumer, lab_values, "position")) == sum(len(one["values"]) for one in lab["domains"])
    assert await rows(consumer, nudges, "kind", "title") == [
        ("card", card["item_header"]),
        ("health_action", action["title"]),
    ]
    ((kept_day, device, steps),) = await rows(consumer, daily_summaries, "day", "device", "steps")
    assert (kept_day.isoformat(), device) == (day, "")
    assert steps is not None
    assert await rows(consumer, to_fetch, "kind") == []


async def test_priorities_are_fetched_for_every_program_event(consumer: TestConsumer, member: Member) -> None:
    """They are in no event, so also for one with data; a newer list replaces the older one as a whole."""
    event = sample(ProgramEvent, user_id=member.user_id)
    assert event.data is not None
    assert await consumer.send(event) == Handled()
    before = await rows(consumer, priorities, "position", "title")
    first, *others = member.priorities.all()
    assert before == [(place, one["title"]) for place, one in enumerate([first, *others])]
    first["title"] = "Another"
    for one in others:
        member.priorities.drop(one["user_priority_id"])
    await consumer.send(sample(ProgramEvent, user_id=member.user_id, occurred_at=datetime.now(UTC)))
    assert await rows(consumer, priorities, "position", "title") == [(0, "Another")]


async def test_a_key_takes_back_what_was_noted_without_one(
    sandbox: Sandbox, thrive: ThriveClient, consumer: TestConsumer, member: Member
) -> None:
    """Without a tenant key everything is noted; once there is one, the next event about a thing has it fetched."""
    event, _ = card_event(member)
    program = sample(ProgramEvent, user_id=member.user_id, data=None)
    thrive.replace_tenant_key(None)
    for one in (event, program):
        assert await consumer.send(one) == Handled()
    assert await rows(consumer, to_fetch, "kind") == ["card", "program"]
    thrive.replace_tenant_key(sandbox.tenant_key)
    now = datetime.now(UTC)
    for number, one in enumerate((event, program)):
        later = one.model_copy(update={"event_id": str(number), "occurred_at": now})
        assert await consumer.send(later) == Handled()
    assert await rows(consumer, to_fetch, "kind") == []
    assert await rows(consumer, nudges, "kind") == ["card"]
    assert await rows(consumer, priorities, "position") == [0, 1, 2]


async def test_what_the_platform_no_longer_has_is_rejected(consumer: TestConsumer, member: Member) -> None:
    """A resource, or a member, that is not there the third time either becomes a dead letter: waiting does not help."""
    gone = sample(LabResultEvent, user_id=member.user_id, target={"type": "lab_result", "id": "gone"}, data=None)
    for event in (gone, sample(ProgramEvent, user_id=str(UUID(int=1)))):
        for _ in range(2):
            assert isinstance(await consumer.send(event), WillRetry)
        outcome = await consumer.send(event)
        assert isinstance(outcome, DeadLettered)
        assert (outcome.reason, outcome.detail) == ("rejected", "the platform no longer has it")


async def test_a_platform_that_is_down_costs_no_attempt(
    sandbox: Sandbox, consumer: TestConsumer, member: Member
) -> None:
    """While the API fails nothing is written and the event comes back, also more often than it may fail."""
    event, _ = card_event(member)
    sandbox.parts.faults.replace([FaultRule(path="/v1/users", error_rate=1, status=503)])
    for _ in range(10):
        assert isinstance(await consumer.send(event), WillRetry)
    assert await rows(consumer, nudges, "kind") == []
    sandbox.parts.faults.replace([])
    assert await consumer.send(event) == Handled()
    assert consumer.dead_letters == []


async def test_an_event_may_be_faster_than_what_it_is_about(consumer: TestConsumer, member: Member) -> None:
    """What the platform does not have yet is asked for again, and kept once it is there."""
    lab = member.labs.all()[0]
    lab_result_id = lab["lab_result_id"]
    event = sample(
        LabResultEvent, user_id=member.user_id, target={"type": "lab_result", "id": lab_result_id}, data=None
    )
    member.labs.drop(lab_result_id)
    assert isinstance(await consumer.send(event), WillRetry)
    member.labs.put(lab_result_id, lab)
    assert await consumer.send(event) == Handled()
    assert await rows(consumer, lab_results, "lab_result_id") == [lab_result_id]


async def test_a_platform_that_hangs_costs_no_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    """One that takes the request and says nothing is gone, too, before the handler's own time is up."""
    settings = {"max_attempts": 1, "sources.test.handler_timeout": 1.0}

    async def answer(_: Seen) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with (
        scripted(answer) as server,
        ThriveClient(base_url=server.url, tenant_key="a key") as client,
        TestConsumer(table, thrive=client, settings=settings) as consumer,
    ):
        for cls in (LabResultEvent, ProgramEvent, NudgeEvent):
            assert isinstance(await consumer.send(sample(cls, data=None)), WillRetry)
    assert consumer.dead_letters == []
    assert capsys.readouterr().err == ""  # what a handler raises is printed, but for what it means to say


async def test_others_can_write_while_a_handler_fetches() -> None:
    """The call comes before the transaction: the one writer that SQLite allows is not kept waiting by a network."""

    async def answer(seen: Seen) -> web.Response:
        if seen.method == "POST":
            return web.json_response({"data": {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}})
        async with consumer.session() as session:
            row = {"user_id": "u", "kind": "k", "resource_id": "", "occurred_at": datetime.now(UTC), "event_id": "e"}
            await session.execute(insert(to_fetch), row)
            await session.commit()
        return web.json_response({"data": {"lab_result_id": "lab-1", "title": "Fetched"}})

    async with (
        scripted(answer) as server,
        ThriveClient(base_url=server.url, tenant_key="a key", options=HttpOptions(attempts=1)) as client,
        TestConsumer(table, thrive=client) as consumer,
    ):
        assert await consumer.send(sample(LabResultEvent, data=None)) == Handled()
        assert await rows(consumer, lab_results, "title") == ["Fetched"]
        assert await rows(consumer, to_fetch, "kind") == ["k"]


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("wanted", ["opened", "dismissed", "completed"])
async def test_a_card_is_reported_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, thrive: ThriveClient, member: Member, wanted: str, *, inline: bool
) -> None:
    """A pending card is reported, by the way its status may go, and kept as it is then; a second event adds nothing."""
    monkeypatch.setenv(REPORT_CARDS_AS, wanted)
    event, card = card_event(member, inline=inline)
    async with TestConsumer(table, thrive=thrive) as consumer:
        for event_id in ("1", "2"):
            assert await consumer.send(event.model_copy(update={"event_id": event_id})) == Handled()
            assert card["interaction_status"] == wanted
            assert await rows(consumer, nudges, "status") == [wanted]


async def test_nothing_is_reported_unless_asked_for(consumer: TestConsumer, member: Member) -> None:
    """Without the variable a card stays as it is."""
    event, card = card_event(member)
    assert await consumer.send(event) == Handled()
    assert card["interaction_status"] == "pending"
    assert await rows(consumer, nudges, "status") == ["pending"]


async def test_what_a_member_did_stays(monkeypatch: pytest.MonkeyPatch, thrive: ThriveClient, member: Member) -> None:
    """An event that says pending is not believed: a card that was dismissed meanwhile is kept, and left, as that."""
    monkeypatch.setenv(REPORT_CARDS_AS, "completed")
    event, card = card_event(member, inline=True)
    card["interaction_status"] = "dismissed"
    async with TestConsumer(table, thrive=thrive) as consumer:
        assert await consumer.send(event) == Handled()
        assert await rows(consumer, nudges, "status") == ["dismissed"]
    assert card["interaction_status"] == "dismissed"


async def test_half_a_report_is_completed(
    monkeypatch: pytest.MonkeyPatch, thrive: ThriveClient, member: Member
) -> None:
    """An attempt that ended between its two reports left a card opened; the next one goes on from there."""
    monkeypatch.setenv(REPORT_CARDS_AS, "completed")
    event, card = card_event(member)
    card["interaction_status"] = "opened"
    async with TestConsumer(table, thrive=thrive) as consumer:
        assert await consumer.send(event) == Handled()
    assert card["interaction_status"] == "completed"


async def test_a_report_that_fails_is_made_again(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, thrive: ThriveClient, member: Member
) -> None:
    """Nothing is kept of a card that could not be reported, until it could."""
    monkeypatch.setenv(REPORT_CARDS_AS, "opened")
    event, card = card_event(member)
    sandbox.parts.faults.replace([FaultRule(method="PATCH", error_rate=1, status=503, times=1)])
    async with TestConsumer(table, thrive=thrive) as consumer:
        assert isinstance(await consumer.send(event), WillRetry)
        assert (card["interaction_status"], await rows(consumer, nudges, "kind")) == ("pending", [])
        assert await consumer.send(event) == Handled()
    assert card["interaction_status"] == "opened"


async def test_without_a_key_a_card_is_kept_unreported(monkeypatch: pytest.MonkeyPatch, member: Member) -> None:
    """What came with the event is kept as it came."""
    monkeypatch.setenv(REPORT_CARDS_AS, "opened")
    event, _ = card_event(member, inline=True)
    async with TestConsumer(table) as consumer:
        assert await consumer.send(event) == Handled()
        assert await rows(consumer, nudges, "status") == ["pending"]


async def test_another_word_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, which names the variable and what is expected; an empty one is as good as none."""
    monkeypatch.setenv(REPORT_CARDS_AS, "seen")
    with pytest.raises(SettingsError, match=r"^HANDLERS_REPORT_CARDS_AS: expected opened, dismissed or completed"):
        await TestConsumer(table).__aenter__()
    monkeypatch.setenv(REPORT_CARDS_AS, "")
    async with TestConsumer(table) as consumer:
        assert await consumer.send(sample(NudgeEvent)) == Handled()
