"""The Storage Queue stub behaves as the service does, asked by the SDK; Azurite is the check on what both can say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.core.exceptions import AzureError, HttpResponseError

from tests.emulators.storage_queue_stub import Clock, StorageQueueStub
from tests.servers.azurite import KEY
from tests.servers.names import fresh_name

DAY = 86_400


def client_of(connection_string: str, queue: str) -> Any:
    from azure.storage.queue.aio import QueueClient

    return QueueClient.from_connection_string(connection_string, queue, retry_total=0, read_timeout=0.5)


@pytest.fixture
async def queue(storage_account: str) -> AsyncIterator[Any]:
    """A client of a new queue, on each server."""
    async with client_of(storage_account, fresh_name()) as client:
        await client.create_queue()
        yield client


@pytest.fixture
async def labs(storage_stub: StorageQueueStub) -> AsyncIterator[Any]:
    """A client of the stub's queue, on the test's clock."""
    async with client_of(storage_stub.connection_string, "labs") as client:
        yield client


async def received(queue: Any, count: int = 32, **options: Any) -> list[Any]:
    return [one async for one in queue.receive_messages(messages_per_page=count, max_messages=count, **options)]


async def code(call: Any) -> tuple[int | None, str]:
    """The status and code with which a call is refused."""
    with pytest.raises(HttpResponseError) as caught:
        await call
    found = caught.value
    return found.status_code, str(getattr(found.error_code, "value", found.error_code))


async def test_queues_are_made_and_deleted(queue: Any) -> None:
    """A queue exists once, has metadata, and is not found when it is gone."""
    assert (await code(queue.create_queue()))[1] == "QueueAlreadyExists"
    await queue.set_queue_metadata({"team": "labs"})
    assert (await queue.get_queue_properties()).metadata == {"team": "labs"}
    await queue.delete_queue()
    assert await code(queue.get_queue_properties()) == (404, "QueueNotFound")
    assert await code(queue.send_message("x")) == (404, "QueueNotFound")


async def test_a_message_is_received_as_sent(queue: Any) -> None:
    """Text, ids, times and count of a message are there; it is peeked at without a receipt and without counting."""
    sent = await queue.send_message('<é & "\U0001f600">', time_to_live=100)
    (peeked,) = await queue.peek_messages()
    (message,) = await received(queue, visibility_timeout=20)
    assert peeked.content == message.content == '<é & "\U0001f600">'
    assert (peeked.dequeue_count, peeked.pop_receipt) == (0, None)
    assert (message.id, message.dequeue_count) == (sent.id, 1)
    assert (message.expires_on - message.inserted_on).total_seconds() == 100
    assert 19 <= (message.next_visible_on - message.inserted_on).total_seconds() <= 22
    assert await received(queue) == []


async def test_receipts_change(queue: Any) -> None:
    """Every receive and update gives a new receipt; an old one settles nothing, and a deleted message is not found."""
    sent = await queue.send_message("x")
    (message,) = await received(queue)
    assert message.pop_receipt != sent.pop_receipt
    updated = await queue.update_message(message.id, message.pop_receipt, visibility_timeout=0, content="y")
    assert await code(queue.delete_message(message.id, message.pop_receipt)) == (400, "PopReceiptMismatch")
    (again,) = await received(queue)
    assert (again.content, again.dequeue_count) == ("y", 2)
    stale = queue.update_message(message.id, updated.pop_receipt, visibility_timeout=1)
    assert await code(stale) == (400, "PopReceiptMismatch")
    await queue.delete_message(again.id, again.pop_receipt)
    assert await code(queue.delete_message(again.id, again.pop_receipt)) == (404, "MessageNotFound")


async def test_limits(queue: Any) -> None:
    """32 messages a receive, 64 KiB a message, 7 days out of sight; all that is more is refused."""
    await queue.send_message("x" * 65_536)
    assert (await code(queue.send_message("x" * 65_537)))[1] == "RequestBodyTooLarge"
    for wrong in (
        queue.send_message("x", visibility_timeout=7 * DAY + 1),
        received(queue, visibility_timeout=7 * DAY + 1),
        queue.receive_messages(messages_per_page=33).by_page().__anext__(),
        queue.receive_messages(messages_per_page=0).by_page().__anext__(),
    ):
        # Azurite names no code for some of them.
        assert await code(wrong) in {(400, "OutOfRangeQueryParameterValue"), (400, "None")}


async def test_the_count_has_invisible_messages_in_it(queue: Any) -> None:
    """The approximate count counts what is held or delayed too; clearing empties the queue."""
    for delay in (0, 0, 50):
        await queue.send_message("x", visibility_timeout=delay)
    assert len(await received(queue)) == 2
    assert (await queue.get_queue_properties()).approximate_message_count == 3
    await queue.clear_messages()
    assert (await queue.get_queue_properties()).approximate_message_count == 0


async def test_signatures_are_checked(storage_account: str) -> None:
    """A wrong key is refused."""
    forged = storage_account.replace(KEY, "A" * 86 + "==")
    async with client_of(forged, "labs") as client:
        assert await code(client.get_queue_properties()) == (403, "AuthenticationFailed")


async def test_time_passes(labs: Any, storage_clock: Clock) -> None:
    """Delays end and leases lapse, in order; a message that has outlived its time is gone."""
    await labs.send_message("late", visibility_timeout=10)
    await labs.send_message("soon", time_to_live=60)
    await labs.send_message("for ever", time_to_live=-1)
    assert [one.content for one in await received(labs, visibility_timeout=5)] == ["soon", "for ever"]
    storage_clock.advance(11)
    assert [one.content for one in await received(labs, visibility_timeout=5)] == ["soon", "for ever", "late"]
    storage_clock.advance(50)
    assert [(one.content, one.dequeue_count) for one in await labs.peek_messages(32)] == [("for ever", 2), ("late", 1)]
    storage_clock.advance(8 * DAY)
    (left,) = await received(labs)
    assert (left.content, left.expires_on.year) == ("for ever", 9999)


async def test_filled_and_counted(storage_stub: StorageQueueStub, labs: Any) -> None:
    """A test may fill a queue at once, and look at what was asked."""
    assert storage_stub.fill("labs", (f"{n}" for n in range(100))) == 100
    assert [one.content for one in await received(labs, 2)] == ["0", "1"]
    assert storage_stub.described() == {"labs": {"messages": 100}}
    assert storage_stub.calls == {"getmessages": 1}
    assert storage_stub.requests[0][1]["numofmessages"] == "2"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("busy", (503, "ServerBusy")),
        ("internal", (500, "InternalError")),
        ("timed_out", (500, "OperationTimedOut")),
        ("denied", (403, "AuthorizationPermissionMismatch")),
        ("bad_key", (403, "AuthenticationFailed")),
        ("no_queue", (404, "QueueNotFound")),
    ],
)
async def test_errors_on_demand(
    storage_stub: StorageQueueStub, labs: Any, kind: str, expected: tuple[int, str]
) -> None:
    """A fault answers so many requests of one action with its error; nothing was done, and others are left alone."""
    storage_stub.fault(kind, action="PutMessage", count=2)
    for _ in range(2):
        assert await code(labs.send_message("x")) == expected
    assert await labs.peek_messages() == []
    await labs.send_message("x")


@pytest.mark.parametrize("kind", ["reset", "reset_after", "hang", "cut", "foreign"])
async def test_broken_replies_on_demand(storage_stub: StorageQueueStub, labs: Any, kind: str) -> None:
    """Connections break before or after the work is done, hang, or bring what is no reply."""
    storage_stub.fill("labs", ["x"])
    storage_stub.fault(kind, action="GetMessages")
    with pytest.raises(AzureError):
        await received(labs)
    done = kind in {"reset_after", "cut"}
    assert len(await labs.peek_messages()) == (0 if done else 1)
