"""Queue servers on loopback, each in a process of its own, and how many messages they still hold."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import botocore.config
import botocore.session

from tests.servers.azurite import ACCOUNT, connection_string
from tests.servers.fauxqs import fauxqs_server

__all__ = ["ENVIRONMENT", "ROOT", "QueueServer", "StorageStub", "Stub", "fauxqs", "storage_stub", "stub"]

ROOT = Path(__file__).resolve().parent.parent
_FILL = 2_000
_BATCH = 10
_numbers = itertools.count(1)

ENVIRONMENT: Mapping[str, str] = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CONSUMER_"))},
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "PYTHONPATH": str(ROOT),
}
"""For contestants: credentials that mean nothing, and no settings of the machine's own."""


class QueueServer(Protocol):
    """A server with queues; what a queue is called there, its URL or its name, is the server's own affair."""

    def filled(self, bodies: Sequence[str]) -> str:
        """A new queue that holds these messages."""

    def left(self, queue: str) -> int:
        """Messages that are not finished yet, in flight or not."""


class Stub:
    """The project's own SQS server; a queue is its URL."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=120)

    def _ask(self, method: str, path: str, payload: Mapping[str, Any] | None = None) -> dict[str, Any]:
        self._connection.request(method, path, json.dumps(payload or {}))
        reply: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return reply

    def _made(self, bodies: Sequence[str], **attributes: str) -> tuple[str, str]:
        name = f"bench-{next(_numbers)}"
        url = str(self._ask("POST", "/_stub/queues", {"name": name, "attributes": attributes})["url"])
        for start in range(0, len(bodies), _FILL):
            self._ask("POST", "/_stub/fill", {"queue": name, "bodies": bodies[start : start + _FILL]})
        return name, url

    def _held(self, name: str) -> Mapping[str, int]:
        counts: Mapping[str, int] = self._ask("GET", "/_stub/stats")["queues"][name]
        return counts

    def filled(self, bodies: Sequence[str]) -> str:
        """A new queue that holds these messages; its URL."""
        return self._made(bodies, VisibilityTimeout="60")[1]

    def left(self, queue: str) -> int:
        """Messages that are not deleted yet."""
        counts = self._held(queue.rpartition("/")[2])
        return counts["ready"] + counts["delayed"] + counts["in_flight"]


class StorageStub(Stub):
    """The project's own Storage Queue server; a queue is its name."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.connection_string = connection_string(queue=f"{endpoint}/{ACCOUNT}")

    def filled(self, bodies: Sequence[str]) -> str:
        """A new queue that holds these messages; its name."""
        return self._made(bodies)[0]

    def left(self, queue: str) -> int:
        """Messages that are not deleted yet."""
        return self._held(queue)["messages"]


@contextlib.contextmanager
def stub(
    *, latency: float = 0.0, module: str = "tests.emulators.sqs_stub", options: Sequence[str] = ()
) -> Iterator[Stub]:
    """The project's own SQS server, with `latency` seconds added to every answer."""
    with _running(module, latency, options) as url:
        yield Stub(url)


@contextlib.contextmanager
def storage_stub(*, latency: float = 0.0) -> Iterator[StorageStub]:
    """The project's own Storage Queue server, with `latency` seconds added to every answer."""
    with _running("tests.emulators.storage_queue_stub", latency) as url:
        yield StorageStub(url)


@contextlib.contextmanager
def _running(module: str, latency: float, options: Sequence[str] = ()) -> Iterator[str]:
    command = [sys.executable, "-m", module, "--latency", str(latency), *options]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # it is a pipe
            url = server.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"{module} did not start")
            yield url
        finally:
            server.terminate()


class _Fauxqs:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._client: Any = botocore.session.Session().create_client(
            "sqs",
            region_name="us-east-1",
            endpoint_url=endpoint,
            aws_access_key_id="benchmark",
            aws_secret_access_key="benchmark",
            config=botocore.config.Config(proxies={}),
        )

    def filled(self, bodies: Sequence[str]) -> str:
        made = self._client.create_queue(QueueName=f"bench-{next(_numbers)}")["QueueUrl"]
        # The host it names there is one that nobody resolves.
        url = f"{self.endpoint}{urlsplit(made).path}"
        for start in range(0, len(bodies), _BATCH):
            batch = bodies[start : start + _BATCH]
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(batch)]
            self._client.send_message_batch(QueueUrl=url, Entries=entries)
        return url

    def left(self, queue: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        reply = self._client.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
        return sum(int(reply["Attributes"][name]) for name in names)


@contextlib.contextmanager
def fauxqs() -> Iterator[_Fauxqs]:
    """An SQS server by others, as a check on ours."""
    with fauxqs_server() as url:
        yield _Fauxqs(url)
