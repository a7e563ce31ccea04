"""Fixtures around the SQS servers: endpoints, queues, and sources that read them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from consumer.settings import SourceSettings
from consumer.sources.sqs import SqsSource
from tests.emulators.sqs_stub import Clock, SqsStub
from tests.servers.fauxqs import fauxqs_server
from tests.servers.moto import moto_server

__all__ = [
    "NewQueue",
    "OpenSource",
    "SqsServer",
    "aws_environment",
    "clock",
    "fauxqs_url",
    "moto_url",
    "new_queue",
    "open_source",
    "sqs",
    "sqs_client",
    "sqs_endpoint",
    "sqs_stub",
]

_numbers = itertools.count(1)

NewQueue = Callable[..., Awaitable[str]]
OpenSource = Callable[..., Awaitable[SqsSource]]


@dataclass(frozen=True, slots=True)
class SqsServer:
    """One of the servers that play SQS."""

    kind: str
    url: str


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that mean nothing, and nothing of the machine's own AWS configuration."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The endpoint of a moto server, one for the whole run."""
    with moto_server() as url:
        yield url


@pytest.fixture(scope="session")
def fauxqs_url() -> Iterator[str]:
    """The endpoint of a fauxqs server, one for the whole run."""
    with fauxqs_server() as url:
        yield url


@pytest.fixture
def clock() -> Clock:
    """The time that the stub lives in; moved by the test."""
    return Clock()


@pytest.fixture
async def sqs_stub(aws_environment: None, clock: Clock) -> AsyncIterator[SqsStub]:
    """The SQS stub, in the test's own loop and on its clock."""
    async with SqsStub(clock=clock) as stub:
        yield stub


@pytest.fixture
async def sqs(sqs_stub: SqsStub) -> AsyncIterator[Any]:
    """A plain client of the stub that does not retry."""
    import aioboto3
    from aiobotocore.config import AioConfig

    config = AioConfig(retries={"total_max_attempts": 1}, read_timeout=2, parameter_validation=False)
    async with aioboto3.Session().client("sqs", endpoint_url=sqs_stub.url, config=config) as client:
        yield client


@pytest.fixture(params=["stub", "moto", "fauxqs"])
async def sqs_endpoint(request: pytest.FixtureRequest, aws_environment: None) -> AsyncIterator[SqsServer]:
    """Each of the three servers that play SQS, in real time."""
    kind = str(request.param)
    if kind == "stub":
        async with SqsStub() as stub:
            yield SqsServer(kind, stub.url)
    else:
        yield SqsServer(kind, request.getfixturevalue(f"{kind}_url"))


@pytest.fixture
async def sqs_client(sqs_endpoint: SqsServer) -> AsyncIterator[Any]:
    """A plain aioboto3 client of the endpoint."""
    import aioboto3  # half a second that no other test should pay

    async with aioboto3.Session().client("sqs", endpoint_url=sqs_endpoint.url) as client:
        yield client


@pytest.fixture
def new_queue(sqs_client: Any) -> NewQueue:
    """Makes a queue with these attributes and returns its URL; `fifo=True` makes a FIFO queue."""

    async def make(*, fifo: bool = False, **attributes: str) -> str:
        name = f"queue-{next(_numbers)}"
        if fifo:
            name, attributes = f"{name}.fifo", {**attributes, "FifoQueue": "true"}
        reply = await sqs_client.create_queue(QueueName=name, Attributes=attributes)
        return str(reply["QueueUrl"])

    return make


@pytest.fixture
async def open_source(aws_environment: None) -> AsyncIterator[OpenSource]:
    """Opens a source on a queue; further arguments are its settings. Closed at the end."""
    async with AsyncExitStack() as stack:

        async def make(
            queue_url: str, endpoint_url: str, *, call_limit: float = 10.0, poll_grace: float = 10.0, **changes: Any
        ) -> SqsSource:
            values = {"poll_wait": 1.0, "visibility_timeout": 30.0, "max_in_flight": 40, **changes}
            settings = SourceSettings(
                name="labs", kind="sqs", queue_url=queue_url, endpoint_url=endpoint_url, region="us-east-1", **values
            )
            source = SqsSource(settings, call_limit=call_limit, poll_grace=poll_grace)
            stack.push_async_callback(source.close)
            await source.open()
            return source

        yield make
