"""What can go wrong on the way to an SQS dead-letter queue and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from consumer.app import build_store
from consumer.dead_letters.archive import Entry, Problem
from consumer.dead_letters.queue_archive import QueueArchive
from consumer.dead_letters.queue_check import queue_findings
from consumer.dead_letters.queue_lease import LeasedQueue
from consumer.dead_letters.queues import DeadLetterQueue
from consumer.dead_letters.store import DeadLetterStore
from consumer.errors import ConsumerError, DeadLetterError, SettingsError, SourceRefused, SourceUnavailable
from consumer.settings import SourceSettings
from consumer.sources.base import Outgoing
from consumer.sources.sqs import SqsSource
from tests.conformance.rig import Rig, effects_table, eventually
from tests.emulators.sqs_stub import Clock, SqsStub
from tests.integration.test_sqs_dead_letters import bodies, keep, letter, redrive, rig_on

T = TypeVar("T")


@pytest.fixture
def rig(tmp_path: Path, sqs_stub: SqsStub) -> Rig:
    """Workers on the queue `labs`, whose dead letters go to `labs-dlq`, which is named."""
    sqs_stub.create_queue("labs-dlq")
    made = rig_on(tmp_path, sqs_stub.create_queue("labs"))
    made.changes["SOURCES__LABS__DEAD_LETTER_QUEUE"] = "labs-dlq"
    return made


@asynccontextmanager
async def opened(rig: Rig) -> AsyncIterator[DeadLetterStore]:
    """The store, open."""
    store = build_store(rig.load().settings)
    try:
        yield store
    finally:
        await store.close()


async def ask(rig: Rig, work: Callable[[QueueArchive], T], most_held: int = 10_000) -> T:
    """What some work with the archive returns."""
    queues = [DeadLetterQueue(rig.load().settings.source("labs"))]

    def asked() -> T:
        with closing(QueueArchive(queues, most_held=most_held, poll_wait=0)) as archive:
            return work(archive)

    return await asyncio.to_thread(asked)


async def test_one_refused_record_does_not_keep_back_the_others(rig: Rig, sqs_stub: SqsStub) -> None:
    """The call fails, but the rest of its batch is kept, and is not doubled when all are given again."""
    records = [letter(n, b"%d" % n) for n in range(13)]
    async with opened(rig) as store:
        await store.probe()
        sqs_stub.fault(
            "partial", action="SendMessageBatch", count=1, entries=(1,), code="AccessDenied", sender_fault=True
        )
        with pytest.raises(DeadLetterError, match=r"^dead-letter queue: source labs, labs-dlq: .*AccessDenied"):
            await store.append(records)
        assert len(bodies(sqs_stub)) == 12
        await store.append(records)
    assert sorted(map(int, bodies(sqs_stub))) == list(range(13))


async def test_passing_failures_of_single_messages_are_not_noticed(rig: Rig, sqs_stub: SqsStub) -> None:
    """What SQS did not take of a batch for a passing reason is sent again, alone."""
    async with opened(rig) as store:
        sqs_stub.fault("partial", action="SendMessageBatch", count=2, entries=(0,))
        await store.append([letter(n, b"%d" % n) for n in range(4)])
    assert sorted(bodies(sqs_stub)) == ["0", "1", "2", "3"]


async def test_a_silent_service_is_not_asked_for_every_record(rig: Rig, sqs_stub: SqsStub) -> None:
    """When SQS is not there, the call fails after one batch: no record is to blame, and none is kept."""
    async with opened(rig) as store:
        await store.probe()
        sqs_stub.fault("internal", action="SendMessageBatch")
        with pytest.raises(DeadLetterError, match="failed for now"):
            await store.append([letter(n) for n in range(100)])
        assert bodies(sqs_stub) == []
        assert sqs_stub.calls["sendmessagebatch"] <= 3
        sqs_stub.faults.clear()
        await store.append([letter(n) for n in range(100)])
    assert len(bodies(sqs_stub)) == 100


async def test_large_messages_go_in_several_calls(rig: Rig, sqs_stub: SqsStub) -> None:
    """Messages that are too large for one call together are kept; one that the queue does not take is in a file."""
    sqs_stub.queue("labs-dlq").configure({"MaximumMessageSize": "262144"})
    async with opened(rig) as store:
        await store.append([letter(n, b"x" * 200_000) for n in range(8)] + [letter(9, b"x" * 262_145)])
    assert len(bodies(sqs_stub)) == 8
    assert [len(record["message"]) for record in rig.dead_letters()] == [262_145]


async def test_without_a_dead_letter_queue_nothing_starts(tmp_path: Path, sqs_stub: SqsStub) -> None:
    """A worker whose queue names no dead-letter queue, or one that is not there, says so in one line."""
    rig = rig_on(tmp_path, sqs_stub.create_queue("labs"))
    with pytest.raises(SettingsError, match=r"^sources.labs.dead_letter_queue: missing, and the queue has no redrive"):
        await rig.consume(effects_table())
    sqs_stub.queue("labs").configure(redrive("gone"))
    with pytest.raises(DeadLetterError, match=r"^dead-letter queue: source labs, gone: the queue does not exist"):
        await rig.consume(effects_table())
    sqs_stub.queue("labs").configure(redrive("labs-dlq.fifo"))
    with pytest.raises(SettingsError, match="expected a standard queue, since the source's queue is one"):
        await rig.consume(effects_table())
    sqs_stub.fault("denied", action="GetQueueAttributes")
    with pytest.raises(SettingsError, match="set it, or allow sqs:GetQueueAttributes"):
        await rig.consume(effects_table())


async def test_credentials_that_may_only_send(rig: Rig, sqs_stub: SqsStub) -> None:
    """A worker that may put messages on a named dead-letter queue, and nothing else there, can do its work."""
    for action in ("GetQueueAttributes", "ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
        sqs_stub.fault("denied", action=action)
    async with opened(rig) as store:
        await store.probe()
        await store.append([letter(1)])
    assert bodies(sqs_stub) == ["hello"]


async def test_more_than_can_be_held(rig: Rig, sqs_stub: SqsStub) -> None:
    """A look ends at the most that is held and says that there is more; what is handled makes room for the rest."""
    await keep(rig, *(letter(n, b"%d" % n) for n in range(45)))
    found = await ask(rig, lambda archive: list(archive.read()), most_held=20)
    assert [type(one) for one in found] == [Entry] * 20 + [Problem]
    assert "there is more" in str(found[-1])
    assert sqs_stub.described()["labs-dlq"]["ready"] == 45
    done = await ask(rig, lambda archive: archive.purge(lambda _: False), most_held=20)
    assert (done.removed, done.kept) == (0, 20)
    assert ["there is more" in str(problem) for problem in done.problems] == [True]

    def replayed(archive: QueueArchive) -> None:
        for one in archive.read(hold=True):
            assert isinstance(one, Entry)
            archive.record_fates(one.segment, {one.record.id: "handled"})

    await ask(rig, replayed, most_held=20)
    assert bodies(sqs_stub) == []


async def test_purging(rig: Rig, sqs_stub: SqsStub) -> None:
    """What is meant is deleted, its doubles too; the rest is given back; there is nothing handled to purge."""
    await keep(rig, *(letter(n, reason="stale" if n % 2 else "rejected") for n in range(24)))
    await keep(rig, letter(1, reason="stale"))
    done = await ask(rig, lambda archive: archive.purge(lambda record: record.reason == "stale", limit=4))
    assert done.removed == 4
    done = await ask(rig, lambda archive: archive.purge(lambda record: record.reason == "stale"))
    assert (done.removed, done.kept) == (9, 12)
    assert (await ask(rig, lambda archive: archive.purge(lambda _: True, handled=True))).removed == 0

    def unsure(_: object) -> bool:
        raise DeadLetterError("cannot be judged")

    done = await ask(rig, lambda archive: archive.purge(unsure))
    assert (done.removed, done.kept, len(done.problems)) == (0, 12, 12)
    assert sqs_stub.described()["labs-dlq"]["ready"] == 12


async def test_a_queue_that_cannot_be_read(rig: Rig, sqs_stub: SqsStub) -> None:
    """A missing permission or an absent service ends a look in one line, and leaves nothing in flight."""
    await keep(rig, letter(1))
    sqs_stub.fault("denied", action="ReceiveMessage")
    with pytest.raises(DeadLetterError, match="allow sqs:ReceiveMessage"):
        await ask(rig, lambda archive: list(archive.read()))
    sqs_stub.faults.clear()
    sqs_stub.fault("denied", action="DeleteMessageBatch")

    def replayed(archive: QueueArchive) -> None:
        for one in archive.read(hold=True):
            assert isinstance(one, Entry)
            archive.record_fates(one.segment, {one.record.id: "handled"})

    with pytest.raises(DeadLetterError, match="allow sqs:DeleteMessage"):
        await ask(rig, replayed)
    assert sqs_stub.described()["labs-dlq"]["ready"] == 1


def leased_queue(stub: SqsStub, lease: float = 300.0) -> LeasedQueue:
    """A queue named `labs` that is not open yet; its leases are of 30 s, and renewed as if they were of `lease`."""
    url = stub.create_queue("labs")
    settings: dict[str, Any] = {"queue_url": url, "region": "us-east-1", "poll_wait": 0.0, "visibility_timeout": 30.0}
    return LeasedQueue(SqsSource(SourceSettings(name="labs", kind="sqs", **settings)), lease=lease)


async def test_leases_are_renewed_while_messages_are_held(sqs_stub: SqsStub, clock: Clock) -> None:
    """What is held stays invisible as long as it is held, and comes back at once when it is released."""
    leased = leased_queue(sqs_stub, lease=0.15)
    sqs_stub.fill("labs", [str(n) for n in range(12)])
    await leased.open()
    try:
        while await leased.receive() is not None:
            pass
        assert leased.holding == 12
        for _ in range(3):
            clock.now += 20  # of the 30 of a lease
            before = sqs_stub.calls["changemessagevisibilitybatch"]
            await eventually(lambda at=before: sqs_stub.calls["changemessagevisibilitybatch"] >= at + 4)  # type: ignore[misc]
        assert await leased.receive() is None
    finally:
        await leased.close()
    assert sqs_stub.described()["labs"]["ready"] == 12


async def test_a_lost_lease_is_let_go(sqs_stub: SqsStub) -> None:
    """A message that is somebody else's by now is not held any more, and not called deleted."""
    leased = leased_queue(sqs_stub, lease=0.15)
    sqs_stub.fill("labs", ["one", "two"])
    await leased.open()
    try:
        messages = await leased.receive() or []
        sqs_stub.fault(
            "partial",
            action="ChangeMessageVisibilityBatch",
            count=1,
            entries=(0,),
            code="MessageNotInflight",
            sender_fault=True,
        )
        await eventually(lambda: leased.holding == 1)
        assert await leased.delete([message.message_id for message in messages]) == 1
    finally:
        await leased.close()


@pytest.mark.parametrize(
    ("code", "count", "error"),
    [("InternalError", 1, None), ("InternalError", 9, SourceUnavailable), ("AccessDenied", 9, SourceRefused)],
    ids=["passing", "lasting", "refused"],
)
async def test_deletions_that_fail(code: str, count: int, error: type[ConsumerError] | None, sqs_stub: SqsStub) -> None:
    """A deletion is tried again while that may help; what is not deleted is still held."""
    leased = leased_queue(sqs_stub)
    sqs_stub.fill("labs", ["one", "two"])
    await leased.open()
    try:
        ids = [message.message_id for message in await leased.receive() or ()]
        refused = code == "AccessDenied"
        sqs_stub.fault(
            "partial", action="DeleteMessageBatch", count=count, entries=(0,), code=code, sender_fault=refused
        )
        if error is None:
            assert await leased.delete(ids) == 2
        else:
            with pytest.raises(error):
                await leased.delete(ids)
        assert leased.holding == (0 if error is None else 1)
    finally:
        await leased.close()


async def test_check_looks_at_the_queue(rig: Rig, sqs_stub: SqsStub) -> None:
    """`check` says whether each dead-letter queue is there, and how long it keeps what is put there."""
    found = await queue_findings(rig.load().settings)
    assert [(one.name, one.detail) for one in found if not one.ok] == [
        ("retention of labs", "SQS deletes dead letters after 4d: set MessageRetentionPeriod to 14d")
    ]
    assert "sqs:SendMessage of labs" in [one.name for one in found]
    sqs_stub.delete_queue("labs-dlq")
    found = await queue_findings(rig.load().settings)
    assert [one.ok for one in found] == [False]
    assert "the queue does not exist" in found[0].detail
    await rig.publish([Outgoing(b"nothing was received")])
    assert (await rig.depth()).visible == 1
