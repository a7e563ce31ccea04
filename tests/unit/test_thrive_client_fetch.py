"""`ThriveClient.fetch`: what an event is about, from the event or from the API."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from aiohttp import web

from consumer.clients.thrive import ThriveClient
from consumer.errors import NotConfigured, NotFound
from consumer.events.thrive import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, ThriveEvent
from consumer.models.thrive import DailySummary, HealthAction, LabResult, NudgeCard, Program
from consumer.outcomes import Reject, Unavailable
from tests.servers.scripted import Scripted, scripted

SAMPLES = Path(__file__).parents[1] / "samples" / "thrive"
_USER = "/v1/users/u1"
_RANGE = "start_date=2026-03-15&end_date=2026-03-15&limit=100&offset=0"
ANSWERS = {
    f"{_USER}/labs/l1": {"lab_result_id": "l1", "status": "ready"},
    f"{_USER}/cards/c1": {"card_item_id": "c1", "interaction_status": "pending"},
    f"{_USER}/health-actions/h1": {"health_action_id": "h1"},
    f"{_USER}/program": {"program_id": "p1"},
    f"{_USER}/metrics/activity/summary?{_RANGE}": [
        {"date": "2026-03-14", "steps": 1},
        {"date": "2026-03-15", "steps": 2},
    ],
    f"{_USER}/metrics/sleep/summary?{_RANGE}": [],
    f"{_USER}/metrics/body/summary?{_RANGE}": [{"weight": 70}, {"weight": 71}],
}  # fmt: skip


class PartnersLab(LabResultEvent):
    """A subclass, as partners write them."""

    event_types: ClassVar[tuple[str, ...]] = ("partner.lab",)


class Journey(ThriveEvent[Program]):
    """Of a class nothing is known about."""


@asynccontextmanager
async def thrive(answers=ANSWERS, *, status=404):
    """A client, and the paths that were asked for, minting aside."""

    def answer(seen):
        if seen.target == "/v1/auth/token":
            return web.json_response({"data": {"access_token": "t", "expires_in": 3600}})
        if seen.target in answers:
            return web.json_response({"data": answers[seen.target]})
        return web.Response(status=status)

    async with scripted(answer) as server, ThriveClient(base_url=server.url, tenant_key="k") as client:
        yield client, server


def asked(server: Scripted) -> list[str]:
    return [seen.target for seen in server.requests if seen.target != "/v1/auth/token"]


def event(kind, **fields):
    return kind.model_validate({"event_id": "e1", "event_type": "t", "user_id": "u1", **fields})


async def test_inline_data_needs_neither_a_call_nor_a_key():
    inline = event(LabResultEvent, data={"lab_result_id": "inline"})
    client = ThriveClient(tenant_key=None)
    lab: LabResult = await client.fetch(inline)
    assert lab is inline.data
    with pytest.raises(NotConfigured):
        await client.fetch(inline, fresh=True)
    await client.close()


@pytest.mark.parametrize(
    ("about", "kind", "path"),
    [
        (event(LabResultEvent, target={"type": "lab_result", "id": "l1"}), LabResult, "/labs/l1"),
        (event(PartnersLab, target={"id": "l1"}), LabResult, "/labs/l1"),
        (event(NudgeEvent, target={"type": "card", "id": "c1"}), NudgeCard, "/cards/c1"),
        (event(NudgeEvent, target={"type": "health_action", "id": "h1"}), HealthAction, "/health-actions/h1"),
        (event(ProgramEvent), Program, "/program"),
    ],
)
async def test_an_event_without_data_is_one_call(about, kind, path):
    async with thrive() as (client, server):
        assert type(await client.fetch(about)) is kind
        assert asked(server) == [_USER + path]


async def test_a_fresh_copy_is_fetched_by_the_id_in_the_data_where_there_is_no_target():
    async with thrive() as (client, server):
        card = await client.fetch(event(NudgeEvent, data={"card_item_id": "c1"}), fresh=True)
        assert card.interaction_status == "pending"
        assert asked(server) == [f"{_USER}/cards/c1"]


@pytest.mark.parametrize(
    "fields",
    [
        {"occurred_at": "2026-03-15T23:59:59Z"},
        {"occurred_at": "2026-03-16T01:00:00+02:00"},
        {"occurred_at": "2026-03-16T08:00:00Z", "date": "2026-03-15"},
        {"occurred_at": "2026-03-16T08:00:00Z", "target": {"type": "day", "date": "2026-03-15"}},
        {"occurred_at": "2026-03-15T08:00:00Z", "date": "someday", "target": {"date": 20260316}},
    ],
)
async def test_a_day_of_device_data_is_its_summaries_together(fields):
    async with thrive() as (client, server):
        day: DailySummary = await client.fetch(event(DailyDeviceEvent, **fields))
        assert sorted(asked(server)) == sorted(path for path in ANSWERS if "/metrics/" in path)
    assert (str(day.date), day.activity_summary.steps, day.sleep_summary) == ("2026-03-15", 2, None)
    assert [row.weight for row in day.body_summary] == [70, 71]


async def test_one_summary_that_cannot_be_had_fails_the_day_as_what_it_is():
    rest = {path: answer for path, answer in ANSWERS.items() if "/sleep/" not in path}
    about = event(DailyDeviceEvent, date="2026-03-15")
    async with thrive(rest) as (client, _):
        with pytest.raises(NotFound):
            await client.fetch(about)
    async with thrive(rest, status=501) as (client, _):
        with pytest.raises(Unavailable):
            await client.fetch(about)


@pytest.mark.parametrize(
    ("about", "named"),
    [
        (event(LabResultEvent, user_id=None, target={"id": "l1"}), "user_id"),
        (event(LabResultEvent), "target.id"),
        (event(LabResultEvent, target={"id": ".."}), "target.id"),
        (event(LabResultEvent, user_id="", target={"id": "l1"}), "user_id"),
        (event(NudgeEvent, target={"type": "poem", "id": "x"}), "target.type"),
        (event(NudgeEvent, target={"type": "card"}), "target.id"),
        (event(DailyDeviceEvent), "occurred_at"),
        (event(ProgramEvent, user_id=None), "user_id"),
        (event(Journey), "Journey"),
    ],
)
async def test_an_event_that_names_nothing_to_fetch_is_rejected_without_a_call(about, named):
    async with thrive() as (client, server):
        with pytest.raises(Reject) as caught:
            await client.fetch(about)
        assert named in caught.value.detail
        assert server.requests == []


async def test_what_is_not_there_stays_not_found():
    async with thrive({}) as (client, _):
        with pytest.raises(NotFound):
            await client.fetch(event(LabResultEvent, target={"id": "gone"}))


async def test_the_sample_of_a_basic_nudge_can_be_fetched():
    body = json.loads((SAMPLES / "nudge-card-basic.json").read_text())
    path = f"/v1/users/{body['user_id']}/cards/{body['target']['id']}"
    async with thrive({path: {"card_item_id": body["target"]["id"]}}) as (client, _):
        assert (await client.fetch(NudgeEvent.model_validate(body))).card_item_id == body["target"]["id"]
