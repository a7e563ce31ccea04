"""Dead letters on `<queue>-poison`, as Azure Functions keeps them."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer import Reject
from consumer.app import build_source, build_store
from consumer.dead_letters import aging
from consumer.dead_letters.archive import Entry, Purged
from consumer.dead_letters.queue_archive import QueueArchive
from consumer.dead_letters.queues import DeadLetterQueue
from consumer.dead_letters.record import DeadLetter, encode
from consumer.dead_letters.segments import new_segment
from consumer.errors import DeadLetterError, SettingsError
from consumer.events import ProgramEvent
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.emulators.storage_queue_stub_queue import NEVER


@pytest.fixture
async def stub() -> AsyncIterator[StorageQueueStub]:
    """A server with the queue `labs`, and none beside it."""
    async with StorageQueueStub() as stub:
        stub.create_queue("labs")
        yield stub


@pytest.fixture
def rig(tmp_path: Path, stub: StorageQueueStub) -> Rig:
    """Workers on the queue `labs` whose dead letters go to queues."""
    source = {
        "KIND": "storage_queue",
        "CONNECTION_STRING": stub.connection_string,
        "QUEUE": "labs",
        "POLL_WAIT": "1",
        "VISIBILITY_TIMEOUT": "30s",
    }
    return Rig(tmp_path, source, {"DEAD_LETTERS__KIND": "queue"})


def texts(stub: StorageQueueStub) -> list[str]:
    """What is on the poison queue."""
    return [message.text for message in stub.queues["labs-poison"].messages.values()]


def message_of(record: Mapping[str, Any]) -> bytes:
    """The bytes that a dead letter in a file holds."""
    text: str = record["message"]
    return base64.b64decode(text) if record["message_encoding"] == "base64" else text.encode()


def letter(number: int, message: bytes) -> DeadLetter:
    """A dead letter of the queue `labs`."""
    now = datetime.now(UTC)
    return DeadLetter(
        id=f"record{number}",
        provider="thrive",
        source="labs",
        reason="rejected",
        attempts=1,
        accepted_at=now,
        first_received_at=now,
        dead_lettered_at=now,
        message=message,
    )


async def test_dead_letters_go_beside_their_queue(rig: Rig, stub: StorageQueueStub) -> None:
    """What is put aside is on <queue>-poison, byte for byte, before it leaves its queue; a source can read it there."""
    stub.create_queue("labs-poison")
    table = effects_table()

    @table.on(ProgramEvent)
    async def refusing(event: ProgramEvent, context: object) -> None:
        raise Reject("not today")

    messages = [signed(program("one")), signed(program("two"), secret="guessed"), b"hello \xe2\x82\xac"]
    await rig.publish(messages)
    await rig.consume(table)
    assert (await rig.depth()).total == 0
    poison = build_source(rig.load(SOURCES__LABS__QUEUE="labs-poison").settings.source("labs"))
    await poison.open()
    try:
        found = await poison.receive(32)
        assert sorted(message.body for message in found) == sorted(messages)
        await poison.release(found, 0)
    finally:
        await poison.close()
    stub.create_queue("labs-poison-poison")
    again = effects_table()
    again.on(ProgramEvent)(effect)
    await rig.consume(again, SOURCES__LABS__QUEUE="labs-poison")
    assert rig.effects() == Counter(["one"])


async def test_without_the_poison_queue_nothing_starts(rig: Rig) -> None:
    """A worker whose dead letters have nowhere to go says so in one line, and handles nothing."""
    with pytest.raises(DeadLetterError, match=r"^dead-letter queue: source labs, labs-poison: .*QueueNotFound"):
        await rig.consume(effects_table())


async def test_with_the_poison_queue_gone_nothing_is_lost(rig: Rig, stub: StorageQueueStub) -> None:
    """While dead letters cannot be kept the source pauses; what was to be put aside stays on its queue."""
    stub.create_queue("labs-poison")
    table = effects_table()
    table.on(ProgramEvent)(effect)
    async with rig.worker(table) as app:
        stub.delete_queue("labs-poison")
        await rig.publish([b"hello"])
        await eventually(app.worker.intakes[0].paused.is_set)
        await eventually(lambda: not app.worker.intakes[0].held)
        stub.create_queue("labs-poison")
        await rig.publish([signed(program("one"))])
        await eventually(lambda: not app.worker.intakes[0].paused.is_set(), within=30)
        await eventually(lambda: rig.effects()["one"] == 1)
        async with asyncio.timeout(20):
            while (await rig.depth()).total:
                await asyncio.sleep(0.1)


async def test_one_poison_queue_gone_stops_no_other_source(rig: Rig, stub: StorageQueueStub) -> None:
    """A source whose dead letters can be kept goes on, when another's that come with them cannot."""
    for name in ("labs-poison", "scores", "scores-poison"):
        stub.create_queue(name)
    scores = {
        "SOURCES__SCORES__KIND": "storage_queue",
        "SOURCES__SCORES__CONNECTION_STRING": stub.connection_string,
        "SOURCES__SCORES__QUEUE": "scores",
        "SOURCES__SCORES__POLL_WAIT": "1",
    }
    table = effects_table()
    together = asyncio.Event()

    @table.on(ProgramEvent)
    async def refusing(event: ProgramEvent, context: object) -> None:
        await together.wait()
        raise Reject("not today")

    async with rig.worker(table, **scores) as app:
        labs, other = app.worker.intakes
        for name, intake in (("labs", labs), ("scores", other)):
            stub.fill(name, [signed(program(f"{name}{number}")).decode() for number in range(10)])
            await eventually(lambda intake=intake: len(intake.held) == 10)
        stub.delete_queue("scores-poison")
        together.set()
        await eventually(other.paused.is_set)
        await eventually(lambda: len(texts(stub)) == 10 or labs.paused.is_set())
        assert not labs.paused.is_set()


async def test_what_the_queue_cannot_carry_goes_to_files(rig: Rig, stub: StorageQueueStub) -> None:
    """What fitted its queue and does not fit the other is kept in a file, with a warning that shows nothing of it."""
    stub.create_queue("labs-poison")
    large = "canary\r\n" + "x" * 60_000
    stub.fill("labs", ["hello", large, "canary\r\n"])
    table = effects_table()
    table.on(ProgramEvent)(effect)
    with capture_logs() as lines:
        await rig.consume(table)
    assert (await rig.depth()).total == 0
    assert sorted(texts(stub)) == sorted(["hello", base64.b64encode(b"canary\r\n").decode()])
    assert [message_of(record) for record in rig.dead_letters()] == [large.encode()]
    assert [line["log_level"] for line in lines if line["event"] == "dead_letters_in_files"] == ["warning"]
    assert "canary" not in str(lines)


async def test_files_beside_a_queue_grow_old_too(
    rig: Rig, stub: StorageQueueStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the queue could not carry is deleted after max_age, as any dead letter that is in a file."""
    stub.create_queue("labs-poison")
    monkeypatch.setattr(aging, "_EVERY", 0.05)
    long_ago = datetime.now(UTC) - timedelta(days=90)
    folder = rig.load().settings.dead_letters.path
    folder.mkdir(exist_ok=True)
    segment = new_segment(folder, now=long_ago)
    segment.append(encode(replace(letter(1, b"\0"), dead_lettered_at=long_ago)))
    segment.close()
    async with rig.worker(effects_table()):
        await eventually(lambda: not segment.path.exists())


async def test_dead_letters_do_not_vanish(rig: Rig, stub: StorageQueueStub) -> None:
    """They live for ever, whatever the queue's own messages do."""
    stub.create_queue("labs-poison")
    await rig.publish([b"hello"])
    table = effects_table()
    table.on(ProgramEvent)(effect)
    await rig.consume(table, SOURCES__LABS__OPTIONS__TTL="1h")
    assert [message.expires for message in stub.queues["labs-poison"].messages.values()] == [NEVER]


async def test_one_refused_record_does_not_keep_back_the_others(rig: Rig, stub: StorageQueueStub) -> None:
    """The call fails, but the rest of its batch is kept, and is not doubled when all are given again."""
    stub.create_queue("labs-poison")
    store = build_store(rig.load().settings)
    no_text = b"a lone surrogate \xed\xa0\x80"
    records = [letter(1, b"one"), letter(2, b"two"), letter(3, no_text), letter(4, b"four")]
    stub.fault("denied", action="PutMessage", count=1)
    try:
        with pytest.raises(DeadLetterError, match=r"^dead-letter queue: source labs, labs-poison: .*allow Put Message"):
            await store.append(records)
        assert (len(texts(stub)), len(rig.dead_letters())) == (2, 1)
        await store.append(records)
        assert sorted(texts(stub)) == ["four", "one", "two"]
        assert [message_of(record) for record in rig.dead_letters()] == [no_text]
        await store.append(records[:1])
        assert sorted(texts(stub)) == ["four", "one", "one", "two"]
    finally:
        await store.close()


async def test_a_silent_service_is_not_asked_for_every_record(rig: Rig, stub: StorageQueueStub) -> None:
    """When the queue does not answer, the call fails before it has tried them all: no record is to blame."""
    stub.create_queue("labs-poison")
    store = build_store(rig.load().settings)
    try:
        await store.probe()
        stub.fault("busy", action="PutMessage", count=32 * 3)
        with pytest.raises(DeadLetterError, match="ServerBusy"):
            await store.append([letter(number, b"hello") for number in range(100)])
        assert texts(stub) == []
    finally:
        await store.close()


async def test_credentials_that_may_only_add(rig: Rig, stub: StorageQueueStub) -> None:
    """A worker that may put messages on the poison queue, and nothing else there, can do its work."""
    stub.create_queue("labs-poison")
    store = build_store(rig.load().settings)
    for action in ("GetMetadata", "PeekMessages", "GetMessages", "UpdateMessage", "DeleteMessage"):
        stub.fault("denied", action=action)
    try:
        await store.probe()
        await store.append([letter(1, b"hello")])
    finally:
        await store.close()
    assert texts(stub) == ["hello"]


async def test_a_queue_that_goes_is_noticed(rig: Rig, stub: StorageQueueStub) -> None:
    """Each probe asks anew: while the queue is not there it fails, and it passes again when it is."""
    stub.create_queue("labs-poison")
    store = build_store(rig.load().settings)
    try:
        await store.probe()
        stub.delete_queue("labs-poison")
        with pytest.raises(DeadLetterError, match=r"^dead-letter queue: source labs, labs-poison: .*QueueNotFound"):
            await store.probe()
        stub.create_queue("labs-poison")
        await store.probe()
    finally:
        await store.close()


async def test_without_room_for_files_nothing_starts(rig: Rig, stub: StorageQueueStub) -> None:
    """Files that cannot be written are found before a message needs them."""
    stub.create_queue("labs-poison")
    rig.dead_letter_folder.write_bytes(b"no folder")
    with pytest.raises(DeadLetterError, match=r"^dead-letter store "):
        await rig.consume(effects_table())


def test_only_queues_in_a_cloud_have_one(rig: Rig) -> None:
    """With a source of another kind, or recipients, the settings are refused."""
    with pytest.raises(
        SettingsError, match=r"DEAD_LETTERS__KIND: expected file, s3 or blob, since source other is local"
    ):
        rig.load(SOURCES__OTHER__KIND="local", SOURCES__OTHER__PATH="queue")
    with pytest.raises(SettingsError, match=r"DEAD_LETTERS__RECIPIENTS: expected none"):
        rig.load(DEAD_LETTERS__RECIPIENTS='["age1qqqq"]')


async def test_another_queue_may_be_named(rig: Rig, stub: StorageQueueStub) -> None:
    """With `dead_letter_queue` dead letters go there, and are read from there."""
    stub.create_queue("put-aside")
    named = {"SOURCES__LABS__DEAD_LETTER_QUEUE": "put-aside"}
    store = build_store(rig.load(**named).settings)
    try:
        await store.append([letter(1, b"hello")])
    finally:
        await store.close()
    assert [message.text for message in stub.queues["put-aside"].messages.values()] == ["hello"]
    assert [entry.record.source for entry in await asyncio.to_thread(entries_of, rig, **named)] == ["labs"]


async def test_they_are_read_back_in_place(rig: Rig, stub: StorageQueueStub) -> None:
    """What is on the poison queue is listed with the queue's time, given back, deleted when it is done, or purged."""
    stub.create_queue("labs-poison")
    stub.fill("labs-poison", [f"message {number}" for number in range(40)])
    before = datetime.now(UTC)
    found = await asyncio.to_thread(entries_of, rig)
    assert sorted(entry.raw for entry in found) == sorted({entry.raw for entry in found})
    assert {(entry.record.reason, entry.record.attempts, entry.fate) for entry in found} == {("redriven", 0, None)}
    assert all(abs(entry.record.accepted_at - before) < timedelta(seconds=5) for entry in found)
    assert len(found) == 40

    def worked() -> Purged:
        with closing(archive_of(rig)) as archive:
            first, second, *_ = [one for one in archive.read(hold=True) if isinstance(one, Entry)]
            archive.record_fates(first.segment, {first.record.id: "handled", second.record.id: "failed"})
        with closing(archive_of(rig)) as archive:
            return archive.purge(lambda record: isinstance(record, DeadLetter) and record.message.endswith(b"9"))

    done = await asyncio.to_thread(worked)
    assert (done.removed, done.kept, done.problems) == (4, 35, [])
    assert len(await asyncio.to_thread(entries_of, rig)) == 35


def archive_of(rig: Rig, **changes: str) -> QueueArchive:
    """The archive over the poison queue, which does not wait for messages."""
    return QueueArchive([DeadLetterQueue(rig.load(**changes).settings.source("labs"))], poll_wait=0)


def entries_of(rig: Rig, **changes: str) -> list[Entry]:
    """All that is read, when there is no problem."""
    with closing(archive_of(rig, **changes)) as archive:
        found = list(archive.read())
    assert not [one for one in found if not isinstance(one, Entry)]
    return [one for one in found if isinstance(one, Entry)]
