"""The Event Hubs emulator's faults, and how Azure's own client gets over them."""

from __future__ import annotations

import asyncio
import time

import pytest
from azure.eventhub import EventData
from azure.eventhub.exceptions import EventHubError

from tests.emulators.event_hubs import EventHubsEmulator
from tests.emulators.event_hubs_azure import Reading, bodies, producer, refused
from tests.emulators.event_hubs_client import event_hubs_process


async def test_a_reader_survives_a_broken_connection_and_a_restart() -> None:
    """After a drop, and after the server was away, a reader that retries goes on at the next event; nothing is lost."""
    async with EventHubsEmulator() as hub:
        hub.fill("events", [b"one"], partition="0")
        async with Reading(hub, retry=50) as reading:
            await reading.came(1)
            assert hub.drop(partition="1") == 0
            assert hub.drop(partition="0") == 1
            hub.fill("events", [b"two"], partition="0")
            await reading.came(2)
            await hub.stop()
            hub.fill("events", [b"three"], partition="0")
            await hub.start()
            assert bodies(await reading.came(3)) == ["one", "two", "three"]


async def test_server_busy_holds_readers_and_senders_up_for_a_while() -> None:
    """Busy: sending fails with the condition, the reader's link is detached, and both work again when it is over."""
    async with EventHubsEmulator() as hub, producer(hub) as client:
        await client.send_event(EventData("before"), partition_id="0")
        async with Reading(hub, retry=50) as reading:
            await reading.came(1)
            hub.busy(0.5)
            with pytest.raises(EventHubError, match=r"com\.microsoft:server-busy"):
                await client.send_event(EventData("meanwhile"), partition_id="0")
            await asyncio.sleep(0.5)
            await client.send_event(EventData("after"), partition_id="0")
            assert bodies(await reading.came(2)) == ["before", "after"]


@pytest.mark.thorough
async def test_a_detached_link_comes_with_its_condition() -> None:
    """A detach on demand reaches the reader of that partition with the condition and the text it was given."""
    async with EventHubsEmulator() as hub:
        hub.fill("events", [b"x"], partition="0")
        async with Reading(hub) as reading:
            await reading.came(1)
            assert hub.detach("amqp:internal-error", "On demand.", partition="1") == 0
            assert hub.detach("amqp:internal-error", "On demand.", role="listen") == 1
            text = await reading.failed()
    assert "amqp:internal-error" in text
    assert "On demand." in text


async def test_a_silent_partition_keeps_its_link_and_delivers_nothing_until_it_is_over() -> None:
    """While a partition is silent its reader stays attached and gets nothing; others get theirs; then all comes."""
    async with EventHubsEmulator(hubs={"events": 2}) as hub:
        hub.fill("events", [b"a"], partition="0")
        hub.fill("events", [b"b"], partition="1")
        hub.fault("silent", partition="0")
        async with Reading(hub, partition_id=None) as reading:
            assert bodies(await reading.came(1)) == ["b"]
            while not hub.stats()["hubs"]["events"]["0"]["readers"]:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert hub.log.hub("events").partitions[0].delivered == 0
            hub.clear("silent")
            assert bodies(await reading.came(2)) == ["b", "a"]
            hub.fault("silent", seconds=0.2)
            hub.fill("events", [b"c"], partition="0")
            assert bodies(await reading.came(3)) == ["b", "a", "c"]
            assert not reading.errors


async def test_links_connections_and_management_fail_as_often_as_they_are_told_to() -> None:
    """Refused connections and management errors are met so many times, then all is well again."""
    async with EventHubsEmulator() as hub:
        hub.fault("refuse_connections", count=1)
        hub.fault("management", status=503, count=1)
        async with producer(hub) as client:
            for _ in range(2):
                with pytest.raises(EventHubError):
                    await client.get_partition_ids()
            assert await client.get_partition_ids() == ["0", "1", "2", "3"]
            hub.fault("refuse_links", condition="amqp:internal-error", role="send", count=1)
            await client.send_event(EventData("the client tries a link twice"))
            assert await refused(hub) == ["amqp:internal-error"]


@pytest.mark.thorough
async def test_latency_delays_every_answer() -> None:
    """With a latency, an answer takes at least that long."""
    async with EventHubsEmulator() as hub, producer(hub) as client:
        await client.send_event(EventData("x"), partition_id="0")
        hub.latency = 0.3
        start = time.monotonic()
        await client.send_event(EventData("x"), partition_id="0")
        assert time.monotonic() - start >= 0.3
        hub.latency = 0.0


@pytest.mark.thorough
async def test_deleted_events_are_skipped() -> None:
    """A reader that stood before events that retention deleted goes on with the oldest that is left."""
    async with EventHubsEmulator() as hub:
        hub.fill("events", (b"%d" % number for number in range(10)), partition="0")
        assert hub.trim("events", "0", 7) == 7
        async with Reading(hub, starting_position=2) as reading:
            assert bodies(await reading.came(3)) == ["7", "8", "9"]


async def test_the_emulator_runs_as_a_process_and_is_steered_over_http() -> None:
    """In a process of its own it serves the same client; its door fills, counts, breaks and restarts it."""
    with event_hubs_process(hub="labs", partitions=2, groups=("audit",)) as control:
        filled = await control.acall("fill", hub="labs", count=10, template='{"n": %d}', keys=3, partition="1")
        assert filled == {"filled": 10}
        away = EventHubsEmulator(port=int(control.connection_string.split(":")[2].split(";")[0]))
        async with Reading(away, name="labs", group="audit", partition_id="1", retry=50) as reading:
            events = await reading.came(10)
            assert bodies(events) == [f'{{"n": {number}}}' for number in range(10)]
            assert {event.partition_key for event in events} == {b"key-0", b"key-1", b"key-2"}
            assert await control.acall("drop") == {"count": 1}
            await control.acall("stop")
            await control.acall("fill", hub="labs", bodies=["last"], partition="1", properties={"x-key": "v"})
            await control.acall("start")
            last = (await reading.came(11))[-1]
            assert (last.body_as_str(), last.properties) == ("last", {b"x-key": b"v"})
        stats = (await control.acall("stats"))["hubs"]["labs"]
        assert (stats["1"]["last"], stats["1"]["delivered"], stats["0"]["events"]) == (10, 11, 0)
