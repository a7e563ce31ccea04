"""Event hubs for fault tests: rigs on them, a watch over their checkpoints, and a way to the blobs that closes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from tests.conformance.rig import Rig, program, signed
from tests.emulators.event_hubs import EventHubsEmulator
from tests.servers.azurite import ACCOUNT, Azurite, connection_string, create_container
from tests.servers.names import fresh_name

__all__ = [
    "BlobProxy",
    "CheckpointWatch",
    "HasConnectionString",
    "change",
    "events",
    "hub_rig",
    "hurry",
    "logged",
    "opened_hub",
]

CONTAINER = "SOURCES__LABS__CHECKPOINTS__CONTAINER"


class HasConnectionString(Protocol):
    """An emulator in this loop, one in a process of its own, a proxy."""

    @property
    def connection_string(self) -> str:
        """What clients are given."""
        ...


async def hub_rig(folder: Path, hub: HasConnectionString, store: HasConnectionString, **more: str) -> Rig:
    """A rig on a hub's `events`, with a container of its own; `more` are settings of the source."""
    container = fresh_name()
    await create_container(store.connection_string, container)
    source = {
        "KIND": "event_hubs",
        "CONNECTION_STRING": hub.connection_string,
        "EVENT_HUB": "events",
        "CHECKPOINTS__CONNECTION_STRING": store.connection_string,
        "CHECKPOINTS__CONTAINER": container,
        "CHECKPOINTS__INTERVAL": "0.2",
        "CHECKPOINTS__OWNERSHIP_INTERVAL": "0.5",
        "POLL_WAIT": "0.5",
        **more,
    }
    return Rig(folder, source)


@contextlib.asynccontextmanager
async def opened_hub(
    folder: Path, azurite: Azurite, *, partitions: int = 1, groups: Sequence[str] = ("$Default",), **more: str
) -> AsyncIterator[tuple[EventHubsEmulator, Rig]]:
    """An emulator in this loop, and a rig on it."""
    async with EventHubsEmulator(hubs={"events": partitions}, consumer_groups=groups) as hub:
        yield hub, await hub_rig(folder, hub, azurite, **more)


def events(names: Iterable[str], **changes: Any) -> list[bytes]:
    """Signed messages, one for each name."""
    return [signed(program(name, **changes)) for name in names]


async def change(rig: Rig, sql: str) -> None:
    """Change the SQLite database behind the workers' backs; off the loop, which may hold the lock that this needs."""

    def execute() -> None:
        with contextlib.closing(sqlite3.connect(rig.database, timeout=10)) as connection, connection:
            connection.execute(sql)

    await asyncio.to_thread(execute)


async def hurry(rig: Rig) -> None:
    """Let the time of everything that is parked come."""
    await change(rig, "UPDATE consumer_parked SET due_at = '2000-01-01' WHERE lease_owner IS NULL")


def logged(records: Iterable[Any], event: str) -> list[Any]:
    """The log records of this name, out of what `structlog.testing.capture_logs` caught."""
    return [record for record in records if record["event"] == event]


class CheckpointWatch:
    """Reads the checkpoints of a rig again and again, and keeps what it saw; an async context manager.

    At its end it asserts that no partition's checkpoint ever went back.
    """

    def __init__(self, rig: Rig, *, group: str = "$Default") -> None:
        from azure.storage.blob.aio import ContainerClient  # half a second that no other test should pay

        source = rig.source
        self._client = ContainerClient.from_connection_string(
            source["CHECKPOINTS__CONNECTION_STRING"], source["CHECKPOINTS__CONTAINER"], retry_total=0
        )
        self._group = group.lower()
        self.seen: dict[str, list[int]] = defaultdict(list)
        """The sequence numbers of each partition's checkpoint, each as long as it stood."""
        self.owners: dict[str, str | None] = {}
        """The process that has a partition open, by its checkpoint."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.look()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self.look()
        await self._client.close()
        assert {number: found for number, found in self.seen.items() if found != sorted(found)} == {}

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # the store may be away for a while
                await self.look()
            await asyncio.sleep(0.02)

    async def look(self) -> dict[str, int]:
        """Read them now: the sequence number of each partition."""
        async for blob in self._client.list_blobs(include=["metadata"]):
            path = blob.name.split("/")
            if path[-2] != "checkpoint" or path[-3] != self._group:
                continue
            sequence, seen = int(blob.metadata["sequencenumber"]), self.seen[path[-1]]
            self.owners[path[-1]] = (blob.metadata.get("openedby") or "").partition("/")[0] or None
            if not seen or seen[-1] != sequence:
                seen.append(sequence)
        return self.now

    @property
    def now(self) -> dict[str, int]:
        """The latest sequence number of each partition, as last seen."""
        return {number: found[-1] for number, found in self.seen.items()}


class BlobProxy:
    """A way to Azurite's blobs that can be closed and opened; an async context manager."""

    def __init__(self, azurite: Azurite) -> None:
        target = urlsplit(azurite.blob_url)
        self._target = (target.hostname, target.port)
        self._open = True
        self._streams: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def connection_string(self) -> str:
        """The account by this way."""
        return connection_string(blob=f"http://127.0.0.1:{self.port}/{ACCOUNT}")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """Break off what passes, and let nothing through."""
        self._open = False
        for stream in self._streams:
            stream.transport.abort()

    def reopen(self) -> None:
        """Let everything through again."""
        self._open = True

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._streams |= {writer, back}
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._streams -= {writer, back}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
