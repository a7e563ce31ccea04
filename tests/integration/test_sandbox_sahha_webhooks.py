"""Webhooks of the sandbox's Sahha: signed as Sahha signs, held for their interval, tried again, and made on request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.errors import BadSignature, Unreadable, Unsigned, VerificationError
from consumer.signatures import SahhaSignature
from tests.integration.sandbox_sahha import Receiver, Served, receiver, served

TYPES = (
    "ScoreCreatedIntegrationEvent",
    "BiomarkerCreatedIntegrationEvent",
    "ArchetypeCreatedIntegrationEvent",
    "DataLogReceivedIntegrationEvent",
)
LOG = {
    "id": "11111111-1111-4111-8111-111111111111",
    "logType": "sleep",
    "dataType": "sleep_stage_deep",
    "value": 42.5,
    "startDateTime": "2026-03-15T00:02:02.52+13:00",
    "endDateTime": "2026-03-15T00:44:32.52+13:00",
}


def opened(sahha: Served, received: tuple[bytes, dict[str, str]], encoding: str = "hex") -> dict[str, Any]:
    """The body of a webhook, if it is Sahha's."""
    secret = sahha.parts.credentials.sahha.webhook_secret
    return SahhaSignature(secrets=[secret], encoding=encoding).open(*received).content


async def upload(sahha: Served, external_id: str, *logs: dict[str, Any], **query: str) -> None:
    headers = await sahha.profile(external_id)
    reply = await sahha.client.post("/api/v1/profile/data/log", json=list(logs), headers=headers, params=query)
    assert reply.status == 200


async def send(sahha: Served, **body: Any) -> None:
    await sahha.control("webhooks/events", {"wait": True, **body})


def named(taker: Receiver) -> list[str]:
    return [headers["X-Event-Type"] for _, headers in taker.got]


@pytest.mark.parametrize("event_type", TYPES)
@pytest.mark.parametrize("encoding", ["hex", "base64"])
async def test_every_type_is_signed_over_its_exact_bytes(event_type: str, encoding: str) -> None:
    """One compact JSON object per request with the three headers, which open."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        await sahha.control("webhooks", {"encoding": encoding})
        await send(sahha, count=3, event_type=event_type)
        for received in await taker.wait_for(3):
            content = opened(sahha, received, encoding)
            assert received[1]["X-Event-Type"] == event_type
            assert received[1]["X-External-Id"] == content["externalId"]
            assert received[1]["Content-Type"] == "application/json"
            assert json.dumps(content, separators=(",", ":")).encode() == received[0]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("forged", BadSignature),
        ("tampered_body", BadSignature),
        ("tampered_external_id", Unreadable),
        ("missing_header", VerificationError),
    ],
)
async def test_what_must_not_be_believed_does_not_open(kind: str, error: type[VerificationError]) -> None:
    """Each kind of mischief is refused for its own reason."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        await send(sahha, count=3, kind=kind)
        for received in await taker.wait_for(3):
            with pytest.raises(error):
                opened(sahha, received)


async def test_each_header_is_missing_in_turn() -> None:
    """The signature first, which makes it unsigned, then the other two."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        for _ in range(3):
            await send(sahha, count=3, kind="missing_header")
        three = {"X-Signature", "X-External-Id", "X-Event-Type"}
        missing = [three - set(headers) for _, headers in taker.got]
        assert sorted(map(str, missing)) == sorted(str({name}) for name in three for _ in range(3))
        unsigned = next(received for received in taker.got if "X-Signature" not in received[1])
        with pytest.raises(Unsigned):
            opened(sahha, unsigned)


async def test_a_replay_is_the_exact_request_again() -> None:
    """Only what was taken before can be replayed; an unknown type is signed well."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        await sahha.control("webhooks/events", {"kind": "replay"}, status=409)
        await send(sahha, count=2)
        await send(sahha, count=2, kind="replay")
        bodies = [received[0] for received in taker.got]
        assert sorted(bodies[:2]) == sorted(bodies[2:])
        await send(sahha, kind="unknown_type")
        assert opened(sahha, taker.got[-1])
        assert named(taker)[-1] not in TYPES


async def test_an_upload_is_told_at_once_and_moves_scores() -> None:
    """First the data log event of each kind of log, then biomarkers and scores, with the uploaded logs in it."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        steps = LOG | {"logType": "activity", "dataType": "steps", "value": "900"}
        await upload(sahha, sahha.members[0], LOG, steps, LOG)
        await taker.wait_for(2 + 11 + 5)
        contents = [opened(sahha, received) for received in taker.got]
        logs = {body["dataType"]: body["dataLogs"] for body in contents if "dataLogs" in body}
        assert {name: [log["value"] for log in told] for name, told in logs.items()} == {
            "sleep_stage_deep": [42.5, 42.5],
            "steps": [900.0],
        }
        assert {body["externalId"] for body in contents} == {sahha.members[0]}
        taker.got.clear()
        await upload(sahha, sahha.members[0], LOG, fireLogEvents="false")
        await taker.wait_for(6 + 4)
        assert "DataLogReceivedIntegrationEvent" not in named(taker)


async def test_within_an_interval_only_the_last_score_is_sent() -> None:
    """Many updates of one metric are two deliveries: the first, and when the window ends the last; logs never wait."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        await sahha.control("webhooks", {"interval_minutes": 720})
        await sahha.control(
            "webhooks/events", {"count": 20, "same_metric": True, "external_id": sahha.members[0]}, status=202
        )
        shown = await (await sahha.client.get("/sandbox/webhooks")).json()
        assert shown["held"] == 1
        await sahha.control("webhooks", {"interval_minutes": 1})
        first, last = (opened(sahha, received) for received in await taker.wait_for(2))
        kept = sahha.sahha.access.profiles.find(sahha.members[0])
        assert kept is not None
        assert kept.scores[last["id"]] == last
        assert first["id"] == last["id"]
        assert first["createdAtUtc"] != last["createdAtUtc"]


async def test_a_failed_delivery_is_tried_again() -> None:
    """On the sandbox's clock, until it is taken, or as often as is set; counts tell of it, and no body."""
    async with receiver() as taker, served(webhook_url=taker.url, speed=100_000.0) as sahha:
        await sahha.control("webhooks", {"event_types": ["ScoreCreatedIntegrationEvent"]})
        taker.answers = [503, 500]
        await sahha.control("webhooks/events", {"same_metric": True}, status=202)
        assert len({received[0] for received in await taker.wait_for(3)}) == 1
        await sahha.control("webhooks", {"retries": 1})
        taker.answers = [302, 401]
        await sahha.control("webhooks/events", {"same_metric": True}, status=202)
        await taker.wait_for(5)
        await sahha.sahha.webhooks.settled()
        await send(sahha)
        shown = await (await sahha.client.get("/sandbox/webhooks")).json()
        assert shown["answers"] == {"200": 2, "302": 1, "401": 1, "500": 1, "503": 1}
        assert (shown["delivered"], shown["failed"], shown["retried"]) == (2, 1, 3)
        assert "score" not in json.dumps(shown["recent"]).replace("ScoreCreated", "")


async def test_an_unreachable_receiver_is_counted() -> None:
    """Nobody listens; nothing breaks."""
    async with receiver() as taker:
        url = taker.url
    async with served(webhook_url=url, webhook_retries=0) as sahha:
        await send(sahha, count=2)
        shown = await (await sahha.client.get("/sandbox/webhooks")).json()
        assert (shown["answers"], shown["failed"]) == ({"unreachable": 2}, 2)


async def test_only_selected_types_are_sent_by_themselves() -> None:
    """As the dashboard's selection says."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        await sahha.control("webhooks", {"event_types": ["DataLogReceivedIntegrationEvent"]})
        await upload(sahha, sahha.members[0], LOG)
        await taker.wait_for(1)
        await send(sahha, event_type="ArchetypeCreatedIntegrationEvent")
        assert named(taker) == ["DataLogReceivedIntegrationEvent", "ArchetypeCreatedIntegrationEvent"]


async def test_the_test_event_is_about_the_sample_profile() -> None:
    """A score, signed like any other, sent again with the secret that was set since."""
    async with receiver() as taker, served(webhook_url=taker.url) as sahha:
        await sahha.control("webhooks/test", {"wait": True})
        assert opened(sahha, taker.got[0])["externalId"].startswith("SampleProfile-")
        await sahha.control("webhooks", {"secret": "another secret"})
        await sahha.control("webhooks/test", {"wait": True, "event_type": TYPES[2]})
        with pytest.raises(BadSignature):
            opened(sahha, taker.got[1])
        assert SahhaSignature(secrets=["another secret"]).open(*taker.got[1]).content["name"]


async def test_traffic_comes_by_itself() -> None:
    """At the rate that is set, of several types, until it is set to nothing."""
    async with receiver() as taker, served(webhook_url=taker.url, webhook_rate=400.0) as sahha:
        await taker.wait_for(30)
        assert len(set(named(taker))) > 1
        assert all(opened(sahha, received) for received in taker.got[:30])
        assert (await sahha.control("webhooks", {"rate": 0, "url": None}))["url"] is None


async def test_without_a_url_there_is_nothing_to_send_to() -> None:
    """Uploads work all the same; events on request are refused, and so are orders that make no sense."""
    async with served() as sahha:
        await upload(sahha, sahha.members[0], LOG)
        await sahha.control("webhooks/events", {}, status=409)
        await sahha.control("webhooks/test", {}, status=409)
        for wrong in ({"url": "file:///etc/passwd"}, {"interval_minutes": 721}, {"secret": ""}, {"uri": "http://x"}):
            await sahha.control("webhooks", wrong, status=422)
        await sahha.control("webhooks", {"url": "http://127.0.0.1:1/"})
        await sahha.control("webhooks/events", {"external_id": "nobody"}, status=404)
        await sahha.control("webhooks/events", {"kind": "worse"}, status=422)
        shown = sahha.sahha.describe("http://127.0.0.1:1")
        assert sahha.parts.credentials.sahha.webhook_secret not in json.dumps(shown)
        assert set(shown["control"]) > {"POST /sandbox/webhooks"}
