"""What a profile writes to the sandbox's Sahha: demographics, its device, and data logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.integration.sandbox_sahha import Served, served


@pytest.fixture
async def sahha() -> AsyncIterator[Served]:
    async with served() as running:
        yield running


def a_log(**changes: Any) -> dict[str, Any]:
    return {
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
    } | changes


async def test_demographics(sahha: Served) -> None:
    """204 before there are any; PUT replaces, PATCH merges, both answer nothing; 400 for an age that is none."""
    path, headers = "/api/v1/profile/demographic", await sahha.profile(sahha.members[-1])
    assert (await sahha.client.get(path, headers=headers)).status == 204
    reply = await sahha.client.put(path, json={"age": 40, "country": "NZ"}, headers=headers)
    assert (reply.status, await reply.read()) == (200, b"")
    await sahha.client.patch(path, json={"age": 41}, headers=headers)
    reply = await sahha.client.get(path, headers=headers)
    assert await reply.json() == {"age": 41, "country": "NZ"}
    await sahha.client.put(path, json={"gender": "male"}, headers=headers)
    assert await (await sahha.client.get(path, headers=headers)).json() == {"gender": "male"}
    for wrong in ({"age": 17}, {"age": "40"}, {"country": 7}, [], None):
        assert (await sahha.client.patch(path, json=wrong, headers=headers)).status == 400


async def test_device_information(sahha: Served) -> None:
    """204 before there is any; what is read has an id of its own; 400 for what is no text."""
    path, headers = "/api/v1/profile/deviceInformation", await sahha.profile(sahha.members[0])
    assert (await sahha.client.get(path, headers=headers)).status == 204
    about = {"sdkId": "ios_swift", "sdkVersion": "1.2.3", "deviceType": "iPhone13,2", "timeZone": "+12:00"}
    reply = await sahha.client.put(path, json=about, headers=headers)
    assert (reply.status, await reply.read()) == (200, b"")
    answer = await (await sahha.client.get(path, headers=headers)).json()
    assert answer.pop("deviceInformationId")
    assert answer == about
    assert (await sahha.client.put(path, json={"sdkId": 1}, headers=headers)).status == 400
    assert (await (await sahha.get("profile", headers)).json())["sdkId"] == "ios_swift"


async def test_uploaded_logs_bring_scores(sahha: Served) -> None:
    """200 with nothing in it; then there are scores and biomarkers where there were none."""
    headers = await sahha.profile(sahha.members[-1])
    reply = await sahha.client.post("/api/v1/profile/data/log", json=[a_log(), a_log(value="7")], headers=headers)
    assert (reply.status, await reply.read()) == (200, b"")
    rows = await (await sahha.get("profile/score", headers)).json()
    assert {row["type"] for row in rows} == {"sleep", "readiness", "wellbeing", "mental_wellbeing"}
    assert (await sahha.get("profile/biomarker", headers, categories="sleep")).status == 200
    info = await (await sahha.get("profile", headers)).json()
    assert info["dataSources"] == [{"sourceName": "com.example.health", "deviceType": "Watch6,2"}]
    assert datetime.fromisoformat(info["dataLastReceivedAtUtc"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": None},
        {"logType": ""},
        {"value": None},
        {"value": True},
        {"value": "much"},
        {"value": "nan"},
        {"value": 10**400},
        {"startDateTime": "now"},
        {"endDateTime": 7},
    ],
)
async def test_one_bad_log_refuses_all(sahha: Served, wrong: dict[str, Any]) -> None:
    """400, naming the field; nothing of the batch is taken."""
    headers = await sahha.profile(sahha.members[-1])
    reply = await sahha.client.post("/api/v1/profile/data/log", json=[a_log(), a_log(**wrong)], headers=headers)
    assert reply.status == 400
    assert (await reply.json())["errors"][0]["origin"] == f"[1].{next(iter(wrong))}"
    assert (await sahha.get("profile/score", headers)).status == 204


@pytest.mark.parametrize("raw", [b"", b"{}", b"[7]", b"nonsense", b"[NaN]", b"[" * 100_000, b"\xff", b"9" * 5_000])
async def test_what_is_no_list_of_logs_is_refused(sahha: Served, raw: bytes) -> None:
    """400 whatever the bytes."""
    headers = await sahha.profile(sahha.members[0])
    assert (await sahha.client.post("/api/v1/profile/data/log", data=raw, headers=headers)).status == 400
