"""The Event Hubs emulator through the eyes of Azure's own client: what it sends, reads and is refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.core.credentials import AccessToken, AzureSasCredential
from azure.eventhub import EventData
from azure.eventhub._pyamqp.utils import generate_sas_token
from azure.eventhub.aio import EventHubProducerClient
from azure.eventhub.amqp import AmqpAnnotatedMessage, AmqpMessageProperties
from azure.eventhub.exceptions import AuthenticationError, ConnectError, ConnectionLostError, EventHubError

from tests.emulators.event_hubs import EventHubsEmulator
from tests.emulators.event_hubs_azure import QUICK, Reading, bodies, producer, read, refused


@pytest.fixture
async def hub() -> AsyncIterator[EventHubsEmulator]:
    """An emulator with one hub of four partitions and a second consumer group."""
    async with EventHubsEmulator(consumer_groups=("$Default", "audit")) as emulator:
        yield emulator


async def test_events_arrive_as_they_were_sent(hub: EventHubsEmulator) -> None:
    """Bodies, sections, properties, keys and positions of a batch arrive whole and in order."""
    plain = EventData(b"\x00\xff plain")
    plain.properties = {"x-signature": "abc", "count": 3, "nested": b"\x01"}
    plain.content_type, plain.message_id = "application/json", "m-1"
    sectioned = AmqpAnnotatedMessage(
        data_body=[b"one", b"", b"two"], properties=AmqpMessageProperties(subject="s"), annotations={b"x-mine": 7}
    )
    before = time.time() - 1
    async with producer(hub) as client:
        batch = await client.create_batch(partition_key="member-1")
        for event in (plain, sectioned, EventData(b"z" * 900_000)):
            batch.add(event)
        await client.send_batch(batch)
    [partition] = [p for p in hub.log.hub("events").partitions if p.events]
    first, second, large = await read(hub, 3, partition_id=partition.id, track_last_enqueued_event_properties=True)

    assert b"".join(first.body) == b"\x00\xff plain"
    assert first.properties == {b"x-signature": b"abc", b"count": 3, b"nested": b"\x01"}
    assert (first.content_type, first.message_id) == ("application/json", "m-1")
    assert list(second.body) == [b"one", b"", b"two"]
    assert second.raw_amqp_message.annotations[b"x-mine"] == 7
    assert second.raw_amqp_message.properties.subject == b"s"
    assert b"".join(large.body) == b"z" * 900_000
    assert [event.sequence_number for event in (first, second, large)] == [0, 1, 2]
    assert {event.partition_key for event in (first, second, large)} == {b"member-1"}
    assert [event.offset for event in (first, second, large)] == [event.offset for event in partition.events]
    assert before < first.enqueued_time.timestamp() < time.time() + 1
    assert [event.data for event in partition.events][1] == (b"one", b"", b"two")


async def test_events_of_a_key_keep_their_order_in_one_partition(hub: EventHubsEmulator) -> None:
    """All events of a partition key are in one partition, in the order in which they were sent."""
    async with producer(hub) as client:
        for number in range(30):
            await client.send_batch([EventData(f"{number}")], partition_key=f"member-{number % 3}")
    for member in range(3):
        kept = [
            p.events for p in hub.log.hub("events").partitions if any(e.key == f"member-{member}" for e in p.events)
        ]
        assert [[e.body for e in events if e.key == f"member-{member}"] for events in kept] == [
            [b"%d" % number for number in range(member, 30, 3)]
        ]


async def test_events_without_a_key_go_round_and_those_with_a_partition_go_there(hub: EventHubsEmulator) -> None:
    """Batches without a key are spread over the partitions; a named partition gets what is sent to it."""
    async with producer(hub) as client:
        for _ in range(4):
            await client.send_batch([EventData("spread")])
        await client.send_batch([EventData("named")], partition_id="3")
    kept = [[event.body for event in partition.events] for partition in hub.log.hub("events").partitions]
    assert kept == [[b"spread"], [b"spread"], [b"spread"], [b"spread", b"named"]]


async def test_management_tells_the_partitions_and_their_positions(hub: EventHubsEmulator) -> None:
    """The hub's partitions, and a partition's first and last sequence number, offset and time, can be asked for."""
    hub.fill("events", [b"a", b"b", b"c"], partition="1")
    hub.trim("events", "1", 1)
    async with producer(hub) as client:
        assert await client.get_partition_ids() == ["0", "1", "2", "3"]
        full, empty = [await client.get_partition_properties(number) for number in ("1", "2")]
    last = hub.log.hub("events").partitions[1].events[-1]
    assert (full["beginning_sequence_number"], full["last_enqueued_sequence_number"]) == (1, 2)
    assert (full["last_enqueued_offset"], full["is_empty"], empty["is_empty"]) == (last.offset, False, True)
    assert full["last_enqueued_time_utc"].timestamp() == pytest.approx(last.enqueued / 1000)


async def test_reading_starts_where_it_is_asked_to(hub: EventHubsEmulator) -> None:
    """A reader starts at an offset, a sequence number or a time, with or without that event, or at either end."""
    hub.fill("events", [b"0", b"1", b"2"], partition="0")
    middle = hub.log.hub("events").partitions[0].events[1]
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    places: list[tuple[Any, bool, list[str]]] = [
        ("-1", False, ["0", "1", "2"]),
        (middle.offset, False, ["2"]),
        (middle.offset, True, ["1", "2"]),
        (middle.sequence, False, ["2"]),
        (middle.sequence, True, ["1", "2"]),
    ]
    options = [{"starting_position": at, "starting_position_inclusive": inclusive} for at, inclusive, _ in places]
    found = await asyncio.gather(
        read(hub, 3, starting_position=long_ago),
        *(read(hub, len(events), group="audit", **o) for o, (_, _, events) in zip(options, places, strict=True)),
    )
    assert [bodies(events) for events in found] == [["0", "1", "2"], *(events for _, _, events in places)]


async def test_a_reader_at_the_end_sees_only_what_comes_later(hub: EventHubsEmulator) -> None:
    """From @latest, events that were there stay unread, and a waiting reader gets new ones at once."""
    hub.fill("events", [b"old"], partition="0")
    async with Reading(hub, starting_position="@latest", track_last_enqueued_event_properties=True) as reading:
        while not hub.stats()["hubs"]["events"]["0"]["readers"]:
            await asyncio.sleep(0.01)
        hub.fill("events", [b"new"], partition="0")
        assert bodies(await reading.came(1)) == ["new"]
    assert (reading.metrics["sequence_number"], reading.metrics["offset"]) == (1, reading.events[0].offset)


async def test_a_reader_goes_on_after_the_event_it_stopped_at(hub: EventHubsEmulator) -> None:
    """Started again at the position of an event, on all partitions, a reader gets exactly the rest, without a gap."""
    hub.fill("events", (b"%d" % number for number in range(40)))
    partitions = hub.log.hub("events").partitions
    positions = {partition.id: partition.events[4].offset for partition in partitions}
    rest = await read(hub, 20, partition_id=None, starting_position=positions)
    expected = sorted(event.body.decode() for partition in partitions for event in partition.events[5:])
    assert sorted(bodies(rest)) == expected


async def test_a_higher_owner_level_steals_and_a_lower_one_is_refused(hub: EventHubsEmulator) -> None:
    """The reader with the higher owner level wins in both directions; one without a level is refused beside it."""
    hub.fill("events", [b"x"], partition="0")
    low = Reading(hub, owner_level=1)
    await low.came(1)
    high = Reading(hub, owner_level=2)
    await high.came(1)
    assert "higher epoch of '2'" in await low.failed()
    others = [Reading(hub, owner_level=1), Reading(hub), Reading(hub, owner_level=0)]
    assert all(["amqp:link:stolen" in await other.failed() for other in others])
    assert not high.errors
    await asyncio.gather(*(reading.close() for reading in (low, high, *others)))


@pytest.mark.thorough
async def test_five_readers_without_owner_level_share_a_partition(hub: EventHubsEmulator) -> None:
    """Five readers of a group read the same events side by side; the sixth is refused."""
    hub.fill("events", [b"x"], partition="0")
    readings = [Reading(hub) for _ in range(5)]
    await asyncio.gather(*(reading.came(1) for reading in readings))
    readings.append(Reading(hub))
    assert await refused(hub) == ["amqp:resource-limit-exceeded"]
    await asyncio.gather(*(reading.close() for reading in readings))


async def test_reading_what_is_not_there_is_refused_though_the_client_stays_silent(hub: EventHubsEmulator) -> None:
    """A missing group, a place beyond the end, a want of permission: Azure's client tells nobody and goes on trying."""
    hub.deny(role="listen", partition="1")
    wrong = ({"group": "nobody"}, {"starting_position": 99}, {"partition_id": "1"})
    readings = [Reading(hub, **options) for options in wrong]
    await refused(hub, 4)
    assert dict(hub.refusals) == {
        "events/ConsumerGroups/nobody/Partitions/0": "amqp:not-found",
        "events/ConsumerGroups/$Default/Partitions/0": "com.microsoft:argument-error",
        "events/ConsumerGroups/$Default/Partitions/1": "amqp:unauthorized-access",
    }
    assert not any(reading.errors or reading.events for reading in readings)
    await asyncio.gather(*(reading.close() for reading in readings))


async def test_sending_without_permission_is_refused(hub: EventHubsEmulator) -> None:
    """A key that may not send is told so; a missing hub or partition the client finds out by asking."""
    async with producer(hub) as client:
        hub.deny(role="send")
        with pytest.raises(EventHubError, match="amqp:unauthorized-access"):
            await client.send_event(EventData("x"))


async def test_wrong_and_old_credentials_are_refused(hub: EventHubsEmulator) -> None:
    """A wrong key, and a signature that is over, end in an authentication error; a missing hub is told by READ."""
    address = f"127.0.0.1:{hub.port}"
    old = generate_sas_token(f"sb://{address}/events", "RootManageSharedAccessKey", "SAS_KEY_VALUE", time.time() - 5)
    wrong = hub.connection_string.replace("SAS_KEY_VALUE", "ANOTHER")
    bad = EventHubProducerClient.from_connection_string(wrong, eventhub_name="events", **QUICK)
    over = EventHubProducerClient(address, "events", AzureSasCredential(old), use_tls=False, **QUICK)
    missing = producer(hub, "nowhere")
    async with bad, over, missing:
        results = await asyncio.gather(
            *(client.get_partition_ids() for client in (bad, over, missing)), return_exceptions=True
        )
    assert [type(result) for result in results] == [AuthenticationError, AuthenticationError, ConnectError]


async def test_a_token_of_azure_ad_is_taken_unread(hub: EventHubsEmulator) -> None:
    """A token credential opens everything: the emulator looks into no JWT."""

    class Credential:
        async def get_token(self, *_: str, **__: Any) -> AccessToken:
            return AccessToken("any", int(time.time()) + 3600)

    credential: Any = Credential()
    async with EventHubProducerClient(f"127.0.0.1:{hub.port}", "events", credential, use_tls=False) as client:
        await client.send_batch([EventData("x")], partition_id="0")
    assert hub.log.hub("events").partitions[0].last == 0


async def test_a_message_over_the_limit_is_refused() -> None:
    """A message larger than the link allows is not kept, and the sender is told so."""
    async with EventHubsEmulator(max_message_size=1000) as hub, producer(hub) as client:
        assert (await client.create_batch()).max_size_in_bytes == 1000
        with pytest.raises(ConnectionLostError, match="amqp:link:message-size-exceeded"):
            await client.send_event(EventData(b"x" * 2000))
        assert all(not partition.events for partition in hub.log.hub("events").partitions)
