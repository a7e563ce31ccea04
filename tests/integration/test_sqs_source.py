"""The SQS adapter against every server that plays SQS."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from consumer.sources.base import Message, Outgoing
from consumer.sources.sqs import SqsSource
from tests.servers.fixtures import NewQueue, OpenSource, SqsServer


async def received(source: SqsSource, count: int) -> list[Message]:
    """Receive until so many messages are there; emulators, as SQS, may give fewer at a time."""
    messages: list[Message] = []
    async with asyncio.timeout(20):
        while len(messages) < count:
            messages += await source.receive(count - len(messages))
    return messages


async def test_bytes_and_attributes_come_as_they_were_sent(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """A message arrives with exactly its bytes, its text attributes, the broker's id, its time and its expiry."""
    source = await open_source(await new_queue(MessageRetentionPeriod="86400"), sqs_endpoint.url)
    body = '{"body": "café \\u00e9 \\ud83d\\ude00 \\n", "n": 1.50}'.encode()
    before = datetime.now(UTC)
    await source.send([Outgoing(body, headers={"X-Signature": "abc"})])
    (message,) = await received(source, 1)
    assert message.body == body
    assert message.headers == {"X-Signature": "abc"}
    assert message.message_id
    assert message.receive_count == 1
    assert message.ordering_key is None
    assert abs(message.accepted_at - before) < timedelta(seconds=5)
    assert message.expires_at == message.accepted_at + timedelta(days=1)
    assert 25 < message.lease_until - time.monotonic() <= 30


async def test_no_more_than_asked_for(sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource) -> None:
    """A receive returns at most `limit` messages, and at most ten."""
    source = await open_source(await new_queue(), sqs_endpoint.url)
    await source.send([Outgoing(b"%d" % n) for n in range(25)])
    first = await source.receive(3)
    second = await source.receive(100)
    assert 1 <= len(first) <= 3
    assert 1 <= len(second) <= 10


async def test_acknowledged_messages_are_gone(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """What was acknowledged does not come back, and the queue counts nothing any more."""
    source = await open_source(await new_queue(), sqs_endpoint.url, visibility_timeout=2.0)
    await source.send([Outgoing(b"%d" % n) for n in range(10)])
    messages = await received(source, 10)
    assert await source.acknowledge(messages) == []
    assert (await source.depth()).total == 0


async def test_released_messages_come_back_at_once(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """A message given back is handed out again without waiting for its lease, and is counted again."""
    source = await open_source(await new_queue(), sqs_endpoint.url)
    await source.send([Outgoing(b"one")])
    (message,) = await received(source, 1)
    assert await source.release([message], 0) == []
    (again,) = await received(source, 1)
    assert again.message_id == message.message_id
    assert again.receive_count == 2


async def test_a_release_with_a_delay_keeps_the_message_back(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """A message given back with a delay is counted as invisible and not handed out before."""
    source = await open_source(await new_queue(), sqs_endpoint.url)
    await source.send([Outgoing(b"one")])
    messages = await received(source, 1)
    assert await source.release(messages, 2.5) == []
    started = time.monotonic()
    assert (await source.depth()).invisible == 1
    await received(source, 1)
    assert time.monotonic() - started > 1.5


async def test_a_renewed_lease_outlasts_the_first(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """Renewing moves `lease_until`, and nobody else gets the message when the first lease would have ended."""
    source = await open_source(await new_queue(), sqs_endpoint.url, visibility_timeout=2.0, poll_wait=0.0)
    await source.send([Outgoing(b"one")])
    messages = await received(source, 1)
    first = messages[0].lease_until
    await asyncio.sleep(1.2)
    assert await source.extend(messages) == []
    assert messages[0].lease_until > first + 0.5
    await asyncio.sleep(1.0)
    assert await source.receive(1) == []
    assert await source.acknowledge(messages) == []


async def test_a_lapsed_lease_cannot_be_renewed(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """A receipt whose message was handed out again and deleted is `gone`, without harm to others in its batch."""
    source = await open_source(await new_queue(), sqs_endpoint.url, visibility_timeout=30.0)
    await source.send([Outgoing(b"one"), Outgoing(b"two")])
    messages = await received(source, 2)
    assert await source.acknowledge(messages[:1]) == []
    failures = await source.extend(messages)
    assert [failure.message for failure in failures] == messages[:1]
    assert failures[0].kind == "gone"


async def test_one_message_twice_in_a_batch_is_safe(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """Two receives of one message may stand in one batch; the message is gone afterwards."""
    source = await open_source(await new_queue(), sqs_endpoint.url)
    await source.send([Outgoing(b"one")])
    first = await received(source, 1)
    await source.release(first, 0)
    second = await received(source, 1)
    failures = await source.acknowledge([*first, *second])
    assert all(failure.message is first[0] and failure.kind == "gone" for failure in failures)
    assert (await source.depth()).total == 0


async def test_groups_of_a_fifo_queue_are_ordering_keys(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """On a FIFO queue the group is the ordering key, its messages come in order, and a held head holds the rest."""
    source = await open_source(await new_queue(fifo=True), sqs_endpoint.url, poll_wait=0.0)
    await source.send([Outgoing(b"%d" % n, ordering_key="a") for n in range(4)])
    seen: list[bytes] = []
    while len(seen) < 4:
        messages = await received(source, 1)
        assert {message.ordering_key for message in messages} == {"a"}
        assert await source.receive(10) == []
        seen += [message.body for message in messages]
        assert await source.acknowledge(messages) == []
    assert seen == [b"0", b"1", b"2", b"3"]


async def test_a_deduplication_id_drops_repeats(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """On a FIFO queue two messages with one deduplication id are one; without ids equal bodies are two."""
    source = await open_source(await new_queue(fifo=True), sqs_endpoint.url)
    await source.send([Outgoing(b"x", deduplication_id="same"), Outgoing(b"x", deduplication_id="same")])
    assert (await source.depth()).total == 1
    await source.send([Outgoing(b"x"), Outgoing(b"x")])
    assert (await source.depth()).total == 3


async def test_a_group_on_a_standard_queue_is_no_order(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource, sqs_client: Any
) -> None:
    """A standard queue's group id is for fairness: such messages have no ordering key."""
    url = await new_queue()
    source = await open_source(url, sqs_endpoint.url)
    if sqs_endpoint.kind == "stub":
        await sqs_client.send_message(QueueUrl=url, MessageBody="one", MessageGroupId="tenant")
    else:
        await sqs_client.send_message(QueueUrl=url, MessageBody="one")
    (message,) = await received(source, 1)
    assert message.ordering_key is None


async def test_depth_counts_what_is_there(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """Depth tells visible, invisible and delayed messages apart."""
    source = await open_source(await new_queue(), sqs_endpoint.url)
    await source.send([Outgoing(b"a"), Outgoing(b"b"), Outgoing(b"c", delay=60)])
    await received(source, 1)
    depth = await source.depth()
    assert (depth.visible, depth.invisible, depth.delayed) == (1, 1, 1)


async def test_an_empty_poll_waits_and_an_interrupted_one_does_not(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """An empty receive waits for `poll_wait`; after `interrupt` receives return at once."""
    source = await open_source(await new_queue(), sqs_endpoint.url)
    started = time.monotonic()
    assert await source.receive(10) == []
    assert 0.8 < time.monotonic() - started < 3
    source.interrupt()
    started = time.monotonic()
    assert await source.receive(10) == []
    assert time.monotonic() - started < 0.8


async def test_a_message_that_comes_during_a_poll_is_returned_soon(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """A poll that waits returns when a message arrives, even after `interrupt`."""
    source = await open_source(await new_queue(), sqs_endpoint.url, poll_wait=5.0)
    poll = asyncio.create_task(source.receive(10))
    await asyncio.sleep(0.3)
    source.interrupt()
    await source.send([Outgoing(b"one")])
    started = time.monotonic()
    (message,) = await poll
    assert message.body == b"one"
    assert time.monotonic() - started < 3


async def test_check_passes_on_a_sound_queue(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource, sqs_client: Any
) -> None:
    """`check` finds nothing wrong with a plain queue, and receives nothing to find out."""
    url = await new_queue()
    source = await open_source(url, sqs_endpoint.url)
    await source.send([Outgoing(b"one")])
    findings = await source.check()
    assert [finding for finding in findings if not finding.ok] == []
    (message,) = await received(source, 1)
    assert message.receive_count == 1


async def test_check_refuses_a_redrive_policy_that_comes_first(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource, sqs_client: Any
) -> None:
    """A redrive policy that takes events away before the worker gives them up is a failure of `check`."""
    target = await new_queue()
    arns = await sqs_client.get_queue_attributes(QueueUrl=target, AttributeNames=["QueueArn"])
    policy = f'{{"deadLetterTargetArn": "{arns["Attributes"]["QueueArn"]}", "maxReceiveCount": "39"}}'
    source = await open_source(await new_queue(RedrivePolicy=policy), sqs_endpoint.url, max_attempts=8)
    (finding,) = [finding for finding in await source.check() if finding.name == "redrive policy"]
    assert not finding.ok
    assert not finding.warning
    assert "39" in finding.detail
    assert "40" in finding.detail


async def test_more_than_ten_can_be_sent_at_once(
    sqs_endpoint: SqsServer, new_queue: NewQueue, open_source: OpenSource
) -> None:
    """Any number of messages can be sent in one call, whatever their size together."""
    source = await open_source(await new_queue(), sqs_endpoint.url)
    bodies = [bytes([97 + n]) * 120_000 for n in range(12)]
    await source.send([Outgoing(body) for body in bodies])
    assert sorted(message.body for message in await received(source, 12)) == bodies
