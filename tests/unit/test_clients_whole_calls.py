"""Calls of the REST clients as a whole: how long they take, and what their errors carry."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import stamina
from aiohttp import web
from rich.pretty import pretty_repr

from consumer.clients.http import HttpOptions
from consumer.clients.sahha import SahhaClient
from consumer.clients.thrive import ThriveClient
from consumer.errors import ApiError, ApiErrorDetail, ConsumerError, CredentialsRefused, NotFound
from consumer.events.thrive import DailyDeviceEvent
from consumer.outcomes import Unavailable
from consumer.route import Route
from tests.servers.scripted import Seen, scripted

TOKENS = {
    "/v1/auth/token": {"data": {"access_token": "hush-token", "expires_in": 3600}},
    "/api/v1/oauth/account/token": {"accountToken": "hush-account", "expiresIn": 86400},
    "/api/v1/oauth/profile/token": {"profileToken": "hush-profile", "expiresIn": 86400},
}
DAY = DailyDeviceEvent(event_id="1", event_type="daily", user_id="u", occurred_at="2026-03-16T08:00:00Z")

Call = Callable[[ThriveClient, SahhaClient], Awaitable[Any]]


@asynccontextmanager
async def platforms(answer: Callable[[Seen], Any], *, mints: bool = True, **options: Any):
    """Both clients, at one server that makes tokens, unless told not to, and gives `answer` to everything else."""

    def answered(seen: Seen) -> Any:
        token = TOKENS.get(seen.target) if mints else None
        return answer(seen) if token is None else web.json_response(token)

    given = HttpOptions(**options)
    async with (
        scripted(answered) as server,
        ThriveClient(base_url=server.url, tenant_key="hush-key", options=given) as thrive,
        SahhaClient(
            base_url=server.url, client_id="id", client_secret="hush-secret", app_id="id", app_secret="hush-app",
            options=given,
        ) as sahha,
    ):  # fmt: skip
        yield thrive, sahha, server


async def silence(_: Seen) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


def test_a_call_ends_before_the_handler_that_makes_it_has_to():
    assert HttpOptions().timeout <= HttpOptions().total < Route.__dataclass_fields__["handler_timeout"].default


@pytest.mark.parametrize(
    "call",
    [
        lambda thrive, _: thrive.labs.get("u", "l"),
        lambda thrive, _: thrive.fetch(DAY),
        lambda thrive, _: thrive.queues.show("q"),
        lambda _, sahha: sahha.scores("u"),
        lambda _, sahha: sahha.demographics.get("u"),
        lambda _, sahha: sahha.profiles.register_by_app("u"),
        lambda _, sahha: sahha.profiles.refresh("r"),
    ],
)
@pytest.mark.parametrize("mints", [True, False])
async def test_a_platform_that_never_answers_is_unavailable_in_time_whatever_is_left_to_try(call: Call, mints: bool):
    async with platforms(silence, mints=mints, timeout=0.05, total=0.12, attempts=1000) as (thrive, sahha, _):
        with stamina.set_testing(True, attempts=1000, cap=True):
            began = time.monotonic()
            with pytest.raises(Unavailable, match="no answer in time"):
                await call(thrive, sahha)
            assert time.monotonic() - began < 2


async def test_a_platform_that_is_slow_and_refuses_every_token_is_unavailable_in_time():
    async def slow(_: Seen) -> web.Response:
        await asyncio.sleep(0.04)
        return web.Response(status=401)

    async with platforms(slow, timeout=0.05, total=0.06) as (thrive, _, server):
        with pytest.raises(Unavailable, match=r"^GET /v1/users/\{user_id\}/program: no answer in time$"):
            await thrive.programs.program("u")
        assert [seen.target for seen in server.requests].count("/v1/users/u/program") <= 2


async def test_waiting_for_a_turn_counts_for_the_whole_call():
    async with platforms(silence, timeout=0.05, total=0.15, attempts=1, max_concurrency=1) as (thrive, _, _server):
        began = time.monotonic()
        calls = [thrive.queues.show("q") for _ in range(60)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 1.5
        assert {type(one) for one in ended} == {Unavailable}


async def test_a_wait_beyond_the_end_of_the_call_is_left_to_the_caller():
    busy = {"Retry-After": "5"}
    async with platforms(lambda _: web.Response(status=503, headers=busy), timeout=1, total=4) as (thrive, _, server):
        with pytest.raises(Unavailable) as caught:
            await thrive.queues.show("q")
        assert caught.value.retry_after == 5
        assert len(server.requests) == 1


async def test_who_gives_up_is_cancelled_and_not_told_that_the_platform_is_gone():
    async with platforms(silence) as (thrive, _, _server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(thrive.labs.get("u", "l"), 0.05)


ODD = {"status": ["hush-a"], "hush-b": "hush-c", "type": ["hush-a"], "user_id": 1, "new_tenant_api_key": 1}
ANSWERS = [{"error": {"message": "hush-a"}}, "hush-a", {"data": ODD}, {"data": [ODD]}, [ODD], ODD]
CALLS: list[Call] = [
    lambda thrive, _: thrive.token("u"),
    lambda thrive, _: thrive.labs.get("u", "l"),
    lambda thrive, _: anext(thrive.labs.list("u")),
    lambda thrive, _: thrive.queues.show("q"),
    lambda thrive, _: thrive.members.create("u"),
    lambda thrive, _: thrive.rotate_tenant_key(),
    lambda thrive, _: thrive.fetch(DAY),
    lambda _, sahha: sahha.scores("u"),
    lambda _, sahha: sahha.device.get("u"),
    lambda _, sahha: sahha.profiles.register_by_app("u"),
    lambda _, sahha: sahha.account_token(),
    lambda _, sahha: sahha.profiles.token("u"),
]


@pytest.mark.parametrize(
    ("status", "mints"), [(200, True), (200, False), (302, True), (400, True), (400, False), (401, True), (503, True)]
)
@pytest.mark.parametrize("body", ANSWERS)
async def test_no_variable_in_a_traceback_is_a_credential_or_an_answer(status: int, mints: bool, body: Any):
    def answer(_: Seen) -> web.Response:
        return web.json_response(body, status=status)

    async with platforms(answer, mints=mints, attempts=1) as (thrive, sahha, _):
        for call in CALLS:
            (error,) = await asyncio.gather(call(thrive, sahha), return_exceptions=True)
            if isinstance(error, Exception):
                shown = variables(error)
                assert "object at" in shown, "there are variables to look at"
                assert "hush-" not in shown


def variables(error: Exception) -> str:
    """The variables of a traceback below the test's own frames, as rich prints them."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename != __file__]
    return "\n".join(pretty_repr(value) for frame in frames for value in frame.f_locals.values())


@pytest.mark.parametrize("kind", [ApiError, NotFound, CredentialsRefused])
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_can_be_copied_and_sent_to_another_process(kind: type[ApiError], again: Callable[[Any], Any]):
    details = [ApiErrorDetail("a.b", "required", "is missing")]
    error = kind("GET /x", status=404, code="c", message="m", details=details, request_id="r")
    other = again(error)
    assert (type(other), str(other)) == (kind, str(error))
    assert vars(other) == vars(error)


async def test_a_client_of_another_loop_says_so():
    async with platforms(lambda _: web.json_response({"data": {}})) as (thrive, _, _server):
        await thrive.labs.get("u", "l")

        def elsewhere() -> None:
            asyncio.run(thrive.labs.get("u", "l"))

        with pytest.raises(ConsumerError, match=r"^the client belongs to the event loop it was first used in"):
            await asyncio.to_thread(elsewhere)


@pytest.mark.parametrize("key", ["a\r\nx: y", "a\0b", "\ud800", "ключ", ""])
async def test_an_idempotency_key_that_no_header_can_hold_is_refused_before_anything_is_sent(key: str):
    async with platforms(lambda _: web.json_response({"data": {}})) as (thrive, _, server):
        with pytest.raises(ValueError, match=r"^idempotency_key: expected printable ASCII text$"):
            await thrive.members.create("u", idempotency_key=key)
        assert server.requests == []


@pytest.mark.parametrize("external_id", ["", ".", ".."])
async def test_an_id_that_cannot_be_in_a_path_is_refused_before_a_token_is_made(external_id: str):
    async with platforms(lambda _: web.json_response([])) as (_, sahha, server):
        with pytest.raises(ValueError, match=r"^external_id is empty"):
            await sahha.scores(external_id)
        assert server.requests == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
async def test_what_json_cannot_hold_is_refused_without_showing_it(value: Any):
    async with platforms(lambda _: web.Response(status=204)) as (thrive, _, _server):
        with pytest.raises(ValueError, match=r"^the request holds something that JSON cannot$") as caught:
            await thrive.members.update("u", weight=value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("url", ["https://api.example.com?a=b", "https://api.example.com/x#part"])
def test_an_address_that_would_swallow_the_paths_is_refused(url: str):
    with pytest.raises(ValueError, match="ends after its path"):
        ThriveClient(base_url=url, tenant_key=None)


async def test_an_unknown_member_is_not_one_without_a_biological_age():
    async with platforms(lambda _: web.Response(status=404), mints=False) as (thrive, _, _server):
        with pytest.raises(NotFound):
            await thrive.scores.bio_age("u")


async def test_calls_under_way_or_waiting_when_a_client_closes_say_so():
    async with platforms(silence, mints=False, max_concurrency=1) as (thrive, sahha, _server):
        calls = [*(call(thrive, sahha) for call in CALLS), *(call(thrive, sahha) for call in CALLS)]
        under_way = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0.05)
        await thrive.close()
        await sahha.close()
        ended = await asyncio.wait_for(under_way, 5)
    assert {type(one) for one in ended} == {ConsumerError}


async def test_calls_after_closing_say_so():
    async with platforms(silence) as (thrive, sahha, server):
        await thrive.close()
        await sahha.close()
        for call in CALLS:
            with pytest.raises(ConsumerError, match="closed"):
                await call(thrive, sahha)
        assert server.requests == []


async def test_one_request_at_a_time_is_enough_for_any_call():
    async with platforms(lambda _: web.json_response({"data": []}), max_concurrency=1, total=5) as (thrive, sahha, _):
        assert (await thrive.fetch(DAY)).body_summary == ()
        assert await sahha.device.get("u") is not None
