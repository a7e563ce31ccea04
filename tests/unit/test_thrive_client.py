"""Thrive's client against answers written by hand: credentials, repeats, errors, paging, uploads."""

from __future__ import annotations

import asyncio
import json
import traceback
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
import stamina
from aiohttp import web

from consumer.clients.http import HttpOptions
from consumer.clients.thrive import ThriveClient
from consumer.clients.thrive_calls import time_text
from consumer.clients.thrive_errors import read_error
from consumer.clients.thrive_nudges import INTERACTIONS, allowed
from consumer.clients.thrive_queues import queue_body
from consumer.errors import ApiError, ApiErrorDetail, ConsumerError, NotConfigured, NotFound, SettingsError
from consumer.outcomes import Unavailable
from tests.servers.scripted import Answer, Seen, answering, scripted

KEY = "tenant-key-4711"
USER = "6f1e2a34-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def _no_waits():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def data(value, **extra) -> web.Response:
    return web.json_response({"data": value, **extra})


def refused(status, code, **headers) -> web.Response:
    error = {"code": code, "message": f"about {USER}", "details": [], "request_id": "req-1"}
    return web.json_response({"error": error}, status=status, headers=headers)


class Api:
    """Mints numbered tokens; everything else is answered by the test."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.minted = 0
        self.calls: list[Seen] = []

    def __call__(self, seen: Seen):
        if seen.target == "/v1/auth/token":
            self.minted += 1
            token = {"access_token": f"token-{self.minted}", "token_type": "Bearer", "expires_in": 3600}
            return data(token)
        self.calls.append(seen)
        return self.answer(seen)


@asynccontextmanager
async def thrive(*answers: web.Response | Callable[[Seen], web.Response], key: str | None = KEY, **options):
    api = Api(answering(*answers))
    async with (
        scripted(api) as server,
        ThriveClient(base_url=server.url, tenant_key=key, options=HttpOptions(**options)) as client,
    ):
        yield client, api
    # Whatever a test did: never both credentials, and always an id to trace a request by.
    for seen in server.requests:
        assert ("authorization" in seen.headers) != ("taih-tenant-key" in seen.headers)
        uuid.UUID(seen.headers["x-request-id"])


async def test_a_members_resource_is_read_with_a_token_that_is_minted_once():
    async with thrive(data({"lab_result_id": "l1", "status": "ready", "new": 1})) as (client, api):
        lab = await client.labs.get(USER, "l1")
        await client.labs.get(USER, "l1")
        assert [seen.headers["authorization"] for seen in api.calls] == ["Bearer token-1"] * 2
        assert api.calls[0].target == f"/v1/users/{USER}/labs/l1"
    assert (lab.status, lab.model_extra) == ("ready", {"new": 1})


async def test_what_concerns_the_partner_takes_the_tenant_key():
    async with thrive(data({"user_id": USER})) as (client, api):
        await client.members.create(USER, first_name="A")
        (seen,) = api.calls
    assert (seen.headers["taih-tenant-key"], json.loads(seen.body)) == (KEY, {"user_id": USER, "first_name": "A"})


async def test_a_new_member_gets_an_id_when_none_is_given():
    async with thrive(lambda seen: data(json.loads(seen.body))) as (client, _):
        assert uuid.UUID((await client.members.create()).user_id)


async def test_a_create_is_repeated_under_the_same_idempotency_key():
    async with thrive(web.Response(status=503), data({"user_id": USER})) as (client, api):
        await client.members.create(USER)
        await client.members.create(USER, idempotency_key="mine")
        keys = [seen.headers["idempotency-key"] for seen in api.calls]
    assert (keys[0], keys[2]) == (keys[1], "mine")
    assert keys[0] != "mine"


@pytest.mark.parametrize("change", ["patch", "post"])
async def test_a_401_mints_again_and_repeats_once_whatever_the_request(change):
    answers = (refused(401, "unauthorized"), data({"health_action_id": "h"}))
    async with thrive(*answers) as (client, api):
        if change == "patch":
            await client.health_actions.update(USER, "h", status="done")
        else:
            await client.health_actions.create(USER, "t", "d", datetime(2026, 3, 16, tzinfo=UTC))
        assert [seen.headers["authorization"] for seen in api.calls] == ["Bearer token-1", "Bearer token-2"]
        assert api.calls[0].body == api.calls[1].body
        assert api.calls[0].headers.get("idempotency-key") == api.calls[1].headers.get("idempotency-key")


async def test_many_refused_at_once_share_the_new_token():
    def answer(seen: Seen) -> web.Response:
        old = seen.headers["authorization"] == "Bearer token-1"
        return refused(401, "unauthorized") if old else data({"user_id": USER})

    async with thrive(answer) as (client, api):
        await asyncio.gather(*(client.members.get(USER) for _ in range(20)))
        assert api.minted == 2


async def test_a_second_401_is_an_error_and_its_token_is_not_used_again():
    async with thrive(refused(401, "unauthorized")) as (client, api):
        with pytest.raises(ApiError, match="unauthorized"):
            await client.members.get(USER)
        with pytest.raises(ApiError):
            await client.members.get(USER)
        assert (len(api.calls), api.minted) == (4, 4)


async def test_a_refused_tenant_key_is_an_error_and_not_repeated():
    calls = []

    def answer(seen):
        calls.append(seen.target)
        return refused(401, "unauthorized")

    async with scripted(answer) as server, ThriveClient(base_url=server.url, tenant_key=KEY) as client:
        with pytest.raises(ApiError, match=r"^POST /v1/auth/token: HTTP 401, unauthorized, request req-1$"):
            await client.members.get(USER)
    assert calls == ["/v1/auth/token"]


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_without_a_key_every_call_names_the_setting(key):
    async with thrive(data({}), key=key) as (client, api):
        for call in (client.members.get(USER), client.token(USER), client.queues.show("labs"), client.members.create()):
            with pytest.raises(NotConfigured, match=r"^CONSUMER_THRIVE__TENANT_KEY is not set"):
                await call
        with pytest.raises(NotConfigured):
            [lab async for lab in client.labs.list(USER)]
        assert api.calls == []


async def test_a_replaced_key_is_used_from_then_on_and_tokens_are_minted_anew():
    async with thrive(data({})) as (client, api):
        await client.members.get(USER)
        client.replace_tenant_key("other")
        await client.members.get(USER)
        await client.queues.show("labs")
        assert api.minted == 2
        assert api.calls[-1].headers["taih-tenant-key"] == "other"


@pytest.mark.parametrize("key", ["a\nb: c", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key):
    with pytest.raises(SettingsError) as caught:
        ThriveClient(tenant_key=key)
    assert key not in str(caught.value)


async def test_a_closed_client_says_so():
    async with thrive(data({})) as (client, _):
        await client.close()
        with pytest.raises(ConsumerError, match="closed"):
            await client.members.get(USER)


async def test_a_member_whose_id_cannot_be_in_a_path_is_refused_before_anything_is_sent():
    async with thrive(data({})) as (client, api):
        with pytest.raises(ValueError, match="user_id"):
            await client.members.get("..")
        assert (api.calls, api.minted) == ([], 0)


async def test_an_outage_is_unavailable_with_the_wait_asked_for_and_without_ids():
    async with thrive(refused(503, "service_unavailable", **{"Retry-After": "120"})) as (client, api):
        with pytest.raises(Unavailable) as caught:
            await client.labs.get(USER, "l1")
        assert len(api.calls) == 1
    assert (caught.value.retry_after, caught.value.why) == (
        120,
        "GET /v1/users/{user_id}/labs/{lab_result_id}: HTTP 503",
    )


async def test_no_traceback_shows_ids_keys_tokens_or_answers():
    shown = ""
    card = f"card-{70 + 7}"  # a traceback shows the source, so not in one piece
    answers = (refused(422, "validation_error"), data({"interaction_status": {"secret": "s3cr3t"}}))
    async with thrive(*answers) as (client, _):
        for _ in range(2):
            with pytest.raises(ApiError) as caught:
                await client.cards.get(USER, card)
            shown += "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not [word for word in (USER, card, KEY, "token-1", "s3cr3t") if word in shown]


async def test_a_members_token_does_not_show():
    async with thrive(data({})) as (client, _):
        token = await client.token(USER)
    assert (token.access_token, token.expires_in) == ("token-1", 3600)
    assert "token-1" not in f"{token!r}{token}"


@pytest.mark.parametrize("token", ["a b", "a\r\nx: y", "", "ü", 5, None])
async def test_a_token_that_no_header_can_hold_is_an_unreadable_answer(token):
    async with (
        scripted(lambda _: data({"access_token": token, "expires_in": 3600})) as server,
        ThriveClient(base_url=server.url, tenant_key=KEY) as client,
    ):
        with pytest.raises(ApiError, match="unreadable_answer"):
            await client.members.get(USER)


def test_the_guides_error_body_is_read():
    body = {
        "error": {
            "code": "validation_error",
            "message": "no",
            "details": [{"field": "a.b", "code": "required", "message": "missing"}],
            "request_id": "r1",
        }
    }
    error = read_error("POST /x", 422, {}, json.dumps(body).encode())
    assert str(error) == "POST /x: HTTP 422, validation_error, request r1"
    assert (error.message, error.details) == ("no", (ApiErrorDetail("a.b", "required", "missing"),))


def test_fastapis_error_body_is_read():
    body = {"detail": [{"loc": ["body", "items", 0], "msg": "bad", "type": "missing"}]}
    error = read_error("POST /x", 422, {"x-request-id": "r2"}, json.dumps(body).encode())
    assert (error.code, error.request_id) == ("validation_error", "r2")
    assert error.details == (ApiErrorDetail("body.items.0", "missing", "bad"),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>oops", "<html>oops"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"", None),
        (b"\xff" * 9000, "�" * 2000),
    ],
)
def test_any_other_error_body_is_the_message(body, message):
    error = read_error("GET /x", 404, {}, body)
    assert isinstance(error, NotFound)
    assert (error.message, error.code) == (message, None)


def test_what_is_no_code_or_id_does_not_get_into_the_text():
    body = {"error": {"code": f"user {USER} bad\n", "request_id": ["x"], "message": 5, "details": "x"}}
    error = read_error("GET /x", 400, {}, json.dumps(body).encode())
    assert str(error) == "GET /x: HTTP 400"


async def paged(total, *, size, claims=None, limit_seen=None):
    """Ask for a list of `total` labs from a server that says there are `claims`."""

    def answer(seen: Seen) -> web.Response:
        query = dict(part.split("=") for part in seen.target.partition("?")[2].split("&"))
        offset, limit = int(query["offset"]), int(query["limit"])
        if limit_seen is not None:
            limit_seen.append(limit)
        items = [{"lab_result_id": str(number)} for number in range(offset, min(total, offset + limit))]
        pagination = {} if claims is None else {"pagination": {"limit": limit, "offset": offset, "total": claims}}
        return data(items, **pagination)

    async with thrive(answer) as (client, api):
        labs = [lab.lab_result_id async for lab in client.labs.list(USER, status="ready", limit=size)]
        assert all("status=ready" in seen.target for seen in api.calls)
        return labs, len(api.calls)


@pytest.mark.parametrize(
    ("total", "size", "claims", "found", "calls"),
    [
        (450, None, 450, 450, 3),
        (400, None, 400, 400, 2),
        (400, None, None, 400, 3),
        (0, None, 0, 0, 1),
        (450, 250, 450, 250, 2),
        (450, 0, 450, 0, 0),
        (10, None, 999, 10, 2),
        (10, None, -1, 10, 1),
        (10, None, "many", 10, 1),
    ],
)
async def test_a_list_is_walked_to_its_end(total, size, claims, found, calls):
    limits: list[int] = []
    labs, made = await paged(total, size=size, claims=claims, limit_seen=limits)
    assert labs == [str(number) for number in range(found)]
    assert made == calls
    assert all(limit <= 200 for limit in limits)


async def test_a_server_that_repeats_its_pages_does_not_hold_a_list_forever():
    pages = [data([{"lab_result_id": name}] * 200, pagination={"total": 10**9}) for name in "aba"]
    async with thrive(*pages) as (client, api):
        assert len([lab async for lab in client.labs.list(USER)]) == 400
        assert len(api.calls) == 3


async def test_a_time_series_ends_at_a_page_that_is_not_full():
    full, rest = [{"value": number} for number in range(1000)], [{"value": 1000}]
    async with thrive(data(full), data(rest)) as (client, api):
        start = datetime(2026, 3, 16, tzinfo=timezone(timedelta(hours=2)))
        series = client.metrics.timeseries(USER, "heart_rate", start, datetime(2026, 3, 17, tzinfo=UTC))
        assert [sample.value async for sample in series] == list(range(1001))
        assert "start_time=2026-03-15T22%3A00%3A00Z&end_time=2026-03-17T00%3A00%3A00Z" in api.calls[0].target


@pytest.mark.parametrize("current", INTERACTIONS)
@pytest.mark.parametrize("new", INTERACTIONS)
def test_a_card_goes_only_where_the_documents_say(current, new):
    steps = {("pending", "opened"), ("pending", "dismissed"), ("opened", "completed"), ("opened", "dismissed")}
    assert allowed(current, new) == (current == new or (current, new) in steps)


async def test_a_report_that_cannot_be_is_refused_before_it_is_sent():
    async with thrive(web.Response(status=204)) as (client, api):
        for status, current in (("seen", None), ("opened", "dismissed"), ("completed", "pending")):
            with pytest.raises(ValueError, match=r"^status: "):
                await client.cards.report(USER, "c", status, current=current)
        assert api.calls == []
        await client.cards.report(USER, "c", "opened", current="pending")
        await client.cards.report(USER, "c", "opened", current="a-status-of-tomorrow")
        assert [json.loads(seen.body) for seen in api.calls] == [{"interaction_status": "opened"}] * 2


async def test_a_biological_age_that_is_not_computed_yet_is_none():
    async with thrive(refused(404, "not_found")) as (client, _):
        assert await client.scores.bio_age(USER) is None


async def test_a_document_is_put_where_the_platform_says_without_our_credentials():
    stored: list[Seen] = []

    def store(seen: Seen) -> web.Response:
        stored.append(seen)
        return web.Response(status=201)

    async with scripted(store) as storage:
        slot = {"upload_url": f"{storage.url}/blob?sig=a%2Fb", "file_url": "https://files/1"}
        async with thrive(data(slot), data({"lab_result_id": "l", "workflow_id": None})) as (client, api):
            taken = await client.labs.upload(USER, b"%PDF", filename="a.pdf", content_type="application/pdf")
            first, last = api.calls
    (put,) = stored
    assert (put.method, put.target, put.body) == ("PUT", "/blob?sig=a%2Fb", b"%PDF")
    assert (put.headers["x-ms-blob-type"], put.headers["content-type"]) == ("BlockBlob", "application/pdf")
    assert not {"authorization", "taih-tenant-key", "cookie", "x-request-id"} & {name.lower() for name in put.headers}
    assert json.loads(first.body) == {"filename": "a.pdf", "content_type": "application/pdf"}
    assert (last.target, json.loads(last.body)) == (f"/v1/users/{USER}/labs/upload", {"file_url": "https://files/1"})
    assert (taken.lab_result_id, taken.workflow_id) == ("l", None)


@pytest.mark.parametrize(
    ("content", "kind"), [(b"x", "text/html"), (b"", "image/png"), (bytes(20 * 1024 * 1024 + 1), "image/png")]
)
async def test_a_document_nobody_would_take_is_not_sent(content, kind):
    async with thrive(data({})) as (client, api):
        with pytest.raises(ValueError, match="expected"):
            await client.labs.upload(USER, content, filename="a", content_type=kind)
        assert api.calls == []


async def test_a_document_is_not_sent_to_an_address_without_encryption():
    slot = {"upload_url": "http://files.example.com/blob?sig=s3cr3t", "file_url": "f"}
    async with thrive(data(slot)) as (client, _):
        with pytest.raises(ApiError, match="unsafe_upload_url") as caught:
            await client.labs.upload(USER, b"x", filename="a", content_type="image/png")
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


async def test_rotation_that_is_not_available_yet_is_an_answer_and_no_outage():
    async with thrive(refused(503, "service_unavailable", **{"Retry-After": "86400"})) as (client, api):
        for call in (
            client.rotate_tenant_key(),
            client.rotate_signing_secret(),
            client.rotate_signing_secret("ab" * 32),
        ):
            with pytest.raises(ApiError) as caught:
                await call
            assert (caught.value.status, caught.value.code) == (503, "service_unavailable")
        assert len(api.calls) == 3


@pytest.mark.parametrize("secret", ["short", "ab" * 31, "not base64, not hex, but long enough to be a sentence"])
async def test_a_weak_signing_secret_is_not_sent(secret):
    async with thrive(data({})) as (client, api):
        with pytest.raises(ValueError, match="32 bytes") as caught:
            await client.rotate_signing_secret(secret)
        assert api.calls == []
    assert secret not in str(caught.value)


async def test_a_queue_is_registered_with_whatever_fields_are_given():
    body = queue_body("lab-results", "azure_event_hubs", {"namespace": "n", "sas_token": "s"})
    assert body == {
        "queue_name": "lab-results",
        "type": "azure_event_hubs",
        "azure_event_hubs": {"namespace": "n", "sas_token": "s"},
    }
    assert queue_body("s", "aws_sqs", {}) == {"queue_name": "s", "type": "aws_sqs"}
    async with thrive(data(body), refused(409, "queue_already_configured")) as (client, api):
        assert (await client.queues.register("lab-results", body)).type == "azure_event_hubs"
        with pytest.raises(ApiError) as caught:
            await client.queues.register("lab-results", body)
        assert (api.calls[0].target, json.loads(api.calls[0].body)) == ("/v1/admin/org/queues/lab-results", body)
    assert (caught.value.code, caught.value.message) == ("queue_already_configured", f"about {USER}")


async def test_a_replaced_queue_is_shown_where_the_answer_is_empty():
    async with thrive(web.Response(status=204), data({"queue_name": "s", "type": "aws_sqs"})) as (client, api):
        assert (await client.queues.replace("s", queue_body("s", "aws_sqs", {}))).type == "aws_sqs"
        assert [seen.method for seen in api.calls] == ["PUT", "GET"]


async def test_a_job_is_waited_for_until_it_ends_or_patience_does(monkeypatch):
    monkeypatch.setattr("consumer.clients.thrive_devices._FIRST_LOOK", 0.01)
    states = [data({"job_id": "j", "status": status}) for status in ("running", "completed", "running")]
    async with thrive(*states) as (client, _):
        assert (await client.jobs.wait(USER, "j", timeout=5)).status == "completed"
        with pytest.raises(TimeoutError):
            await client.jobs.wait(USER, "j", timeout=0.02)


def test_times_are_written_in_utc_and_need_an_offset():
    assert time_text(datetime(2026, 3, 16, 10, 0, tzinfo=timezone(timedelta(hours=2)))) == "2026-03-16T08:00:00Z"
    with pytest.raises(ValueError, match="offset"):
        time_text(datetime(2026, 3, 16))  # noqa: DTZ001 - the point


async def test_ranges_take_dates_and_no_times():
    async with thrive(data([])) as (client, api):
        day = date(2026, 3, 16)
        assert [one async for one in client.metrics.activity(USER, day, day)] == []
        assert "start_date=2026-03-16&end_date=2026-03-16&limit=100&offset=0" in api.calls[0].target
        with pytest.raises(ValueError, match="expected a date"):
            client.metrics.sleep(USER, datetime(2026, 3, 16, tzinfo=UTC), day)


async def test_an_update_of_nothing_is_refused():
    async with thrive(data({})) as (client, api):
        with pytest.raises(ValueError, match="nothing to change"):
            await client.members.update(USER)
        await client.health_actions.update(USER, "h", scheduled_at=datetime(2026, 3, 16, tzinfo=UTC))
        assert json.loads(api.calls[0].body) == {"scheduled_at": "2026-03-16T00:00:00Z"}
