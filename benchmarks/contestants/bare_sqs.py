"""The least that empties an SQS queue with aioboto3: receive ten, delete ten, in so many loops at once.

The client is tuned as well as we know: see `consumer.sources.sqs`, which makes its own the same way.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any
from urllib.parse import urlsplit

import aioboto3
from aiobotocore.config import AioConfig

from consumer.collector import settle_collector

__all__: list[str] = []


async def _poll(client: Any, url: str) -> None:
    while True:
        reply = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        messages = reply.get("Messages")
        if messages:
            entries = [{"Id": str(i), "ReceiptHandle": one["ReceiptHandle"]} for i, one in enumerate(messages)]
            await client.delete_message_batch(QueueUrl=url, Entries=entries)


async def _main(url: str, pollers: int) -> None:
    parts = urlsplit(url)
    config = AioConfig(user_agent="bare", parameter_validation=False, max_pool_connections=2 * pollers + 4)
    endpoint = f"{parts.scheme}://{parts.netloc}"
    async with aioboto3.Session().client("sqs", endpoint_url=endpoint, config=config) as client:
        settle_collector()
        await asyncio.gather(*(_poll(client, url) for _ in range(pollers)))


def main() -> None:
    """Empty a queue until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queue_url")
    parser.add_argument("--pollers", type=int, default=20)
    options = parser.parse_args()
    asyncio.run(_main(options.queue_url, options.pollers))


if __name__ == "__main__":
    main()
