"""The least that reads an event hub with Azure's SDK: batches that nobody looks at, a checkpoint every second."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore

from benchmarks.progress import Progress
from consumer.collector import settle_collector

__all__: list[str] = []

_EVERY = 1.0


async def _main(hub: str, container: str, prefetch: int) -> None:
    progress = Progress(Path(os.environ["BENCH_PROGRESS"]))
    saved: dict[str, float] = defaultdict(time.monotonic)

    async def finish(context: Any, events: list[Any]) -> None:
        progress.add(len(events))
        now = time.monotonic()
        if now - saved[context.partition_id] >= _EVERY:
            saved[context.partition_id] = now
            await context.update_checkpoint(events[-1])

    store = BlobCheckpointStore.from_connection_string(os.environ["BENCH_STORE"], container)
    client = EventHubConsumerClient.from_connection_string(
        os.environ["BENCH_CONNECTION_STRING"], "$Default", eventhub_name=hub, checkpoint_store=store
    )
    async with store, client:
        settle_collector()
        await client.receive_batch(finish, starting_position="-1", prefetch=prefetch, max_batch_size=prefetch)


def main() -> None:
    """Read a hub until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hub")
    parser.add_argument("container")
    parser.add_argument("--prefetch", type=int, default=300)
    options = parser.parse_args()
    asyncio.run(_main(options.hub, options.container, options.prefetch))


if __name__ == "__main__":
    main()
