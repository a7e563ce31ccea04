"""The relay in front of the cloud queues: each gives the envelope back byte by byte, and says what it can carry."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumer import SahhaSignature
from consumer.app import build_source
from consumer.relay import http as relay_http
from consumer.relay import server as relay_module
from consumer.relay.limits import largest_body
from consumer.sources.base import Message, Source
from tests.conformance.rig import eventually
from tests.emulators.sqs_stub import SqsStub
from tests.faults.harness_azure import opened_hub
from tests.relay_rig import SECRET, Running, body_of, neutral, relaying, request, settings
from tests.servers.azurite import Azurite, create_queue
from tests.servers.names import fresh_name

NO_TEXT = {"X_Signature": "ab", "X_External_Id": 'J\u00f6rg & "<Co>"'.encode().decode("latin-1"), "X_Event_Type": "T"}


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for senders that are not there."""
    monkeypatch.setattr(relay_module, "_LAST_WORDS", 0.02)
    monkeypatch.setattr(relay_http, "_LINGER", 0.1)


async def received(source: Source, count: int) -> list[Message]:
    """Receive so many."""
    found: list[Message] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await source.receive(count - len(found))
    return found


async def filled(running: Running, count: int = 25) -> list[Message]:
    """Post webhooks at once, among them one that is hard to carry and one as large as may be; all that arrived."""
    largest = b"\xff" * running.relay.max_body_bytes
    statuses = await asyncio.gather(
        running.ask(request(b"\x00<&\xff", **NO_TEXT)),
        running.ask(request(largest, **NO_TEXT)),
        *(running.post(number) for number in range(count)),
    )
    assert [one if isinstance(one, int) else one[0] for one in statuses] == [200] * (count + 2)
    messages = await received(running.queue, count + 2)
    found = [neutral(message) for message in messages]
    assert sorted(one.body for one in found) == sorted([b"\x00<&\xff", largest, *map(body_of, range(count))])
    assert {one.headers["x-external-id"] for one in found if one.body[:1] != b"{"} == {'J\u00f6rg & "<Co>"'}
    signature = SahhaSignature(secrets=[SECRET])
    for one in found:
        if one.body.startswith(b"{"):
            signature.open(one.body, one.headers, accepted_at=datetime(2026, 3, 16, tzinfo=UTC))
    assert (await running.ask(request(largest + b"x", **NO_TEXT)))[0] == 413
    return messages


def sqs_source(folder: Path, url: str, endpoint: str) -> tuple[Any, dict[str, str]]:
    """A source of its own on an SQS queue, and the settings of it."""
    given = {"KIND": "sqs", "QUEUE_URL": url, "ENDPOINT_URL": endpoint, "REGION": "us-east-1", "PATH": ""}
    changes = {f"SOURCES__SCORES__{name}": value for name, value in {**given, "POLL_WAIT": "1"}.items()}
    return build_source(settings(folder, **changes).source("scores")), changes


async def test_an_sqs_queue(tmp_path: Path, aws_environment: None, moto_url: str) -> None:
    """Its own MaximumMessageSize bounds the body."""
    import aioboto3  # half a second that no other test should pay

    async with aioboto3.Session().client("sqs", endpoint_url=moto_url) as client:
        attributes = {"MaximumMessageSize": "100000"}
        url = (await client.create_queue(QueueName=fresh_name(), Attributes=attributes))["QueueUrl"]
    source, changes = sqs_source(tmp_path, url, moto_url)
    async with relaying(tmp_path, queue=source, **changes) as running:
        assert running.relay.max_body_bytes == largest_body(100_000)
        await filled(running)


async def test_an_sqs_fifo_queue(tmp_path: Path, aws_environment: None) -> None:
    """A group for each profile, none of them its id; a webhook that comes again at once is there once."""
    async with SqsStub() as stub:
        url = stub.create_queue("scores.fifo", FifoQueue="true")
        source, changes = sqs_source(tmp_path, url, stub.url)
        async with relaying(tmp_path, queue=source, **changes) as running:
            for number in (1, 2, 1):
                assert await running.post(number) == 200
            messages = await received(source, 2)
            assert (await source.depth()).total == 2
    groups = {neutral(one).headers["x-external-id"]: one.ordering_key for one in messages}
    assert len(set(groups.values())) == 2
    assert all(key is not None and user not in key for user, key in groups.items())


async def test_a_storage_queue(tmp_path: Path, azurite: Azurite) -> None:
    """64 KiB of envelope, carried as it is."""
    name = fresh_name()
    await create_queue(azurite.connection_string, name)
    given = {"KIND": "storage_queue", "CONNECTION_STRING": azurite.connection_string, "QUEUE": name, "PATH": ""}
    changes = {f"SOURCES__SCORES__{key}": value for key, value in given.items()}
    source = build_source(settings(tmp_path, **changes).source("scores"))
    async with relaying(tmp_path, queue=source, **changes) as running:
        assert running.relay.max_body_bytes == largest_body(65_536)
        await filled(running)


async def test_an_event_hub(tmp_path: Path, azurite: Azurite) -> None:
    """What its link takes bounds the body, which is known before the first webhook."""
    async with opened_hub(tmp_path, azurite) as (_, rig):
        changes = {f"SOURCES__SCORES__{name}": value for name, value in rig.source.items()} | {
            "SOURCES__SCORES__PATH": "",
            "SOURCES__SCORES__POLL_WAIT": "1",
        }
        source = build_source(settings(tmp_path, **changes).source("scores"))
        async with relaying(tmp_path, queue=source, **changes) as running:
            await eventually(lambda: running.relay.not_ready() is None)
            largest = source.capabilities.largest_message
            assert largest is not None
            assert running.relay.max_body_bytes == min(256 * 1024, largest_body(largest))
            await filled(running)
