"""The least that empties a Storage Queue with Azure's SDK: pages of 32, and so many deletes at once.

The client is tuned as well as we know, and what it receives is left undecoded: see `consumer.sources.storage_queue`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from azure.storage.queue.aio import QueueClient

from consumer.collector import settle_collector

__all__: list[str] = []

_PAGE = 32
_RECEIVERS = 6
"""With two the deletes had to wait for messages now and then; our adapter has as many by default."""
_PAUSE = 0.02


async def _receive(client: QueueClient, messages: asyncio.Queue[Any]) -> None:
    while True:
        pages = client.receive_messages(messages_per_page=_PAGE, visibility_timeout=60).by_page()
        async for page in pages:
            async for message in page:
                await messages.put(message)
            break
        else:
            await asyncio.sleep(_PAUSE)


async def _delete(client: QueueClient, messages: asyncio.Queue[Any]) -> None:
    while True:
        message = await messages.get()
        await client.delete_message(message.id, message.pop_receipt)


async def _main(queue: str, deletes: int) -> None:
    string = os.environ["BENCH_CONNECTION_STRING"]
    async with QueueClient.from_connection_string(string, queue, retry_total=0) as client:
        messages: asyncio.Queue[Any] = asyncio.Queue(2 * _PAGE)
        settle_collector()
        receivers = [_receive(client, messages) for _ in range(_RECEIVERS)]
        await asyncio.gather(*receivers, *(_delete(client, messages) for _ in range(deletes)))


def main() -> None:
    """Empty a queue until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queue")
    parser.add_argument("--deletes", type=int, default=32)
    options = parser.parse_args()
    asyncio.run(_main(options.queue, options.deletes))


if __name__ == "__main__":
    main()
