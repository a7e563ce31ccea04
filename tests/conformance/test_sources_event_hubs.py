"""The Event Hubs source keeps the contract of a source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from consumer.settings import SourceSettings
from consumer.sources.event_hubs import EventHubsSource
from consumer.testing.conformance import OpenAgain, SourceConformance
from tests.emulators.event_hubs import EventHubsEmulator
from tests.servers.azurite import Azurite, create_container
from tests.servers.names import fresh_name


class TestEventHubs(SourceConformance):
    """One partition, so that there is one owner."""

    ordered = True
    binary = True
    empty_bodies = True
    delayed_sends = False
    counts_receives = False

    @pytest.fixture
    async def open_again(self, azurite: Azurite) -> AsyncIterator[OpenAgain]:
        """Sources on one hub."""
        container = fresh_name()
        await create_container(azurite.connection_string, container)
        async with EventHubsEmulator(hubs={"events": 1}) as hub, AsyncExitStack() as stack:
            settings = SourceSettings(
                name="labs",
                kind="event_hubs",
                connection_string=hub.connection_string,
                event_hub="events",
                checkpoints={
                    "connection_string": azurite.connection_string,
                    "container": container,
                    "interval": 0.5,
                    "ownership_interval": 0.5,
                },
                visibility_timeout=self.visibility_timeout,
                poll_wait=1.0,
            )

            async def make() -> EventHubsSource:
                source = EventHubsSource(settings)
                stack.push_async_callback(source.close)
                await source.open()
                return source

            yield make
