"""The Storage Queue source beyond what every source does: pages, encodings, receipts, waiting, and `check`."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from consumer.errors import SettingsError, SourceError, SourceRefused
from consumer.settings import SourceSettings
from consumer.sources.base import Message, Outgoing
from consumer.sources.storage_queue import StorageQueueSource
from tests.emulators.storage_queue_stub import Clock, StorageQueueStub
from tests.servers.azurite import ACCOUNT, KEY, Azurite, create_queue
from tests.servers.fixtures_azure import OpenStorageQueue
from tests.servers.names import fresh_name

DAY = 86_400
EVENT = b'{"signed_at": "2026-03-16T08:00:00Z", "signature": "ab", "body": {"n": 1}}'


def encoded(body: bytes) -> str:
    return base64.b64encode(body).decode()


# Pages and bodies


async def test_plain_and_base64_on_one_queue(storage_account: str, open_storage_queue: OpenStorageQueue) -> None:
    """Messages of senders that encode and of those that do not arrive as the bytes their sender meant."""
    from azure.storage.queue.aio import QueueClient

    name = fresh_name()
    await create_queue(storage_account, name)
    texts = [EVENT.decode(), encoded(EVENT), "neither", encoded(b"\xff\x00"), ""]
    async with QueueClient.from_connection_string(storage_account, name) as client:
        for text in texts:
            await client.send_message(text)
    source = await open_storage_queue(storage_account, name)
    bodies = [message.body for message in await source.receive(32)]
    assert sorted(bodies) == sorted([EVENT, EVENT, b"neither", encoded(b"\xff\x00").encode(), b""])


async def test_a_message_that_breaks_its_page(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A character that XML forbids spoils neither the other messages nor its own: all are received and settled."""
    storage_stub.fill("labs", [EVENT.decode(), "a\x01b", encoded(EVENT)])
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await source.receive(32)
    assert [message.body for message in messages] == [EVENT, b"a\x01b", EVENT]
    assert await source.extend(messages) == []
    assert await source.acknowledge(messages) == []
    assert (await source.depth()).total == 0


async def test_a_receive_is_one_call(storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue) -> None:
    """A receive asks once, for as many as it may return, however much there is."""
    storage_stub.fill("labs", ["{}"] * 100)
    source = await open_storage_queue(storage_stub.connection_string)
    assert [len(await source.receive(limit)) for limit in (32, 5, 1000)] == [32, 5, 32]
    assert storage_stub.calls["getmessages"] == 3


async def test_facts(
    storage_stub: StorageQueueStub, storage_clock: Clock, open_storage_queue: OpenStorageQueue
) -> None:
    """Time of acceptance, expiry and count are the queue's; a message that never expires says so."""
    storage_stub.fill("labs", ["{}"], ttl=3 * DAY)
    storage_stub.fill("labs", ["{}"], ttl=-1)
    accepted = int(storage_clock.now)
    storage_clock.advance(600)
    source = await open_storage_queue(storage_stub.connection_string)
    mortal, immortal = await source.receive(2)
    assert mortal.expires_at is not None
    assert (mortal.accepted_at.timestamp(), mortal.expires_at.timestamp()) == (accepted, accepted + 3 * DAY)
    assert (immortal.expires_at, immortal.receive_count) == (None, 1)
    storage_clock.advance(30)
    assert [message.receive_count for message in await source.receive(2)] == [2, 2]


# Waiting


async def test_an_empty_queue_is_asked_less_and_less(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """While a queue stays empty the looks at it become rare; after a message they are frequent again."""
    source = await open_storage_queue(storage_stub.connection_string, poll_wait=1.0)
    started = time.monotonic()
    assert await source.receive(1) == []
    assert 0.9 < time.monotonic() - started < 1.5
    first = storage_stub.calls["getmessages"]
    assert 3 <= first <= 7
    assert await source.receive(1) == []
    second = storage_stub.calls["getmessages"] - first
    assert second <= 3
    storage_stub.fill("labs", ["{}"])
    assert len(await source.receive(1)) == 1
    before = storage_stub.calls["getmessages"]
    assert await source.receive(1) == []
    assert storage_stub.calls["getmessages"] - before > second


async def test_interrupt_ends_a_wait_at_once(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A receive that waits for an empty queue returns when it is interrupted, not when its wait is over."""
    source = await open_storage_queue(storage_stub.connection_string, poll_wait=20.0)
    poll = asyncio.create_task(source.receive(1))
    await asyncio.sleep(0.5)
    started = time.monotonic()
    source.interrupt()
    assert await poll == []
    assert await source.receive(1) == []
    assert time.monotonic() - started < 0.5


# Receipts


async def test_a_lease_renewed_many_times_is_settled_by_its_newest_receipt(
    storage_stub: StorageQueueStub, storage_clock: Clock, open_storage_queue: OpenStorageQueue
) -> None:
    """Each renewal changes the receipt; the message stays hidden, keeps its content, and is deleted in the end."""
    storage_stub.fill("labs", [EVENT.decode(), EVENT.decode()])
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await source.receive(2)
    for _ in range(5):
        storage_clock.advance(20)
        assert await source.extend(messages) == []
    assert await source.receive(2) == []
    assert await source.acknowledge(messages[:1]) == []
    assert await source.release(messages[1:], 0) == []
    (again,) = await source.receive(2)
    assert (again.body, again.receive_count) == (EVENT, 2)
    assert not any("popreceipt" not in asked for action, asked in storage_stub.requests if action == "updatemessage")


async def test_a_lost_lease_is_gone(
    storage_stub: StorageQueueStub, storage_clock: Clock, open_storage_queue: OpenStorageQueue
) -> None:
    """Once somebody else has a message, the old receipt may do nothing, and each call says so of that message alone."""
    storage_stub.fill("labs", ["{}", "[]"])
    source = await open_storage_queue(storage_stub.connection_string)
    lost, kept = await source.receive(2)
    assert await source.extend([kept]) == []
    storage_clock.advance(30)
    (stolen,) = await source.receive(1)
    calls: list[Callable[[list[Message]], Awaitable[Any]]] = [
        source.extend,
        lambda messages: source.release(messages, 0),
        source.acknowledge,
    ]
    for call in calls:
        (failure,) = await call([lost])
        assert (failure.message, failure.kind, failure.detail) == (lost, "gone", "PopReceiptMismatch")
    assert await source.acknowledge([stolen]) == []
    (failure,) = await source.extend([lost])
    assert (failure.kind, failure.detail) == ("gone", "MessageNotFound")


async def test_what_is_deleted_already_is_acknowledged(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A deletion whose answer was lost is repeated, finds nothing, and that is what was asked for."""
    storage_stub.fill("labs", ["{}"] * 3)
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await source.receive(3)
    storage_stub.fault("reset_after", action="DeleteMessage", count=1)
    assert await source.acknowledge(messages) == []
    assert await source.acknowledge(messages) == []
    assert (await source.depth()).total == 0


async def test_a_delay_is_cut_to_what_the_queue_has(
    storage_stub: StorageQueueStub, storage_clock: Clock, open_storage_queue: OpenStorageQueue
) -> None:
    """A longer release than 7 days is cut to a little less; fractions of a second are rounded up."""
    storage_stub.fill("labs", ["{}"], ttl=-1)
    source = await open_storage_queue(storage_stub.connection_string)
    for asked, given in ((1.2, 2), (30 * DAY, 7 * DAY - 3600)):
        messages = await source.receive(1)
        assert await source.release(messages, asked) == []
        storage_clock.advance(given - 1)
        assert await source.receive(1) == []
        storage_clock.advance(1.5)
    assert len(await source.receive(1)) == 1


# Sending


async def test_time_to_live(storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue) -> None:
    """What is sent lives 7 days, or as `options.ttl` says, for ever too."""
    lives = []
    for options in ({}, {"ttl": "1h"}, {"ttl": "never"}):
        source = await open_storage_queue(storage_stub.connection_string, options=options)
        await source.send([Outgoing(b"{}")])
        (message,) = await source.receive(1)
        lives.append(message.expires_at and (message.expires_at - message.accepted_at).total_seconds())
    assert lives == [7 * DAY, 3600, None]


@pytest.mark.parametrize("ttl", ["soon", "0", "-1"])
def test_a_wrong_time_to_live(ttl: str) -> None:
    """A time to live that is none is a wrong setting, in one line."""
    with pytest.raises(SettingsError, match=r"^sources.labs.options.ttl: expected [^\n]*never$"):
        StorageQueueSource(settings("", options={"ttl": ttl}))


async def test_nothing_is_sent_if_one_message_cannot_be(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A message that is too large is refused before any of its batch is sent."""
    source = await open_storage_queue(storage_stub.connection_string)
    with pytest.raises(SourceRefused, match="64 KiB"):
        await source.send([Outgoing(b"{}"), Outgoing(b"x" * 70_000)])
    assert (await source.depth()).total == 0


# Depth and check


async def test_depth_beyond_a_page(storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue) -> None:
    """With more visible messages than a peek shows, all that the queue counts are taken for visible."""
    storage_stub.fill("labs", ["{}"] * 70)
    source = await open_storage_queue(storage_stub.connection_string)
    held = await source.receive(32)
    depth = await source.depth()
    assert (depth.visible, depth.invisible) == (70, 0)
    await source.receive(10)
    depth = await source.depth()
    assert (depth.visible, depth.invisible) == (28, 42)
    assert await source.acknowledge(held) == []
    assert (await source.depth()).total == 38


async def test_check_says_how_long_messages_wait(
    storage_stub: StorageQueueStub, storage_clock: Clock, open_storage_queue: OpenStorageQueue
) -> None:
    """The age of the first message is told, and a warning when half of its life is over; nothing is received."""
    source = await open_storage_queue(storage_stub.connection_string)
    storage_stub.fill("labs", ["{}"])
    assert all(finding.ok for finding in await source.check())
    storage_stub.queues["labs"].clear()
    storage_clock.advance(-4 * DAY)
    storage_stub.fill("labs", ["{}"])
    storage_clock.advance(4 * DAY)
    (old,) = [finding for finding in await source.check() if not finding.ok]
    assert (old.name, old.warning) == ("oldest", True)
    assert "waited 4d of the 7d" in old.detail
    assert storage_stub.queues["labs"].peek(now=storage_clock.now)[0].dequeue_count == 0


@pytest.mark.parametrize("operation", ["Get Messages", "Update Message", "Delete Message"])
async def test_check_finds_a_missing_permission(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue, operation: str
) -> None:
    """A call that the credentials do not allow is a finding that names it; the others are looked at all the same."""
    source = await open_storage_queue(storage_stub.connection_string)
    storage_stub.fault("denied", action=operation.replace(" ", ""))
    (denied,) = [finding for finding in await source.check() if not finding.ok]
    assert (denied.name, denied.warning) == (operation, False)
    assert f"allow {operation}" in denied.detail


async def test_credentials_that_may_only_process(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """Without the permission to look at the queue it can still be consumed, and `check` warns."""
    for action in ("GetMetadata", "PeekMessages"):
        storage_stub.fault("denied", action=action)
    source = await open_storage_queue(storage_stub.connection_string)
    storage_stub.fill("labs", ["{}"])
    assert await source.acknowledge(await source.receive(1)) == []
    findings = await source.check()
    assert [(finding.name, finding.warning) for finding in findings if not finding.ok] == [
        ("queue", True),
        ("oldest", True),
    ]


@pytest.mark.thorough
async def test_a_shared_access_signature(azurite: Azurite, open_storage_queue: OpenStorageQueue) -> None:
    """A signature that allows no more than receiving, renewing and deleting is enough to consume."""
    from azure.storage.queue import QueueSasPermissions, generate_queue_sas

    name = fresh_name()
    await create_queue(azurite.connection_string, name)
    sender = await open_storage_queue(azurite.connection_string, name)
    await sender.send([Outgoing(EVENT)])
    allowed = QueueSasPermissions(process=True, update=True)
    expiry = datetime.now(UTC) + timedelta(hours=1)
    token = generate_queue_sas(ACCOUNT, name, KEY, allowed, expiry)
    source = await open_storage_queue(f"QueueEndpoint={azurite.queue_url};SharedAccessSignature={token}", name)
    messages = await source.receive(1)
    assert await source.extend(messages) == []
    findings = await source.check()
    assert [finding.name for finding in findings if not finding.ok] == ["queue", "oldest"]
    assert all(finding.ok or finding.warning for finding in findings)
    assert token not in "".join(finding.detail for finding in findings)
    assert await source.acknowledge(messages) == []
    assert (await sender.depth()).total == 0


# Settings


def settings(connection_string: str, **changes: Any) -> SourceSettings:
    """Past the checks of the settings: what the adapter itself says of what slips through."""
    values = {"kind": "storage_queue", "queue": "labs", "connection_string": SecretStr(connection_string), **changes}
    return SourceSettings(name="labs", kind="a.b:C").model_copy(update=values)


async def test_a_connection_string_that_is_none() -> None:
    """What the SDK does not take is a wrong setting, and the string is not repeated."""
    source = StorageQueueSource(settings("AccountKey-canary"))
    with pytest.raises(SettingsError) as caught:
        await source.open()
    assert str(caught.value).startswith("sources.labs.connection_string: expected")
    assert "canary" not in str(caught.value)
    await source.close()


def test_a_lease_that_is_too_long() -> None:
    """The service has leases of 7 days at most."""
    with pytest.raises(SettingsError, match="visibility_timeout: Storage Queue has 7 days"):
        StorageQueueSource(settings("", visibility_timeout=8.0 * DAY))


async def test_a_source_that_is_not_open(storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue) -> None:
    """After closing, every call is an error that says so, and nothing is opened again."""
    source = await open_storage_queue(storage_stub.connection_string)
    await source.close()
    for call in (source.receive(1), source.depth(), source.send([Outgoing(b"{}")])):
        with pytest.raises(SourceError, match="not open"):
            await call
