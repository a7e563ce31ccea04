"""The SQS stub's faults on demand, and its control path."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests.emulators.sqs_stub import SqsStub
from tests.emulators.sqs_stub_client import depth, receive


@pytest.fixture
def url(sqs_stub: SqsStub) -> str:
    """A standard queue."""
    return sqs_stub.create_queue("labs")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("throttle", (400, "RequestThrottled")),
        ("internal", (500, "InternalError")),
        ("unavailable", (503, "ServiceUnavailable")),
        ("expired", (403, "ExpiredToken")),
        ("denied", (403, "AccessDenied")),
        ("no_queue", (400, "AWS.SimpleQueueService.NonExistentQueue")),
    ],
)
async def test_errors_on_demand(sqs: Any, url: str, sqs_stub: SqsStub, kind: str, expected: tuple[int, str]) -> None:
    """Each fault that is an error answers with its status and code, as often as it was told to, and only there."""
    sqs_stub.fault(kind, action="ReceiveMessage", count=1)
    assert await depth(sqs, url) == (0, 0, 0)
    with pytest.raises(ClientError) as caught:
        await receive(sqs, url)
    response = caught.value.response
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) == expected
    assert await receive(sqs, url) == []


async def test_broken_connections_on_demand(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """`reset` breaks the connection before anything is done, `reset_after` once it is done."""
    for kind, expected in (("reset", 0), ("reset_after", 1)):
        sqs_stub.fault(kind, action="SendMessage", count=1)
        with pytest.raises(HTTPClientError):
            await sqs.send_message(QueueUrl=url, MessageBody="x")
        assert (await depth(sqs, url))[0] == expected


async def test_silence_and_delay_on_demand(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """`hang` never answers; `latency` answers late."""
    sqs_stub.fault("latency", seconds=0.4, count=1)
    started = time.monotonic()
    assert await receive(sqs, url) == []
    assert time.monotonic() - started >= 0.4
    sqs_stub.fault("hang", count=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await receive(sqs, url)


async def test_a_fault_can_be_a_matter_of_chance(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """A fault with a probability hits some of the requests."""
    sqs_stub.fault("throttle", action="ReceiveMessage", probability=0.5)
    failures = 0
    for _ in range(40):
        try:
            await receive(sqs, url)
        except ClientError:
            failures += 1
    assert 5 < failures < 35


async def test_entries_fail_on_demand(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """`partial` fails the entries that it names, and nothing is done for them."""
    sqs_stub.fault("partial", action="SendMessageBatch", entries=[1], code="InternalError", count=1)
    batch = [{"Id": str(n), "MessageBody": str(n)} for n in range(3)]
    reply = await sqs.send_message_batch(QueueUrl=url, Entries=batch)
    assert [(one["Id"], one["Code"], one["SenderFault"]) for one in reply["Failed"]] == [("1", "InternalError", False)]
    assert await depth(sqs, url) == (2, 0, 0)


async def test_it_is_steered_over_http(sqs: Any, sqs_stub: SqsStub) -> None:
    """Queues, messages and faults can be made, and counts read, by plain HTTP requests."""

    def ask(method: str, path: str, payload: object = None) -> Any:
        data = None if payload is None else json.dumps(payload).encode()
        with urllib.request.urlopen(urllib.request.Request(sqs_stub.url + path, data, method=method)) as reply:
            return json.load(reply)

    url = (await asyncio.to_thread(ask, "POST", "/_stub/queues", {"name": "made"}))["url"]
    fill = {"queue": "made", "count": 3, "template": '{"n": {n}}'}
    assert await asyncio.to_thread(ask, "POST", "/_stub/fill", fill) == {"filled": 3}
    assert await asyncio.to_thread(ask, "POST", "/_stub/fill", {"queue": "made", "bodies": ["x"]}) == {"filled": 1}
    assert [m["Body"] for m in await receive(sqs, url)] == ['{"n": 0}', '{"n": 1}', '{"n": 2}', "x"]
    await asyncio.to_thread(ask, "POST", "/_stub/faults", {"kind": "denied"})
    with pytest.raises(ClientError):
        await receive(sqs, url)
    await asyncio.to_thread(ask, "DELETE", "/_stub/faults")
    stats = await asyncio.to_thread(ask, "GET", "/_stub/stats")
    assert stats["queues"]["made"] == {"ready": 0, "delayed": 0, "in_flight": 4, "peak_in_flight": 4}
    assert stats["calls"] == {"receivemessage": 2}
