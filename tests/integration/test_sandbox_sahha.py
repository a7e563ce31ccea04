"""The REST API of the sandbox's Sahha, and each quirk that the reference tells of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.sandbox_sahha import Served, served

NOBODY = "member-unknown"
NAMES = (
    "externalId",
    "clientId",
    "clientSecret",
    "refreshToken",
    "readOnly",
    "lifetime",
    "age",
    "id",
    "logType",
    "value",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=8,
)
WRITES = (
    ("POST", "oauth/account/token"),
    ("POST", "oauth/profile/register"),
    ("POST", "oauth/profile/token"),
    ("POST", "oauth/profile/refreshToken"),
    ("DELETE", "profile"),
    ("POST", "profile/data/log"),
    ("PUT", "profile/demographic"),
    ("PATCH", "profile/demographic"),
    ("PUT", "profile/deviceInformation"),
)


@pytest.fixture
async def sahha() -> AsyncIterator[Served]:
    async with served() as running:
        yield running


async def test_an_account_token_takes_the_right_credentials(sahha: Served) -> None:
    """200 with a token for a day; 400 for credentials of another environment."""
    keys = sahha.parts.credentials.sahha
    for secret, status in ((keys.client_secret, 200), ("wrong", 400), (7, 400), ("\ud800", 400)):
        body = {"clientId": keys.client_id, "clientSecret": secret}
        reply = await sahha.client.post("/api/v1/oauth/account/token", json=body)
        assert reply.status == status
    right = {"clientId": keys.client_id, "clientSecret": keys.client_secret}
    reply = await sahha.client.post("/api/v1/oauth/account/token", json=right)
    assert (await reply.json())["expiresIn"] == 86_400


async def test_the_scheme_is_account_or_profile_in_any_case(sahha: Served) -> None:
    """`Bearer` is a 500 in the shape of errors; no token, a wrong or another kind of token is a 401."""
    account, profile = (
        (await sahha.account())["Authorization"],
        (await sahha.profile(sahha.members[0]))["Authorization"],
    )
    token = account.split(" ")[1]
    own, named = "profile/score", f"profile/score/{sahha.members[0]}"
    expected = (
        (named, account, 200),
        (named, account.replace("account", "Account"), 200),
        (own, profile.replace("profile", "PROFILE"), 200),
        (named, f"Bearer {token}", 500),
        (named, profile, 401),
        (own, account, 401),
        (named, f"profile {token}", 401),
        (named, "account not-a-token", 401),
        (named, "account", 401),
    )
    for path, authorization, status in expected:
        reply = await sahha.get(path, {"Authorization": authorization})
        assert (path, authorization[:7], reply.status) == (path, authorization[:7], status)
        if status >= 400:
            assert set(await reply.json()) == {"title", "statusCode", "location", "errors"}
    assert (await sahha.get(named, {})).status == 401


async def test_tokens_expire_and_can_be_revoked(sahha: Served) -> None:
    """A revoked account token is a 401, and so is a profile's whose life was short; a new one works."""
    account = await sahha.account()
    await sahha.control("sahha", {"revoke_tokens": True})
    assert (await sahha.get("account/profile/search", account)).status == 401
    assert (await sahha.get("account/profile/search")).status == 200
    stale = sahha.sahha.access.tokens.profile(sahha.members[0], lifetime=-1)
    assert (await sahha.get("profile", {"Authorization": f"profile {stale['profileToken']}"})).status == 401
    assert (await sahha.control("sahha", {"token_lifetime": 60}))["token_lifetime"] == 60
    assert sahha.sahha.access.tokens.account("c")["expiresIn"] == 60


async def test_registering_a_profile(sahha: Served) -> None:
    """201 with tokens once, 400 for an id in use or none; an app shows its own headers, or gets 401."""
    path, account = "/api/v1/oauth/profile/register", await sahha.account()
    statuses = []
    for body in ({"externalId": "new-1"}, {"externalId": "new-1"}, {"externalId": " "}, {}, []):
        reply = await sahha.client.post(path, json=body, headers=account)
        statuses.append(reply.status)
    assert statuses == [201, 400, 400, 400, 400]
    keys = sahha.parts.credentials.sahha
    headers = {"AppId": keys.app_id, "AppSecret": keys.app_secret}
    reply = await sahha.client.post(path + "/appId", json={"externalId": "new-2"}, headers=headers)
    assert reply.status == 201
    answer = await reply.json()
    assert set(answer) == {"profileToken", "expiresIn", "tokenType", "refreshToken"}
    assert (await sahha.get("profile", {"Authorization": f"profile {answer['profileToken']}"})).status == 200
    wrong = await sahha.client.post(path + "/appId", json={"externalId": "new-3"}, headers=headers | {"AppSecret": "x"})
    assert wrong.status == 401


@pytest.mark.parametrize("lifetime", [60, "60"])
@pytest.mark.parametrize("read_only", [True, "true", "True"])
async def test_a_profile_token_takes_texts_for_flags_and_numbers(
    sahha: Served, lifetime: int | str, read_only: bool | str
) -> None:
    """`readOnly` and `lifetime` are sent as JSON's own or as texts; a token that may only read cannot write."""
    headers = await sahha.profile(sahha.members[0], readOnly=read_only, lifetime=lifetime)
    assert (await sahha.get("profile/score", headers)).status == 200
    reply = await sahha.client.put("/api/v1/profile/demographic", json={}, headers=headers)
    assert reply.status == 401


@pytest.mark.parametrize("wrong", [{"lifetime": "soon"}, {"lifetime": 0}, {"lifetime": True}, {"readOnly": "maybe"}])
async def test_a_profile_token_of_nonsense_is_refused(sahha: Served, wrong: dict[str, Any]) -> None:
    """400, and 404 for a profile that never was."""
    path, account = "/api/v1/oauth/profile/token", await sahha.account()
    reply = await sahha.client.post(path, json={"externalId": sahha.members[0], **wrong}, headers=account)
    assert reply.status == 400
    reply = await sahha.client.post(path, json={"externalId": NOBODY}, headers=account)
    assert reply.status == 404


async def test_a_refresh_shows_both_header_and_body(sahha: Served) -> None:
    """The old token, expired or not, and its refresh token; without either it is refused."""
    path, tokens = "/api/v1/oauth/profile/refreshToken", sahha.sahha.access.tokens
    issued, other = tokens.profile(sahha.members[0], lifetime=-1), tokens.profile(sahha.members[1])
    header = {"Authorization": f"Profile {issued['profileToken']}"}
    body = {"refreshToken": issued["refreshToken"]}
    expected = (
        (header, body, 200),
        ({}, body, 401),
        (header, {}, 400),
        (header, {"refreshToken": other["refreshToken"]}, 401),
        (await sahha.account(), body, 401),
    )
    for headers, sent, status in expected:
        reply = await sahha.client.post(path, json=sent, headers=headers)
        assert reply.status == status
    reply = await sahha.client.post(path, json=body, headers=header)
    renewed = {"Authorization": f"profile {(await reply.json())['profileToken']}"}
    assert (await sahha.get("profile", renewed)).status == 200


@pytest.mark.parametrize("base", [0, 1])
async def test_a_search_is_paged_from_either_base(base: int) -> None:
    """The first page is 0 or 1; all pages together are all profiles, and a page past the end is empty."""
    async with served(members=5, page_base=base) as sahha:
        first = await (await sahha.get("account/profile/search", pageSize=4)).json()
        assert (first["currentPage"], first["totalPages"], first["totalCount"]) == (base, 2, 6)
        second = await (await sahha.get("account/profile/search", pageSize=4, currentPage=base + 1)).json()
        ids = [item["externalId"] for item in first["items"] + second["items"]]
        assert ids == sahha.sahha.profiles
        assert "dataSources" not in first["items"][0]
        past = await sahha.get("account/profile/search", pageSize=4, currentPage=base + 2)
        assert (await past.json())["items"] == []
        sample = await (await sahha.get("account/profile/search", searchParameter="sampleprofile")).json()
        assert [item["isSampleProfile"] for item in sample["items"]] == [True]
        assert (await sahha.get("account/profile/search", pageSize="many")).status == 400


async def test_profiles_are_read_and_deleted(sahha: Served) -> None:
    """One with its data sources; 404 for one that never was; 410 for a deleted one, by either token."""
    gone, account = sahha.members[0], await sahha.account()
    token = await sahha.profile(gone)
    one = await (await sahha.get(f"account/profile/{gone}")).json()
    assert (one["externalId"], len(one["dataSources"])) == (gone, 1)
    assert (await (await sahha.get("profile", token)).json()) == one
    for body in ({"ids": [gone]}, [], [1], "x"):
        reply = await sahha.client.delete("/api/v1/profile", json=body, headers=account)
        assert reply.status == 400
    reply = await sahha.client.delete("/api/v1/profile", json=[gone, NOBODY], headers=account)
    assert (reply.status, await reply.read()) == (200, b"")
    assert (await sahha.get(f"account/profile/{gone}")).status == 410
    assert (await sahha.get("profile/score", token)).status == 410
    assert (await sahha.get(f"account/profile/{NOBODY}")).status == 404
    reply = await sahha.client.post("/api/v1/oauth/profile/register", json={"externalId": gone}, headers=account)
    assert reply.status == 201
    assert (await (await sahha.get(f"account/profile/{gone}")).json())["profileId"] != one["profileId"]


async def test_an_external_id_may_hold_anything_printable(sahha: Served) -> None:
    """A slash or a percent sign, when the path encodes it completely."""
    odd, account = "a/b %2F?ü", await sahha.account()
    reply = await sahha.client.post("/api/v1/oauth/profile/register", json={"externalId": odd}, headers=account)
    assert reply.status == 201
    raw = sahha.client.make_url("/api/v1/account/profile/").human_repr() + "a%2Fb%20%252F%3F%C3%BC"
    from yarl import URL

    reply = await sahha.client.session.get(URL(raw, encoded=True), headers=account)
    assert (await reply.json())["externalId"] == odd


async def test_scores_are_newest_first_and_about_two_weeks(sahha: Served) -> None:
    """From 0 to 1, 13 days of each type when no time is named, without the webhooks' own fields."""
    reply = await sahha.get(f"profile/score/{sahha.members[0]}", types="sleep")
    rows = await reply.json()
    assert 12 <= len(rows) <= 14
    days = [datetime.fromisoformat(row["scoreDateTime"]) for row in rows]
    assert days == sorted(days, reverse=True)
    assert all(row["score"] is None or 0 <= row["score"] <= 1 for row in rows)
    assert set(rows[0]) == {
        *("id", "type", "state", "score", "factors", "dataSources", "scoreDateTime", "createdAtUtc", "version")
    }


@pytest.mark.parametrize(
    "query",
    [
        [("types", "sleep"), ("types", "activity")],
        [("types", "sleep,activity")],
        [("types[0]", "sleep"), ("types[1]", "activity")],
        [("types", "sleep"), ("types", "activity"), ("types", "wellness")],
    ],
)
async def test_lists_are_read_in_each_way_of_writing_them(sahha: Served, query: list[tuple[str, str]]) -> None:
    """Repeated, with commas or with indexes; an unknown type is not refused."""
    path, headers = f"/api/v1/profile/score/{sahha.members[0]}", await sahha.account()
    reply = await sahha.client.get(path, headers=headers, params=query)
    assert {row["type"] for row in await reply.json()} == {"sleep", "activity"}


async def test_results_are_cut_to_the_times_asked_for(sahha: Served) -> None:
    """Both ends count; a plain date and a time without offset are UTC; no time is a 400."""
    path = f"profile/score/{sahha.members[0]}"
    every = await (await sahha.get(path, types="sleep", startDateTime="2000-01-01")).json()
    third = every[2]["scoreDateTime"]
    exact = await (await sahha.get(path, types="sleep", startDateTime=third, endDateTime=third)).json()
    assert exact == [every[2]]
    none = await sahha.get(path, startDateTime="2001-01-01", endDateTime="2001-12-31T00:00:00")
    assert none.status == 204
    for start, end in (("yesterday", "2026-01-01"), ("2026-01-02", "2026-01-01"), ("2026-01-01T00:00:00 12:00", "")):
        assert (await sahha.get(path, startDateTime=start, endDateTime=end)).status == 400


async def test_the_other_shape_of_scores() -> None:
    """As the API introduction shows it: 0 to 100 under `value`, `createdAt`, and little else."""
    async with served(score_shape="value") as sahha:
        rows = await (await sahha.get(f"profile/score/{sahha.members[0]}")).json()
        assert set(rows[0]) == {"type", "value", "state", "createdAt", "factors"}
        assert max(row["value"] or 0 for row in rows) > 1
        await sahha.control("sahha", {"score_shape": "score"})
        assert "score" in (await (await sahha.get(f"profile/score/{sahha.members[0]}")).json())[0]


async def test_biomarkers_demand_categories(sahha: Served) -> None:
    """400 without any; their values are texts; an unknown category is just nothing."""
    path = f"profile/biomarker/{sahha.members[0]}"
    assert (await sahha.get(path)).status == 400
    assert (await sahha.get(path, categories="")).status == 400
    rows = await (await sahha.get(path, categories="sleep,vitals", types="sleep_duration,vo2_max")).json()
    assert {(row["category"], row["type"]) for row in rows} == {("sleep", "sleep_duration"), ("vitals", "vo2_max")}
    assert all(isinstance(row["value"], str) for row in rows)
    assert not {"profileId", "externalId", "version"} & set(rows[0])
    assert (await sahha.get(path, categories="environment")).status in (200, 204)


@pytest.mark.parametrize(
    ("no_data", "statuses"), [("204", [204, 204]), ("empty", [200, 200]), ("alternate", [204, 200])]
)
async def test_nothing_is_said_in_two_ways(no_data: str, statuses: list[int]) -> None:
    """204 as documented, 200 with `[]` as observed, or now one and now the other."""
    async with served(no_data=no_data) as sahha:
        bare = sahha.members[-1]
        replies = [await sahha.get(f"profile/{path}/{bare}") for path in ("score", "archetypes")]
        assert [reply.status for reply in replies] == statuses
        assert [await reply.read() for reply in replies] == [b"" if one == 204 else b"[]" for one in statuses]


async def test_archetypes(sahha: Served) -> None:
    """Weekly or monthly; nothing of another periodicity; ordinal 0 for what has no order."""
    path = f"profile/archetypes/{sahha.members[0]}"
    rows = await (await sahha.get(path)).json()
    assert {row["periodicity"] for row in rows} <= {"weekly", "monthly"}
    assert all(row["ordinality"] == 0 for row in rows if row["dataType"] == "categorical")
    named = await (await sahha.get(path, name="sleep_pattern")).json()
    assert [row["name"] for row in named] == ["sleep_pattern"]
    assert await (await sahha.get(path, periodicity="daily")).read() in (b"", b"[]")


async def test_trends_and_comparisons(sahha: Served) -> None:
    """Worked out from the profile's own results; a category may be a kind of metric or, as elsewhere, its name."""
    who = sahha.members[0]
    by_kind = await (await sahha.get(f"profile/insight/trend/{who}", category="score", name="sleep")).json()
    by_name = await (await sahha.get(f"profile/insight/trend/{who}", category="sleep")).json()
    assert len(by_kind) == 1
    assert by_kind == by_name
    assert by_kind[0]["data"][0]["percentChangeFromPrevious"] is None
    assert by_kind[0]["state"] in ("increasing", "decreasing", "stable")
    rows = await (await sahha.get(f"profile/insight/comparison/{who}", category="biomarker")).json()
    assert {row["name"] for row in rows} >= {"steps", "sleep_duration", "heart_rate_resting"}
    assert [entry["type"] for entry in rows[0]["data"]] == ["global", "demographic", "baseline"]
    assert rows[0]["data"][2]["percentile"] is None
    assert not next(row for row in rows if row["name"] == "heart_rate_resting")["isHigherBetter"]
    assert (await sahha.get(f"profile/insight/trend/{who}", version="new")).status == 400


@pytest.mark.parametrize("path", ["/profile/score", "/api/profile/score", "/api/v1/profile/scores", "/api/v1/nothing"])
async def test_other_paths_are_not_found(sahha: Served, path: str) -> None:
    """404, without `/api` too."""
    assert (await sahha.client.get(path, headers=await sahha.account())).status == 404


async def test_a_sample_profile_has_sleep_only(sahha: Served) -> None:
    """What a dashboard's sample profiles at times hold."""
    sample = sahha.sahha.profiles[-1]
    assert sample.startswith("SampleProfile-")
    rows = await (await sahha.get(f"profile/score/{sample}")).json()
    assert {row["type"] for row in rows} == {"sleep"}


async def test_the_same_seed_is_the_same_world() -> None:
    """Whatever was asked for first; another seed is another world."""

    async def told(seed: int, *, first: int) -> str:
        async with served(seed=seed, no_data="empty") as sahha:
            answers = {}
            for member in sahha.members[first:] + sahha.members[:first]:
                reply = await sahha.get(f"profile/score/{member}", startDateTime="2000-01-01")
                answers[member] = await reply.json()
            return json.dumps(answers, sort_keys=True)

    assert await told(1, first=0) == await told(1, first=2)
    assert await told(1, first=0) != await told(2, first=0)


@settings(max_examples=30, deadline=None)
@given(body=JSON, query=st.dictionaries(st.sampled_from(("types", "version", "pageSize", "startDateTime")), st.text()))
async def test_no_request_is_too_much(body: Any, query: dict[str, str]) -> None:
    """Whatever JSON is written and whatever is asked for, the answer is not a failure of the sandbox's own."""
    async with served(members=1) as sahha:
        account, profile = await sahha.account(), await sahha.profile(sahha.members[0])
        statuses = []
        for path in ("profile/score", "account/profile/search", "profile/insight/trend"):
            who = account if path.startswith("account") else profile
            statuses.append((await sahha.get(path, who, **query)).status)
        for method, path in WRITES:
            for who in (account, profile):
                reply = await sahha.client.request(method, f"/api/v1/{path}", json=body, headers=who)
                statuses.append(reply.status)
        assert max(statuses) < 500
