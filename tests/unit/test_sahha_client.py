"""Sahha's client: every call's request and answer, and what happens when Sahha answers something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import stamina
from aiohttp import web

from consumer.clients.http import Reply
from consumer.clients.sahha_reading import read_many, read_one, read_present
from consumer.errors import ApiError
from consumer.models.sahha import Demographic, DeviceInformation, Profile, Score
from consumer.models.sahha_names import BIOMARKER_CATEGORIES
from tests.servers.scripted import Seen
from tests.unit.sahha_fake import ID, Fake, client, reads, sahha, says, silent

SAMPLES = Path(__file__).parents[1] / "samples" / "sahha"
QUOTED = "member%2F48%20%C3%BC"
KIWI = timezone(timedelta(hours=12))


@pytest.fixture(autouse=True)
def _no_waits():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


async def test_scores_are_asked_for_as_the_account_and_read():
    sample = json.loads((SAMPLES / "score-created.json").read_text())
    async with sahha(says([sample])) as fake, client(fake.url) as api:
        scores = await api.scores(
            ID,
            types=["sleep", "activity"],
            start=datetime(2025, 6, 1, 8, tzinfo=KIWI),
            end=date(2025, 6, 30),
            version="1",
        )
    assert (fake.call.method, urlsplit(fake.call.target).path) == ("GET", f"/api/v1/profile/score/{QUOTED}")
    assert fake.call.headers["authorization"] == "account acc.1"
    assert fake.query == [
        ("types", "sleep"),
        ("types", "activity"),
        ("startDateTime", "2025-06-01T08:00:00+12:00"),
        ("endDateTime", "2025-06-30"),
        ("version", "1"),
    ]
    assert [score.score for score in scores] == [0.7400000095367432]


async def test_lists_can_be_separated_by_commas():
    async with sahha(says([])) as fake, client(fake.url, list_style="comma") as api:
        await api.scores(ID, types=["sleep", "activity"])
    assert fake.query == [("types", "sleep,activity")]


async def test_one_name_is_a_list_of_one():
    async with sahha(says([])) as fake, client(fake.url) as api:
        await api.scores(ID, types="sleep")
    assert fake.query == [("types", "sleep")]


async def test_biomarkers_without_categories_ask_for_all_that_are_known():
    sample = json.loads((SAMPLES / "biomarker-created.json").read_text())
    async with sahha(says([sample])) as fake, client(fake.url) as api:
        biomarkers = await api.biomarkers(ID, types=["steps"])
    assert urlsplit(fake.call.target).path == f"/api/v1/profile/biomarker/{QUOTED}"
    assert fake.query == [*(("categories", name) for name in BIOMARKER_CATEGORIES), ("types", "steps")]
    assert isinstance(biomarkers[0].value, datetime)


async def test_biomarkers_of_given_categories():
    async with sahha(says([])) as fake, client(fake.url) as api:
        await api.biomarkers(ID, categories=["sleep"])
    assert fake.query == [("categories", "sleep")]


async def test_archetypes():
    sample = json.loads((SAMPLES / "archetype-created.json").read_text())
    async with sahha(says([sample])) as fake, client(fake.url) as api:
        archetypes = await api.archetypes(ID, name="sleep_pattern", periodicity="weekly")
    assert urlsplit(fake.call.target).path == f"/api/v1/profile/archetypes/{QUOTED}"
    assert fake.query == [("name", "sleep_pattern"), ("periodicity", "weekly")]
    assert archetypes[0].name == "sleep_pattern"


async def test_trends_and_comparisons():
    async with sahha(says([{"name": "sleep", "category": "score"}])) as fake, client(fake.url) as api:
        trends = await api.trends(ID, category="score", name="sleep", start=date(2025, 6, 1))
        comparisons = await api.comparisons(ID, category="score", name="sleep")
    first, second = fake.calls
    assert urlsplit(first.target).path == f"/api/v1/profile/insight/trend/{QUOTED}"
    assert parse_qsl(urlsplit(first.target).query) == [
        ("category", "score"),
        ("name", "sleep"),
        ("startDateTime", "2025-06-01"),
    ]
    assert urlsplit(second.target).path == f"/api/v1/profile/insight/comparison/{QUOTED}"
    assert (trends[0].name, comparisons[0].name) == ("sleep", "sleep")


@pytest.mark.parametrize("answer", [silent(204), silent(200), says([]), says(None)])
async def test_no_data_is_an_empty_list_or_none(answer):
    async with sahha(answer) as fake, client(fake.url) as api:
        assert await api.scores(ID) == []
        assert await api.biomarkers(ID) == []
        assert await api.archetypes(ID) == []
        assert await api.trends(ID) == []
        assert await api.comparisons(ID) == []
        assert await api.demographics.get(ID) is None
        assert await api.device.get(ID) is None
        assert await api.profiles.get(ID) is None
        assert await api.profiles.info(ID) is None
        assert [profile async for profile in api.profiles.search()] == []


def test_a_204_is_never_read():
    """Nor is white space; anything else is."""
    assert read_many("GET /x", Reply(204, {}, b"not json"), Score) == []
    assert read_one("GET /x", Reply(200, {}, b" \n"), Profile) is None
    with pytest.raises(ApiError):
        read_many("GET /x", Reply(200, {}, b"not json"), Score)
    with pytest.raises(ApiError):
        read_present("GET /x", Reply(204, {}, b""), Profile)


async def test_profiles_are_registered_as_the_account():
    answer = {"profileToken": "pro.9", "expiresIn": 86400, "tokenType": "profile", "refreshToken": "ref.9"}
    async with sahha(says(answer, status=201)) as fake, client(fake.url) as api:
        token = await api.profiles.register(ID)
    assert (fake.call.method, fake.call.target) == ("POST", "/api/v1/oauth/profile/register")
    assert fake.call.headers["authorization"] == "account acc.1"
    assert fake.body == {"externalId": ID}
    assert (token.profile_token, token.refresh_token) == ("pro.9", "ref.9")


async def test_profiles_are_registered_as_the_app_without_authorization():
    async with sahha(says({"profileToken": "pro.9"}, status=201)) as fake, client(fake.url) as api:
        await api.profiles.register_by_app(ID)
    assert fake.call.target == "/api/v1/oauth/profile/register/appId"
    assert (fake.call.headers["AppId"], fake.call.headers["AppSecret"]) == ("app", "app-secret")
    assert "authorization" not in fake.call.headers
    assert len(fake.server.requests) == 1


async def test_a_token_is_minted_for_use_elsewhere():
    async with sahha(says(None)) as fake, client(fake.url) as api:
        assert (await api.profiles.token(ID)).profile_token == "pro.1"
        await api.profiles.token(ID, read_only=True, lifetime=600)
    bodies = [json.loads(seen.body) for seen in fake.server.requests if seen.target.endswith("/profile/token")]
    assert bodies == [{"externalId": ID}, {"externalId": ID, "readOnly": True, "lifetime": 600}]


async def test_a_refresh_carries_the_old_token_and_the_refresh_token():
    async with sahha(says({"profileToken": "pro.2", "expiresIn": 86400})) as fake, client(fake.url) as api:
        token = await api.profiles.refresh("ref.1", profile_token="pro.1")
    assert fake.call.target == "/api/v1/oauth/profile/refreshToken"
    assert (fake.call.headers["authorization"], fake.body) == ("profile pro.1", {"refreshToken": "ref.1"})
    assert token.profile_token == "pro.2"


async def test_profiles_are_read_by_the_account_and_by_themselves():
    async with sahha(says({"profileId": "p", "externalId": ID})) as fake, client(fake.url) as api:
        by_account = await api.profiles.get(ID)
        by_itself = await api.profiles.info(ID)
    assert by_account == by_itself
    first, second = fake.calls
    assert (first.target, first.headers["authorization"]) == (f"/api/v1/account/profile/{QUOTED}", "account acc.1")
    assert (second.target, second.headers["authorization"]) == ("/api/v1/profile", "profile pro.1")


async def test_profiles_are_deleted_together():
    async with sahha(silent(202)) as fake, client(fake.url) as api:
        await api.profiles.delete("user-123", ID)
    assert (fake.call.method, fake.call.target, fake.body) == ("DELETE", "/api/v1/profile", ["user-123", ID])


async def test_demographics_are_read_replaced_and_changed():
    answer = {"age": 41, "gender": "Female", "birthDate": "1984-03-01", "country": "NZ"}
    async with sahha(reads(answer)) as fake, client(fake.url) as api:
        known = await api.demographics.get(ID)
        assert known == Demographic(age=41, gender="Female", birth_date=date(1984, 3, 1), country="NZ")
        await api.demographics.put(ID, known)
        await api.demographics.patch(ID, {"income_range": None, "livingArrangement": "alone"})
    put, patch = fake.calls[1:]
    assert (put.method, json.loads(put.body)) == ("PUT", answer)
    assert (patch.method, json.loads(patch.body)) == ("PATCH", {"incomeRange": None, "livingArrangement": "alone"})
    assert {(seen.target, seen.headers["authorization"]) for seen in fake.calls} == {
        ("/api/v1/profile/demographic", "profile pro.1")
    }


async def test_device_information_is_read_and_replaced():
    device = {"sdkId": "ios_swift", "deviceModel": "iPhone13,2", "timeZone": "+12:00"}
    async with sahha(reads(device)) as fake, client(fake.url) as api:
        assert await api.device.get(ID) == DeviceInformation.model_validate(device)
        await api.device.put(ID, device)
    assert fake.calls[0].target == "/api/v1/profile/deviceInformation"
    assert json.loads(fake.calls[1].body) == device


class TestSearch:
    """Pages of profiles, whatever they count from."""

    PEOPLE = tuple({"profileId": f"p{number}", "externalId": f"u{number}"} for number in range(5))

    def pages(self, base: int, *, total: int | None = 3) -> Callable[[Seen], web.Response]:
        def answer(seen: Seen) -> web.Response:
            query = dict(parse_qsl(urlsplit(seen.target).query))
            number = int(query.get("currentPage", base))
            first = 2 * (number - base)
            page: dict[str, Any] = {"items": list(self.PEOPLE[first : first + 2]), "currentPage": number}
            return web.json_response(page if total is None else {**page, "totalPages": total})

        return answer

    async def found(self, answer: Callable[[Seen], web.Response], **options: Any) -> tuple[list[str | None], Fake]:
        async with sahha(answer) as fake, client(fake.url) as api:
            return [profile.external_id async for profile in api.profiles.search(**options)], fake

    @pytest.mark.parametrize("base", [0, 1])
    async def test_all_pages(self, base):
        found, fake = await self.found(self.pages(base), text="u", page_size=2)
        assert found == ["u0", "u1", "u2", "u3", "u4"]
        queries = [dict(parse_qsl(urlsplit(seen.target).query)) for seen in fake.calls]
        assert queries[0] == {"searchParameter": "u", "pageSize": "2"}
        assert [query.get("currentPage") for query in queries] == [None, str(base + 1), str(base + 2)]

    async def test_without_a_total_the_empty_page_ends_it(self):
        found, fake = await self.found(self.pages(1, total=None))
        assert (len(found), len(fake.calls)) == (5, 4)

    async def test_a_page_that_repeats_ends_it(self):
        found, fake = await self.found(says({"items": list(self.PEOPLE[:2]), "totalPages": 9}))
        assert (found, len(fake.calls)) == (["u0", "u1"], 2)

    async def test_pages_are_asked_for_as_they_are_needed(self):
        async with sahha(self.pages(0)) as fake, client(fake.url) as api:
            search = api.profiles.search()
            assert (await anext(search)).external_id == "u0"
            assert len(fake.calls) == 1
            await search.aclose()  # type: ignore[attr-defined]

    async def test_a_page_size_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="page_size"):
            await self.found(self.pages(0), page_size=0)
