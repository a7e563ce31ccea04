"""Sahha's tokens: made when needed, kept, renewed, never seen; and what a client without credentials says."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
import stamina
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.clients.http import HttpOptions
from consumer.clients.sahha import SahhaClient
from consumer.clients.sahha_tokens import MARGIN, UNKNOWN_LIFETIME, minted
from consumer.errors import ApiError, NotConfigured, NotFound, SettingsError
from consumer.outcomes import Unavailable
from tests.servers.scripted import Seen, scripted

NOW = 1_750_000_000.0
CANARY = "canary4711"


@pytest.fixture(autouse=True)
def _no_waits():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


class Issuer:
    """Makes numbered tokens and accepts only those it still honours; `lifetime` of those it makes."""

    def __init__(self, *, lifetime: Any = 86400) -> None:
        self.lifetime = lifetime
        self.made: Counter[str] = Counter()
        self.honoured: set[str] = set()
        self.refusal = 401
        self.secrets: list[str] = []
        self.calls: list[Seen] = []

    def __call__(self, seen: Seen) -> web.Response:
        path = urlsplit(seen.target).path
        if path == "/api/v1/oauth/account/token":
            self.secrets.append(json.loads(seen.body)["clientSecret"])
            return web.json_response({"accountToken": self.token("account"), "expiresIn": self.lifetime})
        if seen.headers.get("authorization") not in self.honoured:
            return web.json_response({"message": "Unauthorized"}, status=self.refusal)
        if path == "/api/v1/oauth/profile/token":
            member = json.loads(seen.body)["externalId"]
            return web.json_response({"profileToken": self.token("profile", member), "expiresIn": self.lifetime})
        self.calls.append(seen)
        return web.Response(status=204)

    def token(self, scheme: str, member: str = "") -> str:
        self.made[member or scheme] += 1
        text = f"{scheme}{member}.{self.made[member or scheme]}"
        self.honoured.add(f"{scheme} {text}")
        return text

    def revoke(self, scheme: str) -> None:
        self.honoured = {token for token in self.honoured if not token.startswith(f"{scheme} ")}


def client(url: str, **changes: Any) -> SahhaClient:
    return SahhaClient(**{"base_url": url, "client_id": "id", "client_secret": "first", **changes})


async def test_a_token_is_made_once_however_many_ask():
    issuer = Issuer()
    async with scripted(issuer) as server, client(server.url) as api:
        await asyncio.gather(*(api.scores("u") for _ in range(5)), *(api.demographics.get("u") for _ in range(5)))
        await api.scores("u")
    assert issuer.made == {"account": 1, "u": 1}
    assert len(issuer.calls) == 11


async def test_every_profile_has_its_own_token():
    issuer = Issuer()
    async with scripted(issuer) as server, client(server.url) as api:
        for member in ("u1", "u2", "u1"):
            await api.demographics.get(member)
    assert [seen.headers["authorization"] for seen in issuer.calls] == [
        "profile profileu1.1",
        "profile profileu2.1",
        "profile profileu1.1",
    ]
    assert issuer.made == {"account": 1, "u1": 1, "u2": 1}


async def test_a_revoked_token_is_renewed_and_the_call_repeated_even_an_upload():
    issuer = Issuer()
    item = {"id": "1", "logType": "a", "dataType": "b", "startDateTime": "2026-03-15", "endDateTime": "2026-03-15"}
    async with scripted(issuer) as server, client(server.url) as api:
        await api.logs.upload("u", [item])
        issuer.revoke("profile")
        issuer.revoke("account")
        await api.logs.upload("u", [item])
    assert issuer.made == {"account": 2, "u": 2}
    assert [seen.headers["authorization"] for seen in issuer.calls] == ["profile profileu.1", "profile profileu.2"]


@pytest.mark.parametrize(("call", "scheme"), [("scores", "account"), ("device", "profile")])
async def test_a_second_401_in_a_row_is_an_error(call, scheme):
    """One renewal and no more; and the next call begins anew."""
    issuer = Issuer()

    def refusing(seen: Seen) -> web.Response:
        return web.Response(status=401) if "oauth" not in seen.target else issuer(seen)

    async with scripted(refusing) as server, client(server.url) as api:
        ask = api.scores if call == "scores" else api.device.get
        for _ in range(2):
            with pytest.raises(ApiError) as caught:
                await ask("u")
            assert caught.value.status == 401
        asked = [seen.headers["authorization"] for seen in server.requests if "oauth" not in seen.target]
    member = "u" if scheme == "profile" else ""
    assert asked == [f"{scheme} {scheme}{member}.{number}" for number in (1, 2, 3, 4)]


async def test_a_profile_that_was_removed_and_registered_again_gets_a_new_token():
    issuer = Issuer()
    async with scripted(issuer) as server, client(server.url) as api:
        await api.device.get("u")
        issuer.revoke("profile")
        issuer.refusal = 410
        assert await api.device.get("u") is None
    assert issuer.made == {"account": 1, "u": 2}


async def test_a_removed_profile_is_not_found():
    issuer = Issuer()

    def gone(seen: Seen) -> web.Response:
        return web.Response(status=410) if "oauth" not in seen.target else issuer(seen)

    async with scripted(gone) as server, client(server.url) as api:
        with pytest.raises(NotFound) as caught:
            await api.device.get("u")
    assert caught.value.status == 410


async def test_a_token_that_lives_for_no_time_is_used_once():
    issuer = Issuer(lifetime=0)
    async with scripted(issuer) as server, client(server.url) as api:
        await api.scores("u")
        await api.scores("u")
    assert issuer.made == {"account": 2}


async def test_a_caller_that_gives_up_does_not_take_the_token_from_the_others():
    issuer = Issuer()
    begun, go = asyncio.Event(), asyncio.Event()

    async def slowly(seen: Seen) -> web.Response:
        if "oauth" in seen.target:
            begun.set()
            await go.wait()
        return issuer(seen)

    async with scripted(slowly) as server, client(server.url) as api:
        first = asyncio.create_task(api.scores("u"))
        second = asyncio.create_task(api.scores("u"))
        await begun.wait()
        first.cancel()
        go.set()
        assert await second == []
        with pytest.raises(asyncio.CancelledError):
            await first
    assert issuer.made == {"account": 1}


async def test_a_failure_to_make_a_token_is_not_remembered():
    issuer = Issuer()
    answers = [400, 400]

    def failing(seen: Seen) -> web.Response:
        return web.json_response({"message": "no"}, status=answers.pop()) if answers else issuer(seen)

    async with scripted(failing) as server, client(server.url) as api:
        for _ in range(2):
            with pytest.raises(ApiError) as caught:
                await api.scores("u")
            assert str(caught.value) == "POST /api/v1/oauth/account/token: HTTP 400"
        assert await api.scores("u") == []


async def test_a_replaced_secret_is_used_from_then_on():
    issuer = Issuer()
    async with scripted(issuer) as server, client(server.url) as api:
        await api.scores("u")
        api.replace_client_secret("second")
        await api.scores("u")
        await api.account_token()
    assert issuer.secrets == ["first", "second", "second"]


async def test_making_a_token_is_repeated_registering_is_not():
    async with scripted(lambda _: web.Response(status=503)) as server, client(server.url, **APP) as api:
        with pytest.raises(Unavailable):
            await api.account_token()
        with pytest.raises(Unavailable):
            await api.profiles.register_by_app("u")
    assert [urlsplit(seen.target).path for seen in server.requests] == [
        *["/api/v1/oauth/account/token"] * 3,
        "/api/v1/oauth/profile/register/appId",
    ]


NEED = "calls of Sahha's API need both"
APP = {"app_id": "app", "app_secret": "app-secret"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"client_id": None, "client_secret": None},
            "CONSUMER_SAHHA__CLIENT_ID and CONSUMER_SAHHA__CLIENT_SECRET are not set: " + NEED,
        ),
        (
            {"client_secret": None},
            "CONSUMER_SAHHA__CLIENT_SECRET is not set, although CONSUMER_SAHHA__CLIENT_ID is: " + NEED,
        ),
        (
            {"client_id": ""},
            "CONSUMER_SAHHA__CLIENT_ID is not set, although CONSUMER_SAHHA__CLIENT_SECRET is: " + NEED,
        ),
    ],
)
async def test_missing_credentials_are_named(given, text):
    async with scripted(Issuer()) as server, client(server.url, **given) as api:
        for call in (api.scores("u"), api.demographics.get("u"), api.account_token(), anext(api.profiles.search())):
            with pytest.raises(NotConfigured) as caught:
                await call
            assert str(caught.value) == text
    assert server.requests == []


async def test_registering_as_an_app_needs_the_apps_credentials_alone():
    nobody = {"client_id": None, "client_secret": None}
    async with scripted(lambda _: web.json_response({"profileToken": "t"}, status=201)) as server:
        async with client(server.url, **nobody, **APP) as api:
            assert (await api.profiles.register_by_app("u")).profile_token == "t"
        async with client(server.url) as api:
            with pytest.raises(NotConfigured, match="CONSUMER_SAHHA__APP_ID and CONSUMER_SAHHA__APP_SECRET"):
                await api.profiles.register_by_app("u")
        async with client(server.url, app_id="app", app_secret=f"{CANARY}\n") as api:
            with pytest.raises(SettingsError, match="CONSUMER_SAHHA__APP_SECRET") as caught:
                await api.profiles.register_by_app("u")
    assert CANARY not in str(caught.value)


class TestLifetime:
    """How long a token may be used: kept for `lives_for` less the margin."""

    @staticmethod
    def used_for(token: str, expires_in: float | None) -> float:
        return minted(token, expires_in, now=NOW).lives_for - MARGIN

    def test_what_came_with_it_counts_first(self):
        token = jwt.encode({"exp": NOW + 7200}, "k" * 32, algorithm="HS256")
        assert self.used_for(token, 86400) == 86400 - MARGIN

    def test_else_what_it_says_itself(self):
        token = jwt.encode({"exp": NOW + 7200}, "k" * 32, algorithm="HS256")
        assert self.used_for(token, None) == 7200 - MARGIN

    def test_half_of_a_short_life(self):
        assert self.used_for("t", 60) == 30

    @pytest.mark.parametrize("token", ["no.token", "", "a.b.c", "e30.bnVsbA.x", "é"])
    def test_an_hour_without_a_word(self, token):
        assert self.used_for(token, None) == UNKNOWN_LIFETIME - MARGIN

    @given(st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.booleans()))
    @settings(max_examples=50, deadline=None)
    def test_any_claim(self, exp: Any):
        """Whatever a token says of itself, it is kept for a finite time."""
        token = jwt.encode({"exp": exp}, "k" * 32, algorithm="HS256")
        assert 0 <= minted(token, None, now=NOW).lives_for <= 2.0**53

    def test_repr_is_silent(self):
        assert CANARY not in repr(minted(CANARY, 5, now=NOW))


async def test_nothing_shows_a_secret_a_token_or_a_member(caplog, capsys):
    """Neither what is printed of the client and its errors, nor tracebacks, nor any log line."""
    caplog.set_level(logging.DEBUG)
    canary_token = f"{CANARY}.token"

    def answering(status: int, body: Any) -> Callable[[Seen], web.Response]:
        def answer(seen: Seen) -> web.Response:
            if "account/token" in seen.target:
                return web.json_response({"accountToken": canary_token, "expiresIn": 60})
            if "oauth/profile/token" in seen.target:
                return web.json_response({"profileToken": canary_token, "refreshToken": canary_token})
            return web.json_response(body, status=status)

        return answer

    seen: list[str] = []
    for status, body in [(400, {"title": CANARY, "errors": [CANARY]}), (401, CANARY), (500, CANARY), (200, [[CANARY]])]:
        async with scripted(answering(status, body)) as server:
            api = client(
                server.url,
                client_secret=CANARY,
                app_id="app",
                app_secret=CANARY,
                options=HttpOptions(attempts=2),
            )
            calls: list[Awaitable[Any]] = [
                api.scores(CANARY, types=[CANARY]),
                api.demographics.put(CANARY, {"occupation": CANARY}),
                api.profiles.register_by_app(CANARY),
                api.profiles.refresh(CANARY, profile_token=CANARY),
            ]
            for call in calls:
                try:
                    seen.append(repr(await call))
                except (ApiError, Unavailable) as error:
                    seen.extend([repr(error), str(error), *traceback.format_exception(error)])
                    seen.extend(repr(detail) for detail in getattr(error, "details", ()))
            seen += [
                repr(part)
                for part in (api, api.profiles, api.logs, api._calls, api._calls._credentials, api._calls._http)
            ]
            seen += [repr(await api.account_token()), repr(await api.profiles.token(CANARY))]
            await api.close()
    assert len(seen) > 30
    assert CANARY not in "".join(seen)
    assert CANARY not in caplog.text + "".join(capsys.readouterr())
