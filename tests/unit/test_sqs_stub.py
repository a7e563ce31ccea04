"""The SQS stub behaves as SQS does, asked by the client that everybody uses."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulators.sqs_stub import Clock, SqsStub
from tests.emulators.sqs_stub_client import depth, entries, receive

DAY = 86_400.0


@pytest.fixture
def url(sqs_stub: SqsStub) -> str:
    """A standard queue."""
    return sqs_stub.create_queue("labs")


@pytest.fixture
def fifo(sqs_stub: SqsStub) -> str:
    """A FIFO queue."""
    return sqs_stub.create_queue("labs.fifo")


async def test_queues_are_made_found_and_deleted(sqs: Any) -> None:
    """Creating twice is the same queue; a queue can be found by name, listed, and deleted."""
    made = (await sqs.create_queue(QueueName="a", Attributes={"VisibilityTimeout": "45"}))["QueueUrl"]
    assert (await sqs.create_queue(QueueName="a"))["QueueUrl"] == made
    assert (await sqs.get_queue_url(QueueName="a"))["QueueUrl"] == made
    assert (await sqs.list_queues(QueueNamePrefix="a"))["QueueUrls"] == [made]
    reply = await sqs.get_queue_attributes(QueueUrl=made, AttributeNames=["VisibilityTimeout", "QueueArn"])
    assert reply["Attributes"] == {"VisibilityTimeout": "45", "QueueArn": "arn:aws:sqs:us-east-1:000000000000:a"}
    await sqs.delete_queue(QueueUrl=made)
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
        await sqs.get_queue_url(QueueName="a")
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"


async def test_attributes_are_set_and_checked(sqs: Any, url: str) -> None:
    """Attributes can be changed; a value out of range is refused."""
    await sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
    with pytest.raises(ClientError, match="InvalidAttributeValue"):
        await sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "99999"})


async def test_a_message_is_received_as_sent(sqs: Any, url: str) -> None:
    """Body, attributes, ids, hash, times and count of a message are there."""
    attributes = {"kind": {"DataType": "String", "StringValue": "lab"}}
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}
    sent = await sqs.send_message(
        QueueUrl=url, MessageBody='é "\U0001f600"', MessageAttributes=attributes, MessageSystemAttributes=trace
    )
    (message,) = await receive(sqs, url)
    assert message["Body"] == 'é "\U0001f600"'
    assert message["MessageAttributes"] == attributes
    assert message["MessageId"] == sent["MessageId"]
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
    system = message["Attributes"]
    assert system["AWSTraceHeader"] == "Root=1"
    assert system["ApproximateReceiveCount"] == "1"
    assert abs(int(system["SentTimestamp"]) / 1000 - time.time()) < 60
    assert system["SentTimestamp"] == system["ApproximateFirstReceiveTimestamp"]


async def test_only_what_was_asked_for_is_returned(sqs: Any, url: str) -> None:
    """Attributes come only by name, by prefix or all."""
    attributes = {name: {"DataType": "String", "StringValue": "x"} for name in ("a.one", "a.two", "b")}
    await sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    options: dict[str, Any] = {"VisibilityTimeout": 0, "MessageSystemAttributeNames": ["SentTimestamp"]}
    (message,) = await receive(sqs, url, MessageAttributeNames=["a.*"], **options)
    assert set(message["MessageAttributes"]) == {"a.one", "a.two"}
    assert set(message["Attributes"]) == {"SentTimestamp"}
    (message,) = await receive(sqs, url, MessageAttributeNames=[], **options)
    assert "MessageAttributes" not in message


async def test_a_long_poll_waits_and_wakes(sqs: Any, url: str) -> None:
    """An empty poll waits for its time; one that waits wakes when a message comes."""
    started = time.monotonic()
    assert await receive(sqs, url, WaitTimeSeconds=1) == []
    assert time.monotonic() - started > 0.9
    poll = asyncio.create_task(receive(sqs, url, WaitTimeSeconds=20))
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await sqs.send_message(QueueUrl=url, MessageBody="x")
    assert len(await poll) == 1
    assert time.monotonic() - started < 1


async def test_a_poll_wakes_when_a_lease_lapses(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """A message that becomes visible again is given to a poll that waits."""
    sqs_stub.fill("labs", ["x"])
    await receive(sqs, url)
    poll = asyncio.create_task(receive(sqs, url, WaitTimeSeconds=20))
    await asyncio.sleep(0.1)
    clock.advance(31)
    sqs_stub.wake("labs")
    (message,) = await poll
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"


async def test_a_poll_of_a_client_that_went_takes_messages_along(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """A cancelled poll still receives: its message is in flight to nobody, as in the real service."""
    poll = asyncio.create_task(receive(sqs, url, WaitTimeSeconds=20))
    async with asyncio.timeout(20):
        while not sqs_stub.calls["receivemessage"]:
            await asyncio.sleep(0.01)
    poll.cancel()
    await asyncio.wait([poll])
    sqs_stub.fill("labs", ["x"])
    assert await depth(sqs, url) == (0, 1, 0)


async def test_visibility_hides_and_returns(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """A received message is invisible for its time-out, the queue's or the receive's, and then there again."""
    sqs_stub.fill("labs", ["x"])
    await receive(sqs, url, VisibilityTimeout=5)
    assert await receive(sqs, url) == []
    clock.advance(5)
    assert len(await receive(sqs, url)) == 1
    clock.advance(29)
    assert await receive(sqs, url) == []
    clock.advance(1)
    assert len(await receive(sqs, url)) == 1


async def test_changed_visibility_holds(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """A lease can be made longer, or ended at once, singly and in batches."""
    sqs_stub.fill("labs", ["x"])
    (message,) = await receive(sqs, url)
    receipt = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    await sqs.change_message_visibility(**receipt, VisibilityTimeout=100)
    clock.advance(90)
    assert await receive(sqs, url) == []
    reply = await sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries([message], VisibilityTimeout=0))
    assert [one["Id"] for one in reply["Successful"]] == ["0"]
    assert len(await receive(sqs, url)) == 1


async def test_twelve_hours_are_the_end(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """A lease cannot be stretched beyond 12 hours from the receive."""
    sqs_stub.fill("labs", ["x"])
    (message,) = await receive(sqs, url, VisibilityTimeout=100)
    receipt = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    await sqs.change_message_visibility(**receipt, VisibilityTimeout=43_200)
    clock.advance(1)
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*beyond the limit"):
        await sqs.change_message_visibility(**receipt, VisibilityTimeout=43_200)


async def test_deleting_is_final_and_can_be_repeated(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """A deleted message does not return, and deleting it again succeeds."""
    sqs_stub.fill("labs", ["x", "y"])
    messages = await receive(sqs, url)
    for _ in range(2):
        reply = await sqs.delete_message_batch(QueueUrl=url, Entries=entries(messages))
        assert len(reply["Successful"]) == 2
        await sqs.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])
    clock.advance(60)
    assert await receive(sqs, url) == []
    assert await depth(sqs, url) == (0, 0, 0)


async def test_an_old_receipt_deletes_nothing(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """On a standard queue a delete by a receipt that is out of date succeeds, and the message stays."""
    sqs_stub.fill("labs", ["x"])
    (first,) = await receive(sqs, url)
    clock.advance(31)
    await receive(sqs, url)
    await sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert await depth(sqs, url) == (0, 1, 0)
    with pytest.raises(ClientError) as caught:
        await sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=1)
    assert caught.value.response["Error"]["Code"].endswith("MessageNotInflight")


async def test_an_old_receipt_on_a_fifo_queue_is_refused(sqs: Any, fifo: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """On a FIFO queue a delete after the lease is an error."""
    sqs_stub.fill("labs.fifo", ["x"])
    (message,) = await receive(sqs, fifo)
    clock.advance(31)
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*expired"):
        await sqs.delete_message(QueueUrl=fifo, ReceiptHandle=message["ReceiptHandle"])


async def test_what_is_no_receipt_is_refused(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """A receipt handle that never was one is an error: alone, and for its entry of a batch only."""
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        await sqs.delete_message(QueueUrl=url, ReceiptHandle="nonsense")
    sqs_stub.fill("labs", ["x"])
    messages = [{"ReceiptHandle": "nonsense"}, *await receive(sqs, url)]
    reply = await sqs.delete_message_batch(QueueUrl=url, Entries=entries(messages))
    assert [one["Id"] for one in reply["Successful"]] == ["1"]
    (failed,) = reply["Failed"]
    assert (failed["Id"], failed["Code"], failed["SenderFault"]) == ("0", "ReceiptHandleIsInvalid", True)


async def test_a_deleted_message_cannot_be_changed(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """Visibility of a message that is gone cannot be changed."""
    sqs_stub.fill("labs", ["x"])
    (message,) = await receive(sqs, url)
    await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*does not exist"):
        await sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=1)


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ([], "EmptyBatchRequest"),
        ([{"Id": str(n), "ReceiptHandle": "x"} for n in range(11)], "TooManyEntriesInBatchRequest"),
        ([{"Id": "a", "ReceiptHandle": "x"}] * 2, "BatchEntryIdsNotDistinct"),
        ([{"Id": "not/an/id", "ReceiptHandle": "x"}], "InvalidBatchEntryId"),
    ],
)
async def test_a_malformed_batch_is_refused_whole(sqs: Any, url: str, made: list[dict[str, str]], code: str) -> None:
    """No entries, too many, two of one id, or an id that is none: an error for the whole call."""
    with pytest.raises(ClientError) as caught:
        await sqs.delete_message_batch(QueueUrl=url, Entries=made)
    assert caught.value.response["Error"]["Code"] == f"AWS.SimpleQueueService.{code}"


@pytest.mark.parametrize(
    "options", [{"MaxNumberOfMessages": 11}, {"WaitTimeSeconds": 21}, {"VisibilityTimeout": 43_201}]
)
async def test_parameters_have_limits(sqs: Any, url: str, options: dict[str, int]) -> None:
    """Ten messages, 20 seconds of polling, 12 hours of visibility are the most."""
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        await sqs.receive_message(QueueUrl=url, **options)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # it is the size that is tested
async def test_bodies_have_limits(sqs: Any, url: str) -> None:
    """A message of more than 1 MiB, an empty one, or one with control characters is refused; so is a large batch."""
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        await sqs.send_message(QueueUrl=url, MessageBody="x" * 1_048_577)
    with pytest.raises(ClientError, match="MissingParameter"):
        await sqs.send_message(QueueUrl=url, MessageBody="")
    with pytest.raises(ClientError, match="InvalidMessageContents"):
        await sqs.send_message(QueueUrl=url, MessageBody="\x00")
    batch = [{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)]
    with pytest.raises(ClientError, match="BatchRequestTooLong"):
        await sqs.send_message_batch(QueueUrl=url, Entries=batch)


async def test_a_delay_holds_back(sqs: Any, url: str, clock: Clock) -> None:
    """A delayed message is counted as such and comes after its delay."""
    await sqs.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=10)
    assert await depth(sqs, url) == (0, 0, 1)
    assert await receive(sqs, url) == []
    clock.advance(10)
    assert len(await receive(sqs, url)) == 1


async def test_retention_deletes(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """Messages older than the retention are gone, in flight or not."""
    sqs_stub.fill("labs", ["x", "y"])
    await receive(sqs, url, 1, VisibilityTimeout=43_200)
    clock.advance(4 * DAY)
    assert await depth(sqs, url) == (0, 0, 0)


async def test_a_purge_leaves_nothing(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """Purging deletes what is visible and what is in flight."""
    sqs_stub.fill("labs", ["x", "y"])
    await receive(sqs, url, 1)
    await sqs.purge_queue(QueueUrl=url)
    assert await depth(sqs, url) == (0, 0, 0)


async def test_a_redrive_policy_moves_away(sqs: Any, url: str, sqs_stub: SqsStub, clock: Clock) -> None:
    """After maxReceiveCount receives a message goes to the dead-letter queue, which says where it came from."""
    target = sqs_stub.create_queue("dead")
    policy = {"deadLetterTargetArn": sqs_stub.queue("dead").arn, "maxReceiveCount": 2}
    await sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    sqs_stub.fill("labs", ["x"])
    for _ in range(2):
        assert len(await receive(sqs, url)) == 1
        clock.advance(31)
    assert await receive(sqs, url) == []
    (dead,) = await receive(sqs, target)
    assert dead["Body"] == "x"
    assert dead["Attributes"]["DeadLetterQueueSourceArn"] == sqs_stub.queue("labs").arn


async def test_fifo_gives_a_group_in_order_and_locks_it(sqs: Any, fifo: str) -> None:
    """Up to ten messages of a group come in one receive; until all are settled the group is closed, others are not."""
    for n in range(12):
        await sqs.send_message(QueueUrl=fifo, MessageBody=str(n), MessageGroupId="a", MessageDeduplicationId=str(n))
    await sqs.send_message(QueueUrl=fifo, MessageBody="b", MessageGroupId="b", MessageDeduplicationId="b")
    first = await receive(sqs, fifo)
    assert [m["Body"] for m in first] == [str(n) for n in range(10)]
    assert {m["Attributes"]["MessageGroupId"] for m in first} == {"a"}
    assert [m["Attributes"]["SequenceNumber"] for m in first] == sorted(
        m["Attributes"]["SequenceNumber"] for m in first
    )
    assert [m["Body"] for m in await receive(sqs, fifo)] == ["b"]
    await sqs.delete_message_batch(QueueUrl=fifo, Entries=entries(first[:9]))
    assert await receive(sqs, fifo) == []
    receipt = {"QueueUrl": fifo, "ReceiptHandle": first[9]["ReceiptHandle"]}
    await sqs.change_message_visibility(**receipt, VisibilityTimeout=0)
    assert [m["Body"] for m in await receive(sqs, fifo)] == ["9", "10", "11"]


async def test_fifo_drops_repeats_for_five_minutes(sqs: Any, fifo: str, clock: Clock) -> None:
    """A deduplication id works for five minutes; without one, the content's hash is it where the queue says so."""
    message = {"QueueUrl": fifo, "MessageBody": "x", "MessageGroupId": "a"}
    first = await sqs.send_message(**message, MessageDeduplicationId="1")
    again = await sqs.send_message(**message, MessageDeduplicationId="1")
    assert first["SequenceNumber"] == again["SequenceNumber"]
    clock.advance(300)
    await sqs.send_message(**message, MessageDeduplicationId="1")
    assert await depth(sqs, fifo) == (2, 0, 0)
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        await sqs.send_message(**message)
    await sqs.set_queue_attributes(QueueUrl=fifo, Attributes={"ContentBasedDeduplication": "true"})
    await sqs.send_message(**message)
    await sqs.send_message(**message)
    assert await depth(sqs, fifo) == (3, 0, 0)


async def test_fifo_needs_a_group(sqs: Any, fifo: str) -> None:
    """A message without a group is refused by a FIFO queue."""
    with pytest.raises(ClientError, match="MissingParameter"):
        await sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageDeduplicationId="1")


async def test_fifo_repeats_a_receive_attempt(sqs: Any, fifo: str, sqs_stub: SqsStub) -> None:
    """The same attempt id returns the same messages while they are in flight; another one nothing."""
    sqs_stub.fill("labs.fifo", ["x", "y"])
    first = await receive(sqs, fifo, ReceiveRequestAttemptId="one")
    again = await receive(sqs, fifo, ReceiveRequestAttemptId="one")
    assert [m["ReceiptHandle"] for m in again] == [m["ReceiptHandle"] for m in first]
    assert await receive(sqs, fifo, ReceiveRequestAttemptId="two") == []


async def test_no_message_is_handed_out_twice(sqs: Any, url: str, sqs_stub: SqsStub) -> None:
    """Many receives at once share a queue: each message goes to one of them."""
    sqs_stub.fill("labs", (str(n) for n in range(300)))

    async def drain() -> list[str]:
        got: list[str] = []
        while messages := await receive(sqs, url):
            got += [message["Body"] for message in messages]
            await sqs.delete_message_batch(QueueUrl=url, Entries=entries(messages))
        return got

    bodies = [body for one in await asyncio.gather(*(drain() for _ in range(8))) for body in one]
    assert sorted(bodies, key=int) == [str(n) for n in range(300)]
