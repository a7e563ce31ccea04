"""Whatever Thrive's API answers, a call returns or raises one of the errors it promises."""

from __future__ import annotations

import asyncio
import inspect
import json
from datetime import UTC, date, datetime

import stamina
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.clients.thrive import ThriveClient
from consumer.clients.thrive_errors import read_error
from consumer.errors import ApiError, NotFound
from consumer.outcomes import Unavailable
from tests.servers.scripted import scripted

DAY = date(2026, 3, 16)
TIME = datetime(2026, 3, 16, tzinfo=UTC)

CALLS = [
    lambda c: c.members.create("u"),
    lambda c: c.members.get("u"),
    lambda c: c.health_profile("u"),
    lambda c: c.labs.list("u", limit=5),
    lambda c: c.labs.get("u", "l"),
    lambda c: c.labs.upload("u", b"x", filename="f", content_type="image/png"),
    lambda c: c.cards.list("u", limit=5),
    lambda c: c.cards.get("u", "c"),
    lambda c: c.cards.report("u", "c", "opened"),
    lambda c: c.health_actions.list("u", limit=5),
    lambda c: c.health_actions.create("u", "t", "d", TIME),
    lambda c: c.metrics.activity("u", DAY, DAY),
    lambda c: c.metrics.sleep("u", DAY, DAY),
    lambda c: c.metrics.sleep_stream("u", DAY, DAY),
    lambda c: c.metrics.body("u", DAY, DAY),
    lambda c: c.metrics.workouts("u", DAY, DAY),
    lambda c: c.metrics.timeseries("u", "hrv", TIME, TIME),
    lambda c: c.metrics.insights("u", "hrv"),
    lambda c: c.metrics.measurement("u", "timeseries", "s"),
    lambda c: c.scores.bio_age("u"),
    lambda c: c.scores.bio_age_history("u"),
    lambda c: c.scores.health_score("u"),
    lambda c: c.scores.health_score_history("u"),
    lambda c: c.programs.program("u"),
    lambda c: c.programs.priorities("u"),
    lambda c: c.programs.accept_recommendation("u", "r"),
    lambda c: c.devices.list("u"),
    lambda c: c.devices.status("u", "d"),
    lambda c: c.devices.refresh("u"),
    lambda c: c.jobs.get("u", "j"),
    lambda c: c.plans.workout_plans("u"),
    lambda c: c.plans.workout("u", "w"),
    lambda c: c.plans.nutrition_plan_week("u", "p", 1),
    lambda c: c.meals.get("u", "m"),
    lambda c: c.meals.log("u", "m", title="t"),
    lambda c: c.meals.analysis("u", "m"),
    lambda c: c.queues.show("q"),
    lambda c: c.queues.replace("q", {}),
    lambda c: c.rotate_tenant_key(),
    lambda c: c.rotate_signing_secret(),
]

_names = st.sampled_from(
    [
        "user_id",
        "status",
        "test_date",
        "lab_name",
        "domains",
        "values",
        "value",
        "analysis",
        "profile",
        "birthday",
        "location",
        "privacy",
        "devices",
        "data",
        "connected_devices",
        "item_body",
        "created_at",
        "start",
        "end",
        "date",
        "steps",
        "stages_minutes",
        "heart_rate",
        "delta",
        "recommendations",
        "rank",
        "goals",
        "targets",
        "active",
        "result",
        "job_id",
        "connection",
        "backfill",
        "log",
        "calories",
        "aws_sqs",
        "expires_in",
        "access_token",
        "upload_url",
        "file_url",
        "pagination",
        "total",
    ]
)
_plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(min_value=10**20), st.floats(), st.text(max_size=8),
    st.sampled_from(["2026-03-16", "2026-03-16T08:00:00Z", "9999-99-99", "\ud800", "-1", "https://", "http://[", "x"]),
)  # fmt: skip
_json = st.recursive(
    _plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_names | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=12,
)
_answers = st.one_of(_json, st.fixed_dictionaries({"data": _json}), st.fixed_dictionaries({"data": st.lists(_json)}))


async def result(call) -> None:
    if inspect.isawaitable(call):
        await call
    else:
        [item async for item in call]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    answers=st.lists(_answers, min_size=1, max_size=4),
    status=st.sampled_from([200, 200, 200, 201, 204, 400, 404, 422, 503]),
    mints=st.booleans(),
    start=st.integers(0, len(CALLS) - 1),
)
def test_no_answer_makes_a_call_raise_anything_else(answers, status, mints, start):
    count = 0

    def answer(seen):
        nonlocal count
        if mints and seen.target == "/v1/auth/token":
            return web.json_response({"data": {"access_token": "t", "expires_in": 3600}})
        count += 1
        return web.Response(body=json.dumps(answers[count % len(answers)]).encode(), status=status)

    async def run():
        async with scripted(answer) as server, ThriveClient(base_url=server.url, tenant_key="k") as client:
            # A third of the calls for each example: all of them many times over the run.
            for call in CALLS[start % 3 :: 3]:
                try:
                    await result(call(client))
                except (ApiError, Unavailable) as error:
                    assert error.__context__ is None  # noqa: PT017 - what is looked at is the error

    with stamina.set_testing(True, attempts=1):
        asyncio.run(run())


@settings(max_examples=50)
@given(status=st.integers(400, 599), body=_json.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_every_error_body_is_an_api_error(status, body):
    error = read_error("GET /x", status, {}, body)
    assert isinstance(error, NotFound if status in (404, 410) else ApiError)
    assert str(error).isascii()


@settings(max_examples=50)
@given(error=st.dictionaries(st.sampled_from(["code", "message", "details", "request_id"]), _json), detail=_json)
def test_every_error_body_of_the_documented_shapes_is_an_api_error(error, detail):
    for value in (
        {"error": error},
        {"error": detail},
        {"detail": detail},
        {"detail": [detail, {"loc": [detail, 1], "msg": detail}]},
    ):
        assert isinstance(read_error("GET /x", 422, {}, json.dumps(value).encode()), ApiError)
