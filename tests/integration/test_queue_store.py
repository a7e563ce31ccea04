"""Dead letters on `<queue>-poison`, as Azure Functions keeps them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer import Reject
from consumer.app import build_source
from consumer.errors import DeadLetterError, SettingsError
from consumer.events import ProgramEvent
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed
from tests.emulators.storage_queue_stub import StorageQueueStub


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
    return Rig(tmp_path, source, {"DEAD_LETTERS__KIND": "queue"}, without={"DEAD_LETTERS__PATH"})


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
    with pytest.raises(DeadLetterError, match=r"^dead-letter queue: source labs: .*QueueNotFound"):
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


def test_only_storage_queues_have_one(rig: Rig) -> None:
    """With a source of another kind, or recipients, the settings are refused."""
    with pytest.raises(SettingsError, match=r"DEAD_LETTERS__KIND: expected file, since source other is local"):
        rig.load(SOURCES__OTHER__KIND="local", SOURCES__OTHER__PATH="queue")
    with pytest.raises(SettingsError, match=r"DEAD_LETTERS__RECIPIENTS: expected none"):
        rig.load(DEAD_LETTERS__RECIPIENTS='["age1qqqq"]')


def test_commands_that_read_files_say_where_they_are(rig: Rig) -> None:
    """Asked for segments, such a store says in one line where its messages are."""
    with pytest.raises(SettingsError, match="<queue>-poison"):
        _ = rig.load().settings.dead_letters.folder
