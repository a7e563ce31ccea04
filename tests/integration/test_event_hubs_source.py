"""The Event Hubs source on the emulator: what an event becomes, where reading starts, and where checkpoints stand."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer import Context, Retry, Unavailable
from consumer import partitions as partitions_module
from consumer.events import ProgramEvent
from consumer.settings import SourceSettings
from consumer.sources.base import Message
from consumer.sources.event_hubs import EventHubsSource
from tests.conformance.rig import Rig, effect, effects_table, eventually
from tests.emulators.event_hubs_azure import producer
from tests.faults.harness_azure import CheckpointWatch, events, logged, opened_hub
from tests.servers.azurite import Azurite


@contextlib.asynccontextmanager
async def opened(*settings: SourceSettings) -> AsyncIterator[list[EventHubsSource]]:
    """Sources with these settings, closed together."""
    sources = [EventHubsSource(one) for one in settings]
    try:
        for source in sources:
            await source.open()
        yield sources
    finally:
        await asyncio.gather(*(source.close() for source in sources))


async def received(source: EventHubsSource, count: int) -> list[Message]:
    """Receive at least so many."""
    found: list[Message] = []
    async with asyncio.timeout(15):
        while len(found) < count:
            found += await source.receive(200)
    return found


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.body for message in messages]


def events_with_key(*names: str) -> list[Any]:
    """To be sent with a partition key."""
    from azure.eventhub import EventData

    return [EventData(body) for body in events(names)]


async def test_what_an_event_becomes(tmp_path: Path, azurite: Azurite) -> None:
    """Envelopes alone and in arrays, in sections, in gzip, with properties: all are handled; other bodies are not."""
    from azure.eventhub import EventData
    from azure.eventhub.amqp import AmqpAnnotatedMessage, AmqpMessageProperties

    table = effects_table()
    deliveries: dict[str, Any] = {}

    @table.on(ProgramEvent)
    async def note(event: ProgramEvent, context: Context) -> None:
        deliveries[event.event_id] = context.delivery
        await effect(event, context)

    one, half = events(["plain", "sections"])
    array = b"[" + b",".join(events(["first", "second", "third"])) + b"]"
    zipped = AmqpMessageProperties(content_encoding="GZIP")
    packed, bomb, broken = (
        AmqpAnnotatedMessage(data_body=body, properties=zipped)
        for body in (gzip.compress(events(["zipped"])[0]), gzip.compress(bytes(3 << 20)), b"no gzip at all")
    )
    batch: list[Any] = [
        EventData(one),
        EventData(array),
        AmqpAnnotatedMessage(data_body=[half[:50], half[50:60], b"", half[60:]]),
        packed,
        AmqpAnnotatedMessage(value_body={"signature": "none"}),
        AmqpAnnotatedMessage(sequence_body=[[1, 2], [3]]),
        bomb,
        broken,
        EventData(b""),
    ]
    batch[0].properties = {"x-kind": "text", "x-count": 3, b"x-raw": b"\xff"}
    before = datetime.now(UTC)
    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        async with producer(hub) as client:
            await client.send_batch(batch, partition_id="0")
            await client.send_batch(events_with_key("keyed"), partition_key="a key")
        await rig.consume(table)
    assert rig.effects() == Counter(["plain", "sections", "first", "second", "third", "zipped", "keyed"])
    assert rig.reasons() == Counter(unreadable=5)
    assert sorted(record["attributes"]["message_id"].split("-")[1] for record in rig.dead_letters()) == list("45678")
    assert watch.now == {"0": 9}
    plain, keyed = deliveries["plain"], deliveries["keyed"]
    assert dict(plain.headers) == {"x-kind": "text", "x-count": "3", "x-raw": "\ufffd"}
    assert (plain.ordering_key, keyed.ordering_key) == (None, "a key")
    assert plain.message_id.startswith("0-0-")
    assert abs((plain.accepted_at - before).total_seconds()) < 5


async def test_where_reading_starts(tmp_path: Path, azurite: Azurite) -> None:
    """At the beginning, at the end, or at a time; said in the log; a stop leaves a checkpoint to go on from."""
    groups = ("early", "late", "timed")
    async with opened_hub(tmp_path, azurite, partitions=2, groups=groups) as (hub, rig):
        hub.fill("events", [b"old 0", b"old 1"], partition="0")
        await asyncio.sleep(0.05)
        middle = datetime.now(UTC)
        await asyncio.sleep(0.05)
        hub.fill("events", [b"new 0", b"new 1"], partition="0")

        def settings(group: str) -> SourceSettings:
            start = {"early": "earliest", "late": "latest", "timed": middle.isoformat()}[group]
            changes = {"SOURCES__LABS__CONSUMER_GROUP": group, "SOURCES__LABS__START_AT": start}
            changes["SOURCES__LABS__CHECKPOINTS__INTERVAL"] = "60"
            return rig.load(**changes).settings.source("labs")

        async with contextlib.AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(CheckpointWatch(rig, group=group)) for group in groups]
            with capture_logs() as logs:
                async with opened(*map(settings, groups)) as (early, late, timed):
                    everything, since, nothing = await asyncio.gather(
                        received(early, 4), received(timed, 2), late.receive(10)
                    )
                    assert bodies(everything) == [b"old 0", b"old 1", b"new 0", b"new 1"]
                    assert bodies(since) == [b"new 0", b"new 1"]
                    assert nothing == []
                    await eventually(lambda: hub.stats()["hubs"]["events"]["0"]["readers"][2:])
                    hub.fill("events", [b"now"], partition="0")
                    assert bodies(await received(late, 1)) == [b"now"]
                    await eventually(lambda: watches[0].now == {"0": -1, "1": -1}, what="the first checkpoints")
                    assert watches[1].now == {"0": 3, "1": -1}
                    assert await early.acknowledge(everything[:3]) == []
                    assert await timed.acknowledge(since) == []
            for watch in watches:
                await watch.look()
            assert [watch.now.get("0") for watch in watches] == [2, 3, 3]
            assert all(owner is None for watch in watches for owner in watch.owners.values())
            opens = logged(logs, "partition_opened")
            assert {one["start_at"] for one in opens} == {"earliest", "latest", middle.isoformat()}
            assert len(opens) == 6
            closes = {(one["partition"], one["checkpoint"]) for one in logged(logs, "partition_closed")}
            assert {("0", 2), ("0", 3), ("1", -1)} <= closes
            async with opened(*map(settings, groups)) as (early, late, timed):
                again = await asyncio.gather(received(early, 2), received(late, 1), received(timed, 1))
                assert [bodies(messages) for messages in again] == [[b"new 1", b"now"], [b"now"], [b"now"]]


async def test_the_latest_is_one_place(tmp_path: Path, azurite: Azurite) -> None:
    """Everything after the first checkpoint of a start at the end is received, also what came before the link stood."""
    async with opened_hub(tmp_path, azurite, START_AT="latest") as (hub, rig), CheckpointWatch(rig) as watch:
        hub.latency = 0.03

        async def fill() -> None:
            for number in itertools.count():
                hub.fill("events", [b"%d" % number])
                await asyncio.sleep(0.005)

        filling = asyncio.create_task(fill())
        async with opened(rig.load().settings.source("labs")) as (source,):
            first = (await received(source, 1))[0]
            filling.cancel()
            hub.latency = 0.0
            await eventually(lambda: watch.now)
            assert first.body == b"%d" % (watch.seen["0"][0] + 1)


async def test_idle_is_not_reached_before_a_start_in_the_middle_is_read(tmp_path: Path, azurite: Azurite) -> None:
    """With a time as start, what the hub holds after it counts as depth until it is handled."""
    async with opened_hub(tmp_path, azurite, PREFETCH="1") as (hub, rig):
        before = datetime.now(UTC).isoformat()
        await asyncio.sleep(0.05)
        hub.fill("events", (b"%d" % number for number in range(20)), partition="0")
        settings = rig.load(SOURCES__LABS__START_AT=before).settings.source("labs")
        async with opened(settings) as (source,):
            first = await received(source, 1)
            assert (await source.depth()).total == 20
            assert await source.acknowledge(first) == []
            await source.acknowledge(await received(source, 20 - len(first)))
            await eventually(lambda: next(iter(source._ownerships.owned.values())).partition.watermark.position)
            assert (await source.depth()).total == 0


async def test_checkpoints_by_time_and_by_count(tmp_path: Path, azurite: Azurite) -> None:
    """A checkpoint follows its interval, or 1,000 finished events; never beyond what is unfinished."""
    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        hub.fill("events", (b"%d" % number for number in range(30)), partition="0")
        async with opened(rig.load().settings.source("labs")) as (source,):
            messages = await received(source, 30)
            open_one = messages.pop(7)
            for message in reversed(messages):
                await source.acknowledge([message])
            await eventually(lambda: watch.now == {"0": 6}, what="the checkpoint below what is open")
            await asyncio.sleep(0.5)
            assert watch.now == {"0": 6}
            assert await source.release([open_one], 0.1) == []
            again = await received(source, 1)
            assert again == [open_one]
            await source.acknowledge(again)
            await eventually(lambda: watch.now == {"0": 29}, within=3)
        hub.fill("events", (b"%d" % number for number in range(1_500)), partition="0")
        slow = rig.load(SOURCES__LABS__CHECKPOINTS__INTERVAL="1h").settings.source("labs")
        async with opened(slow) as (source,):
            messages = await received(source, 1_500)
            await source.acknowledge(messages[:900])
            await asyncio.sleep(1.5)
            assert watch.now == {"0": 29}
            await source.acknowledge(messages[900:1_200])
            await eventually(lambda: watch.now == {"0": 29 + 1_200}, within=5)
            await source.acknowledge(messages[1_200:])
        assert await watch.look() == {"0": 29 + 1_500}
    assert watch.seen["0"][0] == -1


@pytest.mark.parametrize(
    "way",
    ["again at once", *(pytest.param(way, marks=pytest.mark.thorough) for way in ("done", "given back"))],
)
async def test_one_that_hangs_holds_up_no_other(
    tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Behind a hanging event others go on, up to a bound; whatever becomes of it, all is handled in the end."""
    monkeypatch.setattr(partitions_module, "MOST_ABOVE", 60)
    table = effects_table()
    going = asyncio.Event()
    first = True

    @table.on(ProgramEvent, timeout=60)
    async def handle(event: ProgramEvent, context: Context) -> None:
        nonlocal first
        if event.event_id == "e3" and first:
            await going.wait()
            first = False
            if way == "given back":
                raise Unavailable
            if way == "again at once":
                raise Retry(delay=0)
        await effect(event, context)

    names = [f"e{number}" for number in range(400)]
    async with opened_hub(tmp_path, azurite, PREFETCH="20") as (hub, rig), CheckpointWatch(rig) as watch:
        hub.fill("events", events(names), partition="0")
        async with rig.worker(table, MAX_IN_FLIGHT="40"):
            await eventually(lambda: len(rig.effects()) > 60)
            await eventually(lambda: watch.now == {"0": 2})
            await asyncio.sleep(0.5)
            assert len(rig.effects()) <= 60 + 40 + 20
            assert "e3" not in rig.effects()
            going.set()
            await eventually(lambda: len(rig.effects()) == len(names), what="all of them")
            await eventually(lambda: watch.now == {"0": 399})
    assert rig.effects() == Counter(names)


async def test_short_retries_stay_and_count(tmp_path: Path, azurite: Azurite) -> None:
    """An event that fails is tried here again, to its last attempt; then it is a dead letter, and is passed."""
    table = effects_table()
    attempts: list[int] = []

    @table.on(ProgramEvent)
    async def handle(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "bad":
            attempts.append(context.delivery.attempt)
            raise RuntimeError
        if event.event_id == "weak" and context.delivery.attempt < 3:
            raise Retry
        await effect(event, context)

    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        hub.fill("events", events(["a", "bad", "weak", "b"]), partition="0")
        async with rig.worker(table, MAX_ATTEMPTS="4"):
            await eventually(lambda: watch.now == {"0": 3})
            assert rig.rows("SELECT count(*) FROM consumer_parked") == [(0,)]
    assert attempts == [1, 2, 3, 4]
    assert [(one["event_id"], one["reason"], one["attempts"]) for one in rig.dead_letters()] == [
        ("bad", "attempts_exhausted", 4)
    ]
    assert rig.effects() == Counter(["a", "weak", "b"])
    assert rig.rows("SELECT attempt FROM effects WHERE event_id = 'weak'") == [(3,)]


async def _shared(rig: Rig, watch: CheckpointWatch) -> None:
    """Wait until two owners have the partitions between them."""
    await eventually(lambda: len({one for one in watch.owners.values() if one}) == 2, within=20, what="a balance")


@pytest.mark.thorough
async def test_two_workers_share_and_take_over(tmp_path: Path, azurite: Azurite) -> None:
    """A second worker takes partitions from the first in mid-flight and gives them back: every event has one effect."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def slow(event: ProgramEvent, context: Context) -> None:
        await asyncio.sleep(0.05)
        await effect(event, context)

    async with opened_hub(tmp_path, azurite, partitions=4) as (hub, rig), CheckpointWatch(rig) as watch:
        names: list[str] = []

        async def fill() -> None:
            while True:
                fresh = [f"e{len(names) + number}" for number in range(20)]
                names.extend(fresh)
                hub.fill("events", events(fresh))
                await asyncio.sleep(0.2)

        filling = asyncio.create_task(fill())
        async with rig.worker(table):
            await eventually(lambda: len(rig.effects()) > 100)
            async with rig.worker(table) as other:
                await _shared(rig, watch)
                handled = "health_consumer_handled_total"
                labels = {"source": "labs", "event": "ProgramEvent"}
                await eventually(lambda: (other.metrics.registry.get_sample_value(handled, labels) or 0) > 50)
            await asyncio.sleep(1)
            filling.cancel()
            await eventually(lambda: len(rig.effects()) == len(names), within=60)
            total = len(names)
            await eventually(lambda: sum(watch.now.values()) == total - 4, what="the last checkpoints")
    assert rig.effects() == Counter(names)
    assert rig.reasons() == Counter()
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


async def test_a_stolen_partition(tmp_path: Path, azurite: Azurite) -> None:
    """What is unfinished when a partition is stolen is the new owner's; the old one's checkpoint no longer counts."""
    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        hub.fill("events", (b"%d" % number for number in range(20)), partition="0")
        # The old owner renews too seldom for the new one, which therefore takes the partition for abandoned.
        seldom = rig.load(SOURCES__LABS__CHECKPOINTS__OWNERSHIP_INTERVAL="60").settings.source("labs")
        often = rig.load(SOURCES__LABS__CHECKPOINTS__OWNERSHIP_INTERVAL="0.3").settings.source("labs")
        async with opened(seldom, often) as (old, new):
            mine = await received(old, 20)
            assert await old.acknowledge(mine[:5]) == []
            await eventually(lambda: watch.now == {"0": 4})
            checkpoint = next(iter(old._ownerships.owned.values())).checkpoint
            theirs = await received(new, 15)
            assert bodies(theirs) == bodies(mine[5:])
            assert await new.acknowledge(theirs[:10]) == []
            await eventually(lambda: watch.now == {"0": 14})
            await eventually(lambda: not old._ownerships.owned, what="the news that it was stolen")
            assert {failure.kind for failure in await old.acknowledge(mine[5:8])} == {"gone"}
            assert all(message.lease_until == 0 for message in mine[8:])
            assert {failure.kind for failure in await old.release(mine[8:10], 0)} == {"gone"}
            await checkpoint.save(7, "7")
            await checkpoint.close((7, "7"))
            await checkpoint.save(19, "19")
            assert await watch.look() == {"0": 14}
            assert await new.acknowledge(theirs[10:]) == []
            await eventually(lambda: watch.now == {"0": 19}, what="the checkpoint of the new owner")
