"""The sandbox's Thrive API: what the documents say of credentials, errors, lists and each resource."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from consumer.models.thrive import LabResult
from consumer.sandbox.options import SandboxOptions
from consumer.sandbox.server import serve_sandbox
from consumer.sandbox.thrive_coaching import TRANSITIONS, coaching_routes
from consumer.sandbox.thrive_labs import lab_routes
from consumer.sandbox.thrive_members import member_routes
from consumer.sandbox.thrive_metrics import metric_routes
from consumer.sandbox.thrive_plans import plan_routes
from tests.servers.fixtures_sandbox import Answer, Caller

SOMEBODY = "1d5d2c74-7c3e-4a65-9d1e-5a5a5a5a5a5a"


async def eventually(call: Any, wanted: Any) -> Any:
    """Ask again until the answer's data are as wanted."""
    async with asyncio.timeout(10):
        while not wanted(answer := await call()):
            await asyncio.sleep(0.02)
    return answer


# Credentials


async def test_both_credentials_on_one_request_are_refused(caller: Caller):
    user_id = caller.sandbox.world.members[0]
    both = {"taih-tenant-key": caller.sandbox.tenant_key, "authorization": f"Bearer {await caller.token(user_id)}"}
    for method, path in (("GET", f"/v1/users/{user_id}"), ("POST", "/v1/auth/token"), ("GET", "/v1/activity-types")):
        answer = await caller.raw(method, path, headers=both)
        assert (answer.status, answer.code) == (400, "invalid_request")


@pytest.mark.parametrize("headers", [{}, {"taih-tenant-key": "wrong"}, {"authorization": "Bearer x"}])
async def test_partner_routes_want_the_tenant_key(caller: Caller, headers: dict[str, str]):
    for method, path in (("POST", "/v1/auth/token"), ("POST", "/v1/users"), ("GET", "/v1/admin/org/queues/all")):
        answer = await caller.raw(method, path, headers=headers)
        assert (answer.status, answer.code) == (401, "unauthorized")


@pytest.mark.parametrize("authorization", [None, "Bearer x.y.z", "account x", "Bearer", "Basic eDp5"])
async def test_member_routes_want_a_member_token(caller: Caller, authorization: str | None):
    headers = {"authorization": authorization} if authorization else {}
    answer = await caller.raw("GET", f"/v1/users/{caller.sandbox.world.members[0]}/labs", headers=headers)
    assert (answer.status, answer.code) == (401, "unauthorized")


async def test_the_tenant_key_does_not_open_member_routes(caller: Caller):
    answer = await caller.partner("GET", f"/v1/users/{caller.sandbox.world.members[0]}/labs")
    assert answer.status == 401


async def test_another_member_looks_like_a_missing_one(caller: Caller):
    first, second = caller.sandbox.world.members[:2]
    bearer = {"authorization": f"Bearer {await caller.token(first)}"}
    foreign = await caller.raw("GET", f"/v1/users/{second}/cards", headers=bearer)
    missing = await caller.raw("GET", f"/v1/users/{SOMEBODY}/cards", headers=bearer)
    assert (foreign.status, foreign.code) == (missing.status, missing.code) == (404, "not_found")


async def test_expired_tokens_are_refused_and_new_ones_are_not(caller: Caller):
    assert (await caller.member("GET", "/labs")).status == 200
    await caller.control("/tokens/expire")
    assert (await caller.member("GET", "/labs")).status == 401
    caller.tokens.clear()
    assert (await caller.member("GET", "/labs")).status == 200


async def test_a_token_ends_with_its_lifetime():
    import aiohttp

    options = SandboxOptions(token_lifetime=0)
    async with serve_sandbox(options) as sandbox, aiohttp.ClientSession(sandbox.url) as session:
        caller = Caller(session, sandbox)
        assert (await caller.member("GET", "/labs")).status == 401


# Errors


async def test_an_error_of_the_guide_s_shape_names_the_request(caller: Caller):
    answer = await caller.member("GET", "/nothing", headers={"x-request-id": "my-request"})
    assert answer.json == {
        "error": {"code": "not_found", "message": "Not Found", "details": [], "request_id": "my-request"}
    }
    unnamed = await caller.member("GET", "/nothing")
    assert uuid.UUID(unnamed.json["error"]["request_id"])


async def test_a_query_or_body_that_does_not_fit_is_fastapi_s_422(caller: Caller):
    query = await caller.member("GET", "/labs?limit=201")
    assert query.status == 422
    assert query.json["detail"][0]["loc"] == ["query", "limit"]
    body = await caller.partner("POST", "/v1/users", json={"user_id": "no uuid of Ada's"})
    assert body.json["detail"][0]["loc"] == ["body", "user_id"]
    assert "Ada" not in body.text
    broken = await caller.partner("POST", "/v1/users", data="{", headers={"content-type": "application/json"})
    assert (broken.status, broken.json["detail"][0]["type"]) == (422, "json_invalid")


async def test_another_method_is_405_and_another_content_type_415(caller: Caller):
    assert (await caller.member("PUT", "/labs")).status == 405
    assert (await caller.partner("POST", "/v1/users", data="user_id=1")).status == 415


async def test_rotation_is_not_implemented_as_the_documents_say(caller: Caller):
    for name in ("tenant-key", "signing-secret"):
        answer = await caller.partner("POST", f"/v1/auth/{name}/rotate")
        assert (answer.status, answer.code) == (503, "service_unavailable")
        assert answer.headers["Retry-After"] == "86400"


# Members


async def test_a_member_is_made_read_changed_and_deleted(caller: Caller):
    made = await caller.partner(
        "POST", "/v1/users", json={"user_id": SOMEBODY, "first_name": "In", "last_name": "Vent"}
    )
    assert (made.status, made.data["user_id"]) == (201, SOMEBODY)
    assert (await caller.partner("POST", "/v1/users", json={"user_id": SOMEBODY})).status == 409
    assert (await caller.member("PATCH", "", SOMEBODY, json={"timezone": "Europe/Berlin"})).status == 204
    profile = (await caller.member("GET", "", SOMEBODY)).data["profile"]
    assert (profile["name"], profile["timezone"]) == ("In Vent", "Europe/Berlin")
    assert (await caller.member("GET", "/labs", SOMEBODY)).json["pagination"]["total"] == 0
    assert (await caller.member("GET", "/program", SOMEBODY)).status == 404
    assert (await caller.member("DELETE", "", SOMEBODY)).status == 204
    assert (await caller.member("GET", "", SOMEBODY)).status == 404


async def test_a_create_with_the_same_idempotency_key_happens_once(caller: Caller):
    body = {"title": "Walk", "description": "Round the block", "scheduled_at": "2026-05-20T17:00:00Z"}
    answers = await asyncio.gather(
        *(caller.member("POST", "/health-actions", json=body, headers={"Idempotency-Key": "k1"}) for _ in range(4))
    )
    assert len({answer.data["health_action_id"] for answer in answers}) == 1
    assert {answer.status for answer in answers} == {201}
    other = await caller.member("POST", "/health-actions", json=body, headers={"Idempotency-Key": "k2"})
    assert other.data["health_action_id"] != answers[0].data["health_action_id"]
    changed = {**body, "title": "Run"}
    answer = await caller.member("POST", "/health-actions", json=changed, headers={"Idempotency-Key": "k1"})
    assert answer.status == 422


# Lists


async def test_a_list_is_read_page_by_page_without_gap_or_repeat(caller: Caller):
    offsets = itertools.count(0, 10)
    pages = [await caller.member("GET", f"/metrics/activity/summary?limit=10&offset={next(offsets)}") for _ in range(4)]
    rows = [row["date"] for page in pages for row in page.data]
    assert [len(page.data) for page in pages] == [10, 10, 8, 0]
    assert rows == sorted(set(rows))
    assert pages[1].json["pagination"] == {"limit": 10, "offset": 10, "total": 28}


@pytest.mark.parametrize(
    ("path", "default", "most"),
    [("/cards", 25, 100), ("/labs", 25, 200), ("/devices", 10, 200), ("/priorities", 25, 100)],
)
async def test_each_list_has_its_own_limits(caller: Caller, path: str, default: int, most: int):
    assert (await caller.member("GET", path)).json["pagination"]["limit"] == default
    assert (await caller.member("GET", f"{path}?limit={most}")).status == 200
    assert (await caller.member("GET", f"{path}?limit={most + 1}")).status == 422
    assert (await caller.member("GET", f"{path}?offset=-1")).status == 422


# Nudges


async def test_a_card_changes_only_as_documented(caller: Caller):
    card = next(iter(caller.sandbox.world)).cards.all()[0]
    path = f"/cards/{card['card_item_id']}"
    documented = {
        ("pending", "opened"),
        ("pending", "dismissed"),
        ("opened", "completed"),
        ("opened", "dismissed"),
    }
    for current, new in itertools.product(TRANSITIONS, repeat=2):
        card["interaction_status"] = current
        answer = await caller.member("PATCH", path, json={"interaction_status": new})
        fits = new == current or (current, new) in documented
        assert answer.status == (204 if fits else 422), (current, new)
        assert (await caller.member("GET", path)).data["interaction_status"] == (new if fits else current)
    assert (await caller.member("PATCH", path, json={"interaction_status": "liked"})).status == 422


async def test_health_actions_are_listed_by_time_and_can_be_changed(caller: Caller):
    times = [row["scheduled_at"] for row in (await caller.member("GET", "/health-actions")).data]
    assert times == sorted(times)
    rows = (await caller.member("GET", "/health-actions?sort_order=desc")).data
    assert [row["scheduled_at"] for row in rows] == times[::-1]
    path = f"/health-actions/{rows[0]['health_action_id']}"
    assert (await caller.member("PATCH", path, json={"status": "completed"})).status == 204
    assert (await caller.member("GET", path)).data["status"] == "completed"
    assert (await caller.member("PATCH", path, json={})).status == 422


async def test_an_accepted_recommendation_becomes_a_health_action_once(caller: Caller):
    recommendation = (await caller.member("GET", "/bio-age")).data["recommendations"][0]["recommendation_id"]
    path = f"/recommended-actions/{recommendation}/accept"
    first, again = await caller.member("POST", path), await caller.member("POST", path)
    assert first.data == again.data
    assert (await caller.member("GET", f"/health-actions/{first.data['focus_action_id']}")).status == 200


# Scores, metrics


async def test_scores_are_404_until_they_are_computed(caller: Caller):
    last = caller.sandbox.world.members[-1]
    assert (await caller.member("GET", "/bio-age")).status == 200
    assert (await caller.member("GET", "/bio-age", last)).status == 404
    assert (await caller.member("GET", "/bio-age/history", last)).data == []


async def test_days_are_inclusive_at_both_ends(caller: Caller):
    days = [row["date"] for row in (await caller.member("GET", "/metrics/sleep/summary?limit=100")).data]
    answer = await caller.member("GET", f"/metrics/sleep/summary?start_date={days[3]}&end_date={days[5]}")
    assert [row["date"] for row in answer.data] == days[3:6]


async def test_a_time_series_has_no_pagination_and_is_the_same_whenever_it_is_read(caller: Caller):
    path = "/metrics/heart_rate/timeseries?start_time=2026-03-01T00:00:00Z&end_time=2026-03-02T00:00:00Z"
    whole = await caller.member("GET", f"{path}&granularity=fifteen_minute&limit=1000")
    parts = [
        await caller.member("GET", f"{path}&granularity=fifteen_minute&limit=50&offset={offset}") for offset in (0, 50)
    ]
    assert "pagination" not in whole.json
    assert len(whole.data) == 96
    assert [row for part in parts for row in part.data] == whole.data
    assert (await caller.member("GET", path.replace("heart_rate", "glucose"))).status == 404


async def test_only_the_partner_s_own_samples_can_be_deleted(caller: Caller):
    sample = {"client_id": "mine-1", "date": "2026-05-01", "steps": 4000}
    first = await caller.member("POST", "/metrics/activity/summary", json={"data": [sample, {"steps": 1}]})
    again = await caller.member("POST", "/metrics/activity/summary", json={"data": [sample]})
    assert [row["status"] for row in first.data + again.data] == ["accepted", "rejected", "duplicate"]
    path = "/metrics/activity/summary/measurements"
    assert (await caller.member("GET", f"{path}/mine-1")).data["steps"] == 4000
    assert (await caller.member("DELETE", f"{path}/mine-1")).status == 204
    assert (await caller.member("GET", f"{path}/mine-1")).status == 404
    provider = (await caller.member("GET", "/metrics/activity/summary")).data[0]["sample_id"]
    assert (await caller.member("DELETE", f"{path}/{provider}")).status == 403


ROUTES = (member_routes, lab_routes, coaching_routes, metric_routes, plan_routes)
FIELDS = [
    *("user_id", "email", "profile", "weight", "birthday", "file_url", "filename", "content_type", "title", "date"),
    *("interaction_status", "description", "data", "scheduled_at", "scheduled_time", "status", "start_time", "sport"),
    *("end_time", "start_date", "end_date", "granularity", "limit", "offset", "client_id", "meal_type", "calories"),
]
ODD: list[Any] = [
    *(None, True, -1, 0, 1, 10**30, 1e308, math.nan, math.inf, "", "a", "\ud800", "\x00", "../..", "pending", "opened"),
    *("application/pdf", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-05-01", "raw", "x" * 3000),
    *([], {}),
]


def odd(draw: Random, depth: int = 0) -> Any:
    """A JSON value that may look right."""
    if depth < 3 and draw.random() < 0.8:
        if draw.random() < 0.8:
            return {key: odd(draw, depth + 1) for key in draw.sample(FIELDS, 12)}
        return [odd(draw, depth + 1) for _ in range(3)]
    return draw.choice(ODD)


async def test_no_request_makes_any_route_fail(caller: Caller):
    thrive, draw = caller.sandbox.thrive, Random(3)
    member = next(iter(caller.sandbox.world))
    routes = [route for make in ROUTES for route in make(thrive) if route.method != "DELETE"]
    assert len(routes) > 50
    bearer = {"authorization": f"Bearer {await caller.token(member.user_id)}"}
    key = {"taih-tenant-key": caller.sandbox.tenant_key}
    meal = (await caller.member("POST", "/meals", json={"title": "Soup"})).data["meal_id"]
    known = {
        "user_id": member.user_id,
        "card_item_id": member.cards.all()[0]["card_item_id"],
        "health_action_id": member.health_actions.all()[0]["health_action_id"],
        "metric": "steps",
        "kind": "activity",
        "meal_id": meal,
    }
    answers: Counter[int] = Counter()
    for route in routes * 4:
        partner = route.path == "/v1/users" or route.path.startswith("/v1/auth")
        path = re.sub(r"\{(\w+)[^}]*\}", lambda found: known.get(found[1], "odd"), route.path)
        body = json.dumps(odd(draw)) if draw.random() < 0.95 else "[" * 5000
        query = {name: str(draw.choice(ODD)) for name in draw.sample(FIELDS, 3)}
        headers = {**(key if partner else bearer), "content-type": "application/json"}
        answer = await caller.raw(route.method, path, headers=headers, data=body, params=query)
        answers[answer.status] += 1
        assert answer.status in {200, 201, 202, 204, 400, 403, 404, 422, 503}, (route, body, answer.text)
        assert "Infinity" not in answer.text
    assert answers[422] > 20
    assert answers[200] + answers[201] + answers[202] + answers[204] > 50


# Labs


async def upload(caller: Caller, filename: str = "panel.pdf") -> Any:
    """Where to put a document, and what it is called then."""
    bearer = {"authorization": f"Bearer {await caller.token(caller.sandbox.world.members[0])}"}
    body = {"filename": filename, "content_type": "application/pdf"}
    return (await caller.raw("POST", "/v1/uploads", headers=bearer, json=body)).data


async def put(caller: Caller, url: str, **headers: str) -> int:
    return (await caller.raw("PUT", url, data=b"%PDF", headers={"x-ms-blob-type": "BlockBlob", **headers})).status


async def test_a_document_becomes_a_result_and_its_event(caller: Caller):
    place = await upload(caller)
    assert await put(caller, place["upload_url"]) == 201
    begun = await caller.member("POST", "/labs/upload", json={"file_url": place["file_url"]})
    assert (begun.status, begun.data["status"]) == (202, "pending")
    path = f"/labs/{begun.data['lab_result_id']}"
    seen: list[str] = []

    def ready(answer: Answer) -> bool:
        seen.append(answer.data["status"])
        assert answer.data["status"] == "ready" or (answer.data["domains"], answer.data["analysis"]) == ([], None)
        return seen[-1] == "ready"

    result = await eventually(lambda: caller.member("GET", path), ready)
    assert LabResult.model_validate(result.data).domains
    assert seen == sorted(seen, key=("pending", "processing", "ready").index)
    job = await caller.member("GET", f"/jobs/{begun.data['workflow_id']}")
    assert job.data["status"] == "completed"
    streams = (await caller.raw("GET", "/sandbox")).json["thrive"]["streams"]
    assert streams["lab-results"]["buffered"] == 1


async def test_a_document_that_is_to_fail_fails(caller: Caller):
    place = await upload(caller, "please-fail.pdf")
    await put(caller, place["upload_url"])
    begun = await caller.member("POST", "/labs/upload", json={"file_url": place["file_url"]})
    path = f"/labs/{begun.data['lab_result_id']}"
    await eventually(lambda: caller.member("GET", path), lambda answer: answer.data["status"] == "failed")
    job = await caller.member("GET", f"/jobs/{begun.data['workflow_id']}")
    assert (job.data["status"], job.data["result"]["error"]) == ("failed", "processing_failed")


async def test_an_upload_url_is_for_one_put_and_takes_no_credential_of_the_platform_s(caller: Caller):
    place = await upload(caller)
    assert await put(caller, place["upload_url"], authorization="Bearer x") == 400
    assert await put(caller, place["upload_url"], **{"taih-tenant-key": "x"}) == 400
    assert await put(caller, place["file_url"]) == 403
    assert (await caller.raw("PUT", place["upload_url"], data=b"%PDF")).status == 400
    assert await put(caller, place["upload_url"]) == 201
    assert await put(caller, place["upload_url"]) == 403


async def test_a_document_that_was_not_put_or_is_elsewhere_is_not_processed(caller: Caller):
    place = await upload(caller)
    for url in (place["file_url"], "https://elsewhere.example.org/file"):
        assert (await caller.member("POST", "/labs/upload", json={"file_url": url})).status == 422


async def test_a_document_above_20_mb_is_refused(caller: Caller):
    place = await upload(caller)

    async def document() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(1024 * 1024)
        yield b"."

    headers = {"x-ms-blob-type": "BlockBlob"}
    answer = await caller.raw("PUT", place["upload_url"], data=document(), headers=headers)
    assert answer.status == 413


# Jobs and plans


@pytest.mark.parametrize(("title", "status"), [("Strength", "completed"), ("Fail on purpose", "failed")])
async def test_a_plan_is_made_by_a_job(caller: Caller, title: str, status: str):
    begun = await caller.member("POST", "/workout-plans", json={"title": title})
    assert (begun.status, begun.data["status"]) == (202, "accepted")
    path = f"/jobs/{begun.data['job_id']}"
    assert (await caller.member("GET", path)).data["status"] in ("running", status)
    await eventually(lambda: caller.member("GET", path), lambda answer: answer.data["status"] == status)
    assert (await caller.member("GET", f"/jobs/{SOMEBODY}")).status == 404
