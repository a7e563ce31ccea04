"""What the SQS adapter makes of everything that can go wrong, on a stub that does it on demand."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from consumer.errors import SettingsError, SourceRefused, SourceUnavailable
from consumer.sources.base import Message, Outgoing
from consumer.sources.sqs import SqsSource
from tests.emulators.sqs_stub import Clock, SqsStub
from tests.servers.fixtures import OpenSource

HOUR = 3600.0


async def held(source: SqsSource, count: int) -> list[Message]:
    """Put messages on the queue and receive them."""
    await source.send([Outgoing(b"%d" % n) for n in range(count)])
    messages = await source.receive(count)
    assert len(messages) == count
    return messages


async def test_a_passing_fault_is_not_noticed(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """One throttled, broken or failed request is repeated below the adapter."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    for kind in ("throttle", "reset", "internal"):
        sqs_stub.fault(kind, action="SendMessageBatch", count=1)
        await source.send([Outgoing(kind.encode())])
    assert (await source.depth()).visible == 3


@pytest.mark.parametrize("kind", ["throttle", "internal", "unavailable", "reset"])
async def test_a_lasting_fault_is_unavailable_until_it_ends(
    kind: str, sqs_stub: SqsStub, open_source: OpenSource
) -> None:
    """Throttling, server errors and broken connections are `SourceUnavailable`; when they end, all is well again."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    sqs_stub.fill("labs", ["one"])
    sqs_stub.fault(kind)
    with pytest.raises(SourceUnavailable, match="source labs: SQS ReceiveMessage failed for now"):
        await source.receive(10)
    sqs_stub.faults.clear()
    assert len(await source.receive(10)) == 1


async def test_a_server_that_never_answers_is_unavailable(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """A hanging call is given up within its limit, a receive as well as any other."""
    source = await open_source(
        sqs_stub.create_queue("labs"), sqs_stub.url, poll_wait=0.0, call_limit=0.5, poll_grace=0.5
    )
    messages = await held(source, 1)
    sqs_stub.fault("hang")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: source.receive(1),
        lambda: source.acknowledge(messages),
        lambda: source.extend(messages),
        lambda: source.release(messages, 0),
        source.depth,
    ]
    started = time.monotonic()
    for call in calls:
        with pytest.raises(SourceUnavailable, match="no answer in time"):
            await call()
    assert time.monotonic() - started < 4
    sqs_stub.faults.clear()
    assert await source.acknowledge(messages) == []


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("no_queue", "the queue does not exist"),
        ("denied", "access denied .*allow sqs:"),
        ("expired", "credentials have expired"),
        ("bad_token", "credentials are wrong"),
        ("bad_signature", "credentials are wrong"),
    ],
)
async def test_what_needs_a_person_is_refused(
    kind: str, advice: str, sqs_stub: SqsStub, open_source: OpenSource
) -> None:
    """A missing queue, missing permission or bad credentials is `SourceRefused`: one line with what to do."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    messages = await held(source, 1)
    sqs_stub.fault(kind)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: source.receive(1),
        lambda: source.acknowledge(messages),
        lambda: source.extend(messages),
        lambda: source.release(messages, 0),
        lambda: source.send([Outgoing(b"x")]),
        source.depth,
    ]
    for call in calls:
        with pytest.raises(SourceRefused, match=f"^source labs: .*{advice}") as caught:
            await call()
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None
    sqs_stub.faults.clear()
    assert await source.acknowledge(messages) == []


async def test_open_on_no_queue_is_refused_and_may_be_tried_again(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """Opening fails while there is no queue, leaves nothing open, and works once there is one."""
    url = sqs_stub.create_queue("labs")
    sqs_stub.delete_queue("labs")
    with pytest.raises(SourceRefused, match="does not exist"):
        await open_source(url, sqs_stub.url)
    sqs_stub.create_queue("labs")
    assert await (await open_source(url, sqs_stub.url)).receive(1) == []


async def test_a_queue_deleted_under_a_poll(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """A queue that vanishes while a poll waits at it is refused from then on."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    poll = asyncio.create_task(source.receive(1))
    await asyncio.sleep(0.2)
    sqs_stub.delete_queue("labs")
    assert await poll == []
    with pytest.raises(SourceRefused):
        await source.receive(1)


async def test_an_unreachable_endpoint_is_unavailable(
    sqs_stub: SqsStub, open_source: OpenSource, unused_tcp_port: int
) -> None:
    """Nobody listening is `SourceUnavailable`, at opening too."""
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(SourceUnavailable, match="EndpointConnectionError"):
        await open_source(f"{url}/000000000000/labs", url)


async def test_no_credentials_are_refused(
    sqs_stub: SqsStub, open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials the error says that none were found."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceRefused, match="source labs: no AWS credentials found"):
        await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)


async def test_a_missing_extra_is_named(
    sqs_stub: SqsStub, open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without aioboto3 the error says what to install."""
    monkeypatch.setitem(sys.modules, "aioboto3", None)
    with pytest.raises(SettingsError, match=r"^source labs is sqs: pip install 'health-event-consumer\[sqs\]'$"):
        await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)


async def test_attributes_that_may_not_be_read_are_a_warning(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """Without sqs:GetQueueAttributes the source works with the defaults of SQS, and `check` warns."""
    url = sqs_stub.create_queue("labs.fifo")
    sqs_stub.fault("denied", action="GetQueueAttributes")
    source = await open_source(url, sqs_stub.url)
    await source.send([Outgoing(b"one", ordering_key="a")])
    (message,) = await source.receive(1)
    assert message.ordering_key == "a"
    assert message.expires_at is not None
    assert (message.expires_at - message.accepted_at).days == 4
    (finding,) = [finding for finding in await source.check() if not finding.ok]
    assert finding.warning
    assert "GetQueueAttributes" in finding.detail


@pytest.mark.parametrize("operation", ["DeleteMessage", "ChangeMessageVisibility"])
async def test_check_finds_a_missing_permission(operation: str, sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """`check` names the permission that is missing."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    sqs_stub.fault("denied", action=f"{operation}Batch")
    (finding,) = [finding for finding in await source.check() if not finding.ok]
    assert finding.name == f"sqs:{operation}"
    assert not finding.warning


@pytest.mark.parametrize(
    ("code", "sender_fault", "kind"),
    [
        ("InternalError", False, "again"),
        ("RequestThrottled", True, "again"),
        ("ReceiptHandleIsInvalid", True, "gone"),
        ("AWS.SimpleQueueService.MessageNotInflight", True, "gone"),
        ("InvalidParameterValue", True, "gone"),
        ("SomethingElse", True, "refused"),
    ],
)
async def test_entries_that_fail_are_reported_by_position(
    code: str, sender_fault: bool, kind: str, sqs_stub: SqsStub, open_source: OpenSource
) -> None:
    """Of a batch that failed in part, exactly the failed messages are reported, with what their code means."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    messages = await held(source, 10)
    leases = [message.lease_until for message in messages]
    sqs_stub.fault("partial", entries=[2, 7], code=code, sender_fault=sender_fault)
    failed = [messages[2], messages[7]]
    for call in (source.extend(messages), source.acknowledge(messages)):
        failures = await call
        assert [failure.message for failure in failures] == failed
        assert {failure.kind for failure in failures} == {kind}
        assert {failure.detail for failure in failures} == {code}
    moved = [m.lease_until > before for m, before in zip(messages, leases, strict=True)]
    assert moved == [message not in failed for message in messages]
    sqs_stub.faults.clear()
    assert await source.acknowledge(failed) == []
    assert (await source.depth()).total == 0


async def test_a_reply_that_is_not_one_settles_nothing(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """A success without readable content is not taken for one: every message of the batch is to be settled again."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    messages = await held(source, 3)
    sqs_stub.fault("cut", action="DeleteMessageBatch", count=1)
    failures = await source.acknowledge(messages)
    assert [(failure.message, failure.kind) for failure in failures] == [(message, "again") for message in messages]
    assert await source.acknowledge(messages) == []


async def test_a_reply_that_is_not_one_is_no_empty_queue(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """Messages that cannot be read from a reply, or counters, are trouble and not an empty queue."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    sqs_stub.fill("labs", ["one"])
    sqs_stub.fault("cut")
    with pytest.raises(SourceUnavailable, match="not one of SQS"):
        await source.receive(10)
    with pytest.raises(SourceUnavailable, match="not one of SQS"):
        await source.depth()


async def test_a_lapsed_lease_on_a_standard_queue(sqs_stub: SqsStub, open_source: OpenSource, clock: Clock) -> None:
    """After its lease a message cannot be renewed (`gone`); a late delete succeeds, and the message may come back."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    messages = await held(source, 1)
    clock.advance(31)
    assert [failure.kind for failure in await source.extend(messages)] == ["gone"]
    assert await source.acknowledge(messages) == []
    (again,) = await source.receive(1)
    assert again.message_id == messages[0].message_id
    assert again.receive_count == 2
    assert await source.acknowledge([again]) == []
    assert (await source.depth()).total == 0


async def test_a_lapsed_lease_on_a_fifo_queue(sqs_stub: SqsStub, open_source: OpenSource, clock: Clock) -> None:
    """On a FIFO queue a late delete is refused by the queue: the lease is `gone`."""
    source = await open_source(sqs_stub.create_queue("labs.fifo"), sqs_stub.url)
    messages = await held(source, 1)
    clock.advance(31)
    assert [failure.kind for failure in await source.acknowledge(messages)] == ["gone"]


async def test_no_lease_lasts_beyond_twelve_hours(sqs_stub: SqsStub, open_source: OpenSource, clock: Clock) -> None:
    """Renewals end 12 hours after the receive: the next one is `gone`, and so is a release for too long."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url, visibility_timeout=HOUR)
    messages = await held(source, 1)
    for _ in range(11):
        clock.advance(HOUR - 1)
        assert await source.extend(messages) == []
    clock.advance(HOUR - 1)
    assert [failure.kind for failure in await source.extend(messages)] == ["gone"]
    assert [failure.kind for failure in await source.release(messages, HOUR)] == ["gone"]
    assert await source.release(messages, 0) == []


async def test_the_longest_delay_can_be_given(sqs_stub: SqsStub, open_source: OpenSource, clock: Clock) -> None:
    """A release with `max_delay`, and any longer one, keeps the message back for about that long."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url, poll_wait=0.0)
    messages = await held(source, 1)
    assert await source.release(messages, 30 * 24 * HOUR) == []
    clock.advance(source.capabilities.max_delay - 60)
    assert await source.receive(1) == []
    clock.advance(61)
    assert len(await source.receive(1)) == 1


async def test_a_lost_reply_on_a_fifo_queue_loses_no_time(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """Messages that a broken receive took are returned by the next one, which repeats the attempt."""
    source = await open_source(sqs_stub.create_queue("labs.fifo"), sqs_stub.url)
    await source.send([Outgoing(b"%d" % n, ordering_key="a") for n in range(5)])
    sqs_stub.fault("reset_after", action="ReceiveMessage", count=3)
    with pytest.raises(SourceUnavailable):
        await source.receive(5)
    messages = await source.receive(10)
    assert [message.body for message in messages] == [b"0", b"1", b"2", b"3", b"4"]
    assert {message.receive_count for message in messages} == {1}
    attempts = [payload["ReceiveRequestAttemptId"] for action, payload in sqs_stub.requests if "receive" in action]
    assert len(set(attempts)) == 1


async def test_a_repeated_attempt_never_returns_more_than_asked_for(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """A failed attempt for ten messages is not repeated by a receive that may take only two."""
    source = await open_source(sqs_stub.create_queue("labs.fifo"), sqs_stub.url, poll_wait=0.0)
    await source.send([Outgoing(b"%d" % n, ordering_key=f"{n}") for n in range(10)])
    sqs_stub.fault("reset_after", action="ReceiveMessage", count=3)
    with pytest.raises(SourceUnavailable):
        await source.receive(10)
    assert await source.receive(2) == []
    assert len(await source.receive(10)) == 10


async def test_acknowledgements_never_wait_behind_polls(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """With every allowed poll waiting, and every allowed settling call but one, an acknowledgement goes through."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url, poll_wait=2.0, max_in_flight=200)
    messages = await held(source, 10)
    polls = [asyncio.create_task(source.receive(10)) for _ in range(source.capabilities.max_receives)]
    await asyncio.sleep(0.3)
    started = time.monotonic()
    assert await asyncio.gather(*(source.acknowledge([message]) for message in messages)) == [[]] * 10
    assert time.monotonic() - started < 0.8
    assert await asyncio.gather(*polls) == [[]] * 20


async def test_a_lease_never_counts_from_too_late(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """A reply later than the wait explains is counted from the request: meanwhile this process may have stood."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url, poll_wait=0.0)
    sqs_stub.fill("labs", ["one"])
    sqs_stub.fault("latency", action="ReceiveMessage", seconds=1.2)
    started = time.monotonic()
    (message,) = await source.receive(1)
    assert message.lease_until <= started + 30.1


async def test_a_lease_does_not_lose_what_a_poll_waited(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """A message that came late in a long poll has nearly its whole lease left."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url, poll_wait=5.0)
    poll = asyncio.create_task(source.receive(1))
    await asyncio.sleep(1.8)
    sqs_stub.fill("labs", ["one"])
    (message,) = await poll
    assert 28.5 < message.lease_until - time.monotonic() <= 29.1


async def test_a_send_that_failed_in_part_is_completed(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """Messages that the broker did not take are sent again, and only those."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    sqs_stub.fault("partial", action="SendMessageBatch", entries=[0, 3], count=1)
    await source.send([Outgoing(b"%d" % n) for n in range(5)])
    assert sorted(message.body for message in sqs_stub.queue("labs").messages.values()) == ["0", "1", "2", "3", "4"]


async def test_a_send_that_keeps_failing_says_so(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """A send returns only when all are accepted: else it raises, by whether trying again may help."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    sqs_stub.fault("partial", action="SendMessageBatch", entries=[0], count=3)
    with pytest.raises(SourceUnavailable, match="did not take 1 messages"):
        await source.send([Outgoing(b"x"), Outgoing(b"y")])
    sqs_stub.faults.clear()
    sqs_stub.fault("partial", action="SendMessageBatch", code="InvalidMessageContents", sender_fault=True, count=1)
    with pytest.raises(SourceRefused, match="InvalidMessageContents"):
        await source.send([Outgoing(b"x")])


@pytest.mark.parametrize(
    ("queue", "outgoing"),
    [
        ("labs", Outgoing(b"\xff")),
        ("labs", Outgoing(b"x", delay=901)),
        ("labs.fifo", Outgoing(b"x", delay=1)),
    ],
)
async def test_what_sqs_cannot_carry_is_refused(
    queue: str, outgoing: Outgoing, sqs_stub: SqsStub, open_source: OpenSource
) -> None:
    """Bytes that are not text, and delays that SQS does not know, are refused before anything is sent."""
    source = await open_source(sqs_stub.create_queue(queue), sqs_stub.url)
    with pytest.raises(SourceRefused, match=r"^source labs: "):
        await source.send([Outgoing(b"fine"), outgoing])
    assert (await source.depth()).total == 0


async def test_close_can_follow_anything(sqs_stub: SqsStub, open_source: OpenSource) -> None:
    """`close` may be called after a failed open, twice, and leaves calls after it to fail as unavailable."""
    source = await open_source(sqs_stub.create_queue("labs"), sqs_stub.url)
    await source.close()
    await source.close()
    with pytest.raises(SourceUnavailable):
        await source.depth()
