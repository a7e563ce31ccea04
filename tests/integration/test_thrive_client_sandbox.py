"""Thrive's client against the sandbox, which enforces what Thrive's documents say."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import aiohttp
import pytest
import stamina

from consumer.clients.thrive import ThriveClient
from consumer.clients.thrive_queues import queue_body
from consumer.errors import ApiError, NotFound
from consumer.events.thrive import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent
from consumer.models.thrive import HealthAction, NudgeCard
from consumer.outcomes import Unavailable
from consumer.sandbox.server import Sandbox

TODAY = datetime.now(UTC).date()


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[ThriveClient]:
    async with ThriveClient(base_url=sandbox.url, tenant_key=sandbox.tenant_key) as made:
        with stamina.set_testing(True, attempts=100, cap=True):
            yield made


@pytest.fixture
def user(sandbox: Sandbox) -> str:
    return sandbox.world.members[0]


async def control(sandbox: Sandbox, path: str, body: object) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{sandbox.url}/sandbox{path}", json=body) as answer:
        assert answer.status < 300, await answer.text()


async def test_a_members_life(client: ThriveClient):
    mine = str(uuid.uuid4())
    assert (await client.members.create(mine, first_name="Ada")).user_id == mine
    assert (await client.members.get(mine)).user_id == mine
    await client.members.update(mine, timezone="Europe/Berlin")
    assert (await client.health_profile(mine)).user_id == mine
    await client.members.delete(mine)
    with pytest.raises(NotFound):
        await client.members.get(mine)
    assert uuid.UUID((await client.members.create()).user_id)


async def test_a_create_repeated_with_its_key_makes_one(client: ThriveClient, user: str):
    when = datetime.now(UTC) + timedelta(days=1)
    both = [await client.health_actions.create(user, "Walk", "Once", when, idempotency_key="k1") for _ in range(2)]
    assert both[0].health_action_id == both[1].health_action_id


async def test_labs_are_listed_and_read(client: ThriveClient, user: str):
    labs = [lab async for lab in client.labs.list(user)]
    assert labs
    assert (await client.labs.get(user, labs[0].lab_result_id)).lab_result_id == labs[0].lab_result_id
    assert [lab async for lab in client.labs.list(user, limit=1)] == labs[:1]
    with pytest.raises(NotFound):
        await client.labs.get(user, str(uuid.uuid4()))


async def test_a_document_becomes_a_lab_result(client: ThriveClient, user: str):
    taken = await client.labs.upload(user, b"%PDF-1.7", filename="a.pdf", content_type="application/pdf")
    assert taken.lab_result_id
    assert (await client.labs.get(user, taken.lab_result_id)).lab_result_id == taken.lab_result_id


async def test_a_card_goes_its_way_and_no_other(client: ThriveClient, user: str):
    pending = [card async for card in client.cards.list(user, interaction_status="pending")]
    card_id = pending[0].card_item_id
    await client.cards.report(user, card_id, "opened")
    await client.cards.report(user, card_id, "opened")
    await client.cards.report(user, card_id, "completed")
    assert (await client.cards.get(user, card_id)).interaction_status == "completed"
    with pytest.raises(ApiError) as caught:
        await client.cards.report(user, card_id, "opened")
    assert caught.value.status == 422


async def test_everything_else_of_a_member_can_be_read(client: ThriveClient, user: str):
    week = TODAY - timedelta(days=7), TODAY
    now = datetime.now(UTC)
    lists = {
        "health actions": client.health_actions.list(user, status="pending", sort_order="asc"),
        "activity": client.metrics.activity(user, *week),
        "sleep": client.metrics.sleep(user, *week),
        "sleep stream": client.metrics.sleep_stream(user, *week),
        "body": client.metrics.body(user, *week),
        "heart rate": client.metrics.timeseries(user, "heart_rate", now - timedelta(hours=6), now),
        "bio age history": client.scores.bio_age_history(user),
        "health score history": client.scores.health_score_history(user, *week),
        "priorities": client.programs.priorities(user, status="active"),
        "devices": client.devices.list(user),
        "workouts": client.metrics.workouts(user, *week),
        "workout plans": client.plans.workout_plans(user),
        "nutrition plans": client.plans.nutrition_plans(user),
        "meals": client.meals.list(user),
    }
    found = {name: [item async for item in items] for name, items in lists.items()}
    may_be_empty = {"workouts", "workout plans", "nutrition plans", "meals", "bio age history", "health actions"}
    assert [name for name, items in found.items() if not items and name not in may_be_empty] == []
    assert (await client.programs.program(user)).program_id
    assert (await client.metrics.insights(user, "sleep", "week")).headline
    assert await client.scores.health_score(user)
    device = found["devices"][0]
    assert (await client.devices.status(user, device.provider_slug)).slug == device.provider_slug
    sample = found["activity"][0].sample_id
    assert (await client.metrics.measurement(user, "activity/summary", sample)).sample_id == sample
    with pytest.raises(NotFound):
        [one async for one in client.metrics.timeseries(user, "moods", now, now)]


async def test_a_biological_age_is_there_or_none(client: ThriveClient, sandbox: Sandbox):
    ages = [await client.scores.bio_age(member) for member in sandbox.world.members]
    assert any(ages)
    assert not all(ages)


async def test_a_job_ends(client: ThriveClient, user: str, monkeypatch):
    monkeypatch.setattr("consumer.clients.thrive_devices._FIRST_LOOK", 0.02)
    started = await client.devices.refresh(user)
    assert (await client.jobs.wait(user, started.job_id, timeout=20)).status == "completed"


async def test_plans_and_meals_are_made(client: ThriveClient, user: str):
    plan = await client.plans.create_workout_plan(user, "Stronger")
    assert plan.job_id
    assert (await client.plans.create_nutrition_plan(user, "Greener")).job_id
    workout = await client.plans.create_workout(user, plan.id, datetime.now(UTC) + timedelta(days=1))
    assert workout.job_id


async def test_an_expired_token_is_minted_again_without_anybody_noticing(
    client: ThriveClient, sandbox: Sandbox, user: str
):
    await client.members.get(user)
    await control(sandbox, "/tokens/expire", {})
    assert (await client.members.get(user)).user_id == user


async def test_faults_are_repeated_past_or_an_outage(client: ThriveClient, sandbox: Sandbox, user: str):
    rule = {"path": "/v1/users", "error_rate": 1.0, "status": 503, "retry_after": "1", "times": 2}
    await control(sandbox, "/faults", {"rules": [rule]})
    assert (await client.members.get(user)).user_id == user
    await control(sandbox, "/faults", {"rules": [{**rule, "times": 1000, "status": 429}]})
    with pytest.raises(Unavailable) as caught:
        await client.members.get(user)
    assert (caught.value.retry_after, caught.value.why) == (1, "GET /v1/users/{user_id}: HTTP 429")


async def test_a_queue_is_registered_shown_replaced_and_removed(client: ThriveClient, tmp_path):
    with pytest.raises(NotFound) as caught:
        await client.queues.show("lab-results")
    assert caught.value.code == "queue_not_configured"
    body = queue_body("lab-results", "local", {"path": str(tmp_path / "queue.db")})
    assert (await client.queues.register("lab-results", body)).type == "local"
    with pytest.raises(ApiError) as caught:
        await client.queues.register("lab-results", body)
    assert caught.value.code == "queue_already_configured"
    assert (await client.queues.replace("lab-results", body)).queue_name == "lab-results"
    assert (await client.queues.show("lab-results")).queue_name == "lab-results"
    await client.queues.remove("lab-results")


async def test_rotation_is_not_available_yet(client: ThriveClient):
    for call in (client.rotate_tenant_key(), client.rotate_signing_secret()):
        with pytest.raises(ApiError) as caught:
            await call
        assert (caught.value.status, caught.value.code) == (503, "service_unavailable")


async def test_a_wrong_key_is_refused(sandbox: Sandbox):
    async with ThriveClient(base_url=sandbox.url, tenant_key="wrong") as client:
        with pytest.raises(ApiError) as caught:
            await client.token(sandbox.world.members[0])
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")


async def test_events_are_fetched(client: ThriveClient, user: str):
    facts = {"event_id": "e", "event_type": "t", "user_id": user}
    lab = await anext(client.labs.list(user))
    card = await anext(client.cards.list(user))
    action = await anext(client.health_actions.list(user))
    yesterday: date = TODAY - timedelta(days=1)
    fetched = await client.fetch(LabResultEvent.model_validate({**facts, "target": {"id": lab.lab_result_id}}))
    assert fetched.lab_result_id == lab.lab_result_id
    for target, kind in (
        ({"type": "card", "id": card.card_item_id}, NudgeCard),
        ({"type": "health_action", "id": action.health_action_id}, HealthAction),
    ):
        assert type(await client.fetch(NudgeEvent.model_validate({**facts, "target": target}))) is kind
    assert (await client.fetch(ProgramEvent.model_validate(facts))).program_id
    day = await client.fetch(DailyDeviceEvent.model_validate({**facts, "date": yesterday.isoformat()}))
    assert day.date == yesterday
    assert day.activity_summary.date == yesterday
