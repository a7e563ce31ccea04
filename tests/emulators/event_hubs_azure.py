"""Azure's own clients on the Event Hubs emulator: short ways to send and read in tests."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient

from tests.emulators.event_hubs import EventHubsEmulator

__all__ = ["QUICK", "Reading", "bodies", "producer", "read", "refused"]

LIMIT = 20.0
QUICK = {"retry_total": 0, "retry_backoff_factor": 0.05}
"""No retries of the client's own."""


def producer(hub: EventHubsEmulator, name: str = "events", **options: Any) -> EventHubProducerClient:
    """A client that sends and does not retry."""
    return EventHubProducerClient.from_connection_string(
        hub.connection_string, eventhub_name=name, **{**QUICK, **options}
    )


class Reading:
    """Azure's client reading a hub in the background: what came, and what went wrong.

    Without options it reads partition 0 from its beginning and does not retry; the options are those of
    `receive_batch`.
    """

    def __init__(
        self, hub: EventHubsEmulator, *, name: str = "events", group: str = "$Default", retry: int = 0, **options: Any
    ) -> None:
        self.events: list[Any] = []
        self.errors: list[Exception] = []
        self.metrics: Any = None
        self._change = asyncio.Event()
        self._client = EventHubConsumerClient.from_connection_string(
            hub.connection_string,
            group,
            eventhub_name=name,
            retry_total=retry,
            retry_backoff_factor=0.05,
            load_balancing_interval=0.2,
        )
        options = {"partition_id": "0", "starting_position": "-1", **options}
        self._task = asyncio.create_task(self._client.receive_batch(self._on_batch, on_error=self._on_error, **options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop reading, and close the client."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()

    async def _on_batch(self, context: Any, events: list[Any]) -> None:
        self.events += events
        self.metrics = context.last_enqueued_event_properties
        self._change.set()

    async def _on_error(self, _: Any, error: Exception) -> None:
        self.errors.append(error)
        self._change.set()

    async def came(self, count: int) -> list[Any]:
        """Wait until so many events came."""
        async with asyncio.timeout(LIMIT):
            while len(self.events) < count:
                self._change.clear()
                await self._change.wait()
        return self.events

    async def failed(self) -> str:
        """Wait for the first error; its text."""
        async with asyncio.timeout(LIMIT):
            while not self.errors:
                self._change.clear()
                await self._change.wait()
        return str(self.errors[0])


def bodies(events: list[Any]) -> list[str]:
    """The bodies as text."""
    return [event.body_as_str() for event in events]


async def read(hub: EventHubsEmulator, count: int, **options: Any) -> list[Any]:
    """Read so many events; the options are those of `Reading`."""
    async with Reading(hub, **options) as reading:
        return list(await reading.came(count))


async def refused(hub: EventHubsEmulator, count: int = 1) -> list[str]:
    """Wait until the emulator refused so many links; the conditions."""
    async with asyncio.timeout(LIMIT):
        while len(hub.refusals) < count:
            await asyncio.sleep(0.01)
    return [condition for _, condition in hub.refusals]
