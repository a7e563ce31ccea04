"""taskiq with taskiq-aio-sqs, as its documentation sets it up: batches of ten, no result kept.

Run in a virtual environment of its own by `taskiq worker benchmarks.contestants.peer_taskiq:broker`.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from taskiq_aio_sqs import SQSBroker

__all__ = ["broker"]

_url = urlsplit(os.environ["BENCH_QUEUE_URL"])

broker = SQSBroker(
    _url.path.rpartition("/")[2],
    endpoint_url=f"{_url.scheme}://{_url.netloc}",
    region_name="us-east-1",
    aws_access_key_id="benchmark",
    aws_secret_access_key="benchmark",
    wait_time_seconds=1,
    max_number_of_messages=10,
)


async def nothing(body: str) -> None:
    """The task of nothing at all."""


broker.register_task(nothing, task_name="nothing")
