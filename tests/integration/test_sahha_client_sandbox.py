"""Every call of the Sahha client against the sandbox, with the quirks that the sandbox can be given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from consumer.clients.http import HttpOptions
from consumer.clients.sahha import SahhaClient
from consumer.errors import ApiError, NotFound
from consumer.outcomes import Unavailable
from consumer.sandbox.server import Sandbox

LOG = {
    "id": "11111111-1111-4111-8111-111111111111",
    "logType": "sleep",
    "dataType": "sleep_stage_deep",
    "value": 42.5,
    "unit": "minute",
    "source": "com.example.health",
    "recordingMethod": "automatically_recorded",
    "deviceType": "Watch6,2",
    "startDateTime": "2026-03-15T00:02:02.52+13:00",
    "endDateTime": "2026-03-15T00:44:32.52+13:00",
}


def client_of(sandbox: Sandbox, **changes: Any) -> SahhaClient:
    keys = sandbox.sahha
    arguments: dict[str, Any] = {
        "base_url": sandbox.url,
        "client_id": keys.client_id,
        "client_secret": keys.client_secret,
        "app_id": keys.app_id,
        "app_secret": keys.app_secret,
        "options": HttpOptions(attempts=2, retry_budget=3.0),
    }
    return SahhaClient(**arguments | changes)


async def control(sandbox: Sandbox, path: str, **body: Any) -> Any:
    async with aiohttp.ClientSession() as session, session.post(f"{sandbox.url}/sandbox/{path}", json=body) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


@pytest.fixture
async def sahha(sandbox: Sandbox) -> AsyncIterator[SahhaClient]:
    async with client_of(sandbox) as client:
        yield client


@pytest.fixture
def member(sandbox: Sandbox) -> str:
    """Somebody with results."""
    return sandbox.world.members[0]


@pytest.fixture
def bare(sandbox: Sandbox) -> str:
    """Somebody without any."""
    return sandbox.world.members[-1]


async def test_scores(sahha: SahhaClient, member: str) -> None:
    """Typed, from 0 to 1, newest first, of the types asked for."""
    scores = await sahha.scores(member, types=["sleep", "activity"])
    assert {score.type for score in scores} == {"sleep", "activity"}
    assert all(score.score is None or 0 <= score.score <= 1 for score in scores)
    days = [score.score_date_time for score in scores]
    assert days == sorted(days, key=lambda day: day or datetime.max.replace(tzinfo=UTC), reverse=True)
    assert scores[0].factors[0].name
    since = datetime.now(UTC) - timedelta(days=5)
    assert 0 < len(await sahha.scores(member, types="sleep", start=since)) < 7
    assert await sahha.scores(member, version=2) == []


@pytest.mark.parametrize("style", ["repeat", "comma"])
async def test_both_ways_of_writing_lists(sandbox: Sandbox, member: str, style: str) -> None:
    """Either brings the same."""
    async with client_of(sandbox, list_style=style) as sahha:
        markers = await sahha.biomarkers(member, categories=["sleep", "vitals"], types=["sleep_duration", "vo2_max"])
        assert {marker.type for marker in markers} == {"sleep_duration", "vo2_max"}


async def test_the_other_shape_of_scores(sandbox: Sandbox, sahha: SahhaClient, member: str) -> None:
    """`value` and `createdAt` are read too, and not rescaled."""
    await control(sandbox, "sahha", score_shape="value")
    scores = await sahha.scores(member)
    assert max(score.score or 0 for score in scores) > 1
    assert all(score.created_at_utc for score in scores)


async def test_biomarkers(sahha: SahhaClient, member: str) -> None:
    """Without categories all are asked for; a value is decoded by its type."""
    markers = await sahha.biomarkers(member)
    assert {marker.category for marker in markers} == {"activity", "sleep", "vitals"}
    by_type = {marker.type: marker for marker in markers}
    assert isinstance(by_type["steps"].value, int)
    assert isinstance(by_type["vo2_max"].value, float)
    assert isinstance(by_type["sleep_start_time"].value, datetime)


async def test_archetypes_trends_and_comparisons(sahha: SahhaClient, member: str) -> None:
    """Each with its filters; nothing is an empty list."""
    assert [one.name for one in await sahha.archetypes(member, name="sleep_pattern")] == ["sleep_pattern"]
    assert await sahha.archetypes(member, periodicity="daily") == []
    trend = (await sahha.trends(member, category="score", name="sleep", start=date(2020, 1, 1)))[0]
    assert (trend.name, trend.data[0].percent_change_from_previous) == ("sleep", None)
    comparison = (await sahha.comparisons(member, category="biomarker", name="steps"))[0]
    assert [entry.type for entry in comparison.data] == ["global", "demographic", "baseline"]


@pytest.mark.parametrize("no_data", ["204", "empty"])
async def test_no_data_is_an_empty_list_or_none(sandbox: Sandbox, sahha: SahhaClient, bare: str, no_data: str) -> None:
    """However Sahha says it."""
    await control(sandbox, "sahha", no_data=no_data)
    assert await sahha.scores(bare) == await sahha.biomarkers(bare) == await sahha.archetypes(bare) == []
    assert await sahha.trends(bare) == await sahha.comparisons(bare) == []
    assert await sahha.demographics.get(bare) is None
    assert await sahha.device.get(bare) is None


@pytest.mark.parametrize("base", [0, 1])
async def test_a_search_brings_every_profile_once(sandbox: Sandbox, sahha: SahhaClient, base: int) -> None:
    """Whichever number the first page has."""
    await control(sandbox, "sahha", page_base=base)
    found = [profile.external_id async for profile in sahha.profiles.search(page_size=2)]
    assert found[:-1] == sandbox.world.members
    samples = [profile async for profile in sahha.profiles.search("SampleProfile-")]
    assert [profile.is_sample_profile for profile in samples] == [True]
    assert [profile async for profile in sahha.profiles.search("nobody at all")] == []


async def test_the_life_of_a_profile(sahha: SahhaClient) -> None:
    """Registered by the account and by the app, read, renewed, deleted; then it is gone for good."""
    odd = "a/b %2F?ü"
    token = await sahha.profiles.register(odd)
    with pytest.raises(ApiError) as refused:
        await sahha.profiles.register(odd)
    assert refused.value.status == 400
    await sahha.profiles.register_by_app("by-app")
    profile = await sahha.profiles.get(odd)
    assert profile is not None
    assert profile.external_id == odd
    assert await sahha.profiles.info(odd) == profile
    assert token.refresh_token is not None
    renewed = await sahha.profiles.refresh(token.refresh_token, profile_token=token.profile_token)
    assert renewed.profile_token != token.profile_token
    assert (await sahha.profiles.token("by-app", read_only=True, lifetime=60)).expires_in == 60
    await sahha.profiles.delete(odd, "by-app")
    for gone in (sahha.profiles.get(odd), sahha.profiles.info(odd), sahha.scores("by-app")):
        with pytest.raises(NotFound) as missing:
            await gone
        assert missing.value.status == 410


async def test_demographics_and_device(sahha: SahhaClient, bare: str) -> None:
    """Put replaces, patch changes only what is given, and what Sahha will not have is an ApiError that names it."""
    await sahha.demographics.put(bare, {"age": 40, "country": "NZ"})
    await sahha.demographics.patch(bare, {"age": 41})
    known = await sahha.demographics.get(bare)
    assert known is not None
    assert (known.age, known.country) == (41, "NZ")
    with pytest.raises(ApiError) as refused:
        await sahha.demographics.patch(bare, {"age": 7})
    assert (refused.value.status, [detail.where for detail in refused.value.details]) == (400, ["age"])
    await sahha.device.put(bare, {"sdkId": "ios_swift", "deviceType": "iPhone13,2"})
    device = await sahha.device.get(bare)
    assert device is not None
    assert device.sdk_id == "ios_swift"


async def test_logs_are_uploaded_in_batches(sahha: SahhaClient, bare: str) -> None:
    """More than one batch holds; afterwards there are scores."""
    told: list[int] = []
    logs = [LOG | {"id": f"log-{number}"} for number in range(130)]
    assert await sahha.logs.upload(bare, logs, progress=told.append) == 130
    assert told == [60, 120, 130]
    assert {score.type for score in await sahha.scores(bare)} >= {"sleep", "readiness"}


async def test_expired_tokens_are_renewed(sandbox: Sandbox, sahha: SahhaClient, member: str) -> None:
    """Once, unseen by the caller: the account's and a profile's."""
    await sahha.scores(member)
    await sahha.profiles.info(member)
    await control(sandbox, "sahha", revoke_tokens=True)
    assert await sahha.scores(member)
    assert await sahha.profiles.info(member)


async def test_wrong_credentials_are_told_apart_from_trouble(sandbox: Sandbox, member: str) -> None:
    """400 is an ApiError without the secret in it; faults are tried again, and Unavailable when they last."""
    async with client_of(sandbox, client_secret="not-the-secret") as sahha:
        with pytest.raises(ApiError) as refused:
            await sahha.scores(member)
        assert refused.value.status == 400
        assert "not-the-secret" not in repr(refused.value) + str(refused.value)
        sahha.replace_client_secret(sandbox.sahha.client_secret)
        assert await sahha.scores(member)
        rule = {"path": "/api/v1/profile", "error_rate": 1, "status": 503, "retry_after": 0}
        await control(sandbox, "faults", rules=[rule | {"times": 1}])
        assert await sahha.scores(member)
        await control(sandbox, "faults", rules=[rule])
        with pytest.raises(Unavailable):
            await sahha.scores(member)


async def test_an_unknown_profile_is_not_found(sahha: SahhaClient) -> None:
    """404 from each way to ask for one."""
    for missing in (sahha.profiles.get("nobody"), sahha.profiles.info("nobody"), sahha.scores("nobody")):
        with pytest.raises(NotFound):
            await missing


async def test_an_account_token_to_use_elsewhere(sandbox: Sandbox, sahha: SahhaClient, member: str) -> None:
    """Works under the literal scheme, and under no other."""
    token = (await sahha.account_token()).account_token
    url = f"{sandbox.url}/api/v1/account/profile/{member}"
    async with aiohttp.ClientSession() as session:
        for scheme, status in (("account", 200), ("Bearer", 500), ("profile", 401)):
            async with session.get(url, headers={"Authorization": f"{scheme} {token}"}) as reply:
                assert reply.status == status
