"""The SQS source keeps the contract of a source, on every server that plays SQS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import ClassVar

import aioboto3
import pytest

from consumer.settings import SourceSettings
from consumer.sources.sqs import SqsSource
from consumer.testing.conformance import OpenAgain, SourceConformance
from tests.emulators.sqs_stub import SqsStub
from tests.servers.names import fresh_name


class SqsConformance(SourceConformance):
    """A standard queue; `endpoint` is a fixture of each server."""

    fifo: ClassVar[bool] = False
    poll_wait: ClassVar[float] = 0.0

    @pytest.fixture
    async def open_again(self, endpoint: str) -> AsyncIterator[OpenAgain]:
        """Sources on one queue."""
        name = fresh_name() + (".fifo" if self.fifo else "")
        async with aioboto3.Session().client("sqs", endpoint_url=endpoint) as client:
            attributes = {"FifoQueue": "true"} if self.fifo else {}
            url = (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
        settings = SourceSettings(
            name="labs",
            kind="sqs",
            queue_url=url,
            endpoint_url=endpoint,
            region="us-east-1",
            visibility_timeout=self.visibility_timeout,
            poll_wait=self.poll_wait,
        )
        async with AsyncExitStack() as stack:

            async def make() -> SqsSource:
                source = SqsSource(settings)
                stack.push_async_callback(source.close)
                await source.open()
                return source

            yield make


class TestSqsOnTheStub(SqsConformance):
    """The stub of this project, with long polls."""

    poll_wait = 1.0

    @pytest.fixture
    async def endpoint(self, aws_environment: None) -> AsyncIterator[str]:
        """A stub of its own for each test."""
        async with SqsStub() as stub:
            yield stub.url


class TestSqsFifoOnTheStub(TestSqsOnTheStub):
    """The same, as a FIFO queue."""

    fifo = True
    ordered = always_ordered = True
    delayed_sends = False
    poll_wait = 0.0


class TestSqsOnMoto(SqsConformance):
    """Moto, whose receives must not meet."""

    @pytest.fixture
    def endpoint(self, aws_environment: None, moto_url: str) -> str:
        """The one server of the run."""
        return moto_url


@pytest.mark.thorough
class TestSqsFifoOnMoto(TestSqsOnMoto):
    """The same, as a FIFO queue."""

    fifo = True
    ordered = always_ordered = True
    delayed_sends = False


@pytest.mark.thorough
class TestSqsOnFauxqs(SqsConformance):
    """Fauxqs, which calls settlements by a stale receipt done and takes no character beyond U+FFFF."""

    stale_receipts_fail = False
    texts = tuple(text for text in SourceConformance.texts if max(text.decode()) <= "\uffff")

    @pytest.fixture
    def endpoint(self, aws_environment: None, fauxqs_url: str) -> str:
        """The one server of the run."""
        return fauxqs_url
