"""Fixtures around the servers that play Azure: accounts, queues, and sources that read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr

from consumer.settings import SourceSettings
from consumer.sources.storage_queue import StorageQueueSource
from tests.emulators.storage_queue_stub import Clock, StorageQueueStub
from tests.servers.azurite import Azurite, azurite_server

__all__ = ["OpenStorageQueue", "azurite", "open_storage_queue", "storage_account", "storage_clock", "storage_stub"]

OpenStorageQueue = Callable[..., Awaitable[StorageQueueSource]]


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Azurite, one for the whole run; tests make containers and queues of their own (`fresh_name`)."""
    with azurite_server() as server:
        yield server


@pytest.fixture
def storage_clock() -> Clock:
    """The time that the stub lives in; moved by the test."""
    return Clock()


@pytest.fixture
async def storage_stub(storage_clock: Clock) -> AsyncIterator[StorageQueueStub]:
    """The Storage Queue stub, in the test's own loop and on its clock, with a queue `labs`."""
    async with StorageQueueStub(clock=storage_clock) as stub:
        stub.create_queue("labs")
        yield stub


@pytest.fixture(params=["stub", pytest.param("azurite", marks=pytest.mark.thorough)])
async def storage_account(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The connection string of each server that plays Storage Queue, in real time."""
    if request.param == "stub":
        async with StorageQueueStub() as stub:
            yield stub.connection_string
    else:
        yield request.getfixturevalue("azurite").connection_string


@pytest.fixture
async def open_storage_queue() -> AsyncIterator[OpenStorageQueue]:
    """Opens a source on a queue; further arguments are its settings. Closed at the end."""
    async with AsyncExitStack() as stack:

        async def make(
            connection_string: str, queue: str = "labs", *, call_limit: float = 10.0, **changes: Any
        ) -> StorageQueueSource:
            values = {"poll_wait": 0.0, "visibility_timeout": 30.0, "max_in_flight": 100, **changes}
            settings = SourceSettings(
                name="labs",
                kind="storage_queue",
                connection_string=SecretStr(connection_string),
                queue=queue,
                **values,
            )
            source = StorageQueueSource(settings, call_limit=call_limit)
            stack.push_async_callback(source.close)
            await source.open()
            return source

        yield make
