"""Azurite: blobs and queues as Azure Storage has them, in Node and in memory. Every call scans all its messages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.servers.node import environment, install, node
from tests.servers.processes import free_port, serving

__all__ = ["ACCOUNT", "KEY", "Azurite", "azurite_server", "connection_string", "create_container", "create_queue"]

ACCOUNT: Final = "devstoreaccount1"
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and key that everybody's development storage has; published, and no secret."""


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running server; the URLs hold the account's name as path, as clients want them."""

    blob_url: str
    queue_url: str

    @property
    def connection_string(self) -> str:
        """What a client of either service is given."""
        return connection_string(queue=self.queue_url, blob=self.blob_url)


def connection_string(*, key: str = KEY, **endpoints: str) -> str:
    """A connection string for servers on this machine: `queue` and `blob` are their URLs with the account's name."""
    services = "".join(f"{service.capitalize()}Endpoint={url};" for service, url in endpoints.items())
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};{services}"


@contextlib.contextmanager
def azurite_server() -> Iterator[Azurite]:
    """Run Azurite on free ports of 127.0.0.1."""
    entrance = install("azurite") / "dist" / "src" / "azurite.js"
    # Unless told not to, it looks for a host that counts its users.
    flags = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    ports = {service: free_port() for service in ("blob", "queue", "table")}
    for service, port in ports.items():
        flags += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    blob, queue, table = (f"http://127.0.0.1:{port}" for port in ports.values())
    # Tables are the last that it starts.
    with serving([node(), str(entrance), *flags], table, env=environment()):
        yield Azurite(f"{blob}/{ACCOUNT}", f"{queue}/{ACCOUNT}")


async def create_queue(connection_string: str, name: str) -> None:
    """Make a Storage Queue on any server."""
    from azure.storage.queue.aio import QueueClient  # half a second that no other test should pay

    async with QueueClient.from_connection_string(connection_string, name) as client:
        await client.create_queue()


async def create_container(connection_string: str, name: str) -> None:
    """Make a container of blobs on any server."""
    from azure.storage.blob.aio import ContainerClient  # as above

    async with ContainerClient.from_connection_string(connection_string, name) as client:
        await client.create_container()
