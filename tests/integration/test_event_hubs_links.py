"""The two places that the SDK leaves open are closed, by names of the SDK that this relies on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from azure.eventhub import EventData
from azure.eventhub._pyamqp import _decode

from consumer.sources.event_hubs_errors import condition_of
from consumer.sources.event_hubs_links import LinkWatchingClient, made
from tests.conformance.rig import eventually
from tests.emulators.event_hubs import EventHubsEmulator

_EVENTS = 5_000


async def _ignore(*_: Any) -> None:
    """Take what comes."""


def _client(hub: EventHubsEmulator, group: str) -> tuple[LinkWatchingClient, list[str | None]]:
    client = LinkWatchingClient.from_connection_string(hub.connection_string, group, eventhub_name="events")
    told: list[str | None] = []
    client.on_link = lambda _, error: told.append(error and condition_of(error))
    return client, told


async def test_an_event_is_what_the_sdk_makes_of_it() -> None:
    """An event made once is, attribute by attribute, the one that the SDK makes in two steps."""
    async with EventHubsEmulator(hubs={"events": 1}) as hub:
        hub.fill("events", [b'{"one": 1}'], partition="0", properties={"trace": "abc"})
        message = _decode.decode_payload(memoryview(hub.log.hub("events").partitions[0].events[0].encoded))
    ours, theirs = made(message), EventData._from_message(message)
    assert vars(ours).keys() == vars(theirs).keys()
    assert b"".join(ours.body) == b"".join(theirs.body) == b'{"one": 1}'  # type: ignore[arg-type]
    for name in ("sequence_number", "offset", "enqueued_time", "partition_key", "properties", "body_type"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.system_properties == theirs.system_properties
    assert (ours.content_type, ours.message_id) == (theirs.content_type, theirs.message_id)


async def test_a_refused_link_is_told() -> None:
    """A consumer group that does not exist is told with the hub's condition, and an attach that works as such."""
    async with EventHubsEmulator(hubs={"events": 1}) as hub:
        for group, first in (("nobodys", "not-found"), ("$Default", None)):
            client, told = _client(hub, group)
            async with client:
                reading = asyncio.create_task(client.receive_batch(_ignore, partition_id="0"))
                await eventually(lambda told=told: told)
                assert told[0] == first
            reading.cancel()


async def test_what_a_link_remembers_is_bounded() -> None:
    """However many events a link has received, the SDK keeps the delivery tags of the latest few only."""
    async with EventHubsEmulator(hubs={"events": 1}) as hub:
        hub.fill("events", (b"%d" % n for n in range(_EVENTS)))
        client, _ = _client(hub, "$Default")
        seen = 0
        consumers: list[Any] = []
        create = client._create_consumer

        def remembered(*arguments: Any, **options: Any) -> Any:
            consumers.append(create(*arguments, **options))
            return consumers[-1]

        client._create_consumer = remembered  # type: ignore[method-assign]

        async def count(_: Any, events: Sequence[Any]) -> None:
            nonlocal seen
            seen += len(events)

        async with client:
            reading = asyncio.create_task(
                client.receive_batch(count, partition_id="0", starting_position="-1", prefetch=300)
            )
            await eventually(lambda: seen == _EVENTS)
            await asyncio.sleep(0.2)
            assert len(consumers[0]._handler._link._received_delivery_tags) < 1_500
        reading.cancel()
