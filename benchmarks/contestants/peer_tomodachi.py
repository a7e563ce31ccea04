"""tomodachi, as its documentation sets it up: plain messages, ten a receive.

Run in a virtual environment of its own by `tomodachi run benchmarks/contestants/peer_tomodachi.py`.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import tomodachi

__all__ = ["Service"]

_url = urlsplit(os.environ["BENCH_QUEUE_URL"])
_endpoint = f"{_url.scheme}://{_url.netloc}"


class Service(tomodachi.Service):  # type: ignore[misc]  # a package that only its own environment has
    """A service with one consumer."""

    name = "bench"
    options = tomodachi.Options(
        aws_sns_sqs=tomodachi.Options.AWSSNSSQS(
            region_name="us-east-1", aws_access_key_id="benchmark", aws_secret_access_key="benchmark"
        ),
        aws_endpoint_urls=tomodachi.Options.AWSEndpointURLs(sns=_endpoint, sqs=_endpoint),
    )

    async def nothing(self, value: str) -> None:
        """The handler of nothing at all."""

    nothing = tomodachi.aws_sns_sqs(
        queue_name=_url.path.rpartition("/")[2], message_envelope=None, max_number_of_consumed_messages=10
    )(nothing)
