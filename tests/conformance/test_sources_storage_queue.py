"""The Storage Queue source keeps the contract of a source, on every server that plays Storage Queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from consumer.settings import SourceSettings
from consumer.sources.storage_queue import StorageQueueSource
from consumer.testing.conformance import OpenAgain, SourceConformance
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.servers.azurite import Azurite, create_queue
from tests.servers.names import fresh_name


class StorageQueueConformance(SourceConformance):
    """`account` is a fixture of each server: the connection string of its account."""

    headers = False
    largest = 60 * 1024

    @pytest.fixture
    async def open_again(self, account: str) -> AsyncIterator[OpenAgain]:
        """Sources on one queue."""
        name = fresh_name()
        await create_queue(account, name)
        settings = SourceSettings(
            name="labs",
            kind="storage_queue",
            connection_string=account,
            queue=name,
            visibility_timeout=self.visibility_timeout,
            poll_wait=1.0,
        )
        async with AsyncExitStack() as stack:

            async def make() -> StorageQueueSource:
                source = StorageQueueSource(settings)
                stack.push_async_callback(source.close)
                await source.open()
                return source

            yield make


class TestStorageQueueOnTheStub(StorageQueueConformance):
    """The stub of this project."""

    @pytest.fixture
    async def account(self) -> AsyncIterator[str]:
        """A stub of its own for each test."""
        async with StorageQueueStub() as stub:
            yield stub.connection_string


@pytest.mark.thorough
class TestStorageQueueOnAzurite(StorageQueueConformance):
    """Azurite."""

    @pytest.fixture
    def account(self, azurite: Azurite) -> str:
        """The one server of the run."""
        return azurite.connection_string
