"""The rules of the worker on every queue there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import aioboto3
import pytest

from tests.conformance.rig import Rig
from tests.conformance.rules import WorkerConformance
from tests.emulators.sqs_stub import SqsStub
from tests.servers.names import fresh_name


class TestRulesOnTheLocalQueue(WorkerConformance):
    """One SQLite file as queue."""

    ordered = True

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Rig:
        """A queue beside the database."""
        return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue")})


class _OnSqs(WorkerConformance):
    fifo: ClassVar[bool] = False
    changes: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    async def rig(self, tmp_path: Path, endpoint: str) -> Rig:
        """A new queue on the server."""
        name = fresh_name() + (".fifo" if self.fifo else "")
        async with aioboto3.Session().client("sqs", endpoint_url=endpoint) as client:
            attributes = {"FifoQueue": "true"} if self.fifo else {}
            url = (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
        source = {
            "KIND": "sqs",
            "QUEUE_URL": url,
            "ENDPOINT_URL": endpoint,
            "REGION": "us-east-1",
            "VISIBILITY_TIMEOUT": f"{self.visibility_timeout:g}s",
            "POLL_WAIT": "1",
        }
        return Rig(tmp_path, source, dict(self.changes))


class TestRulesOnTheSqsStub(_OnSqs):
    """The stub of this project."""

    @pytest.fixture
    async def endpoint(self, aws_environment: None) -> AsyncIterator[str]:
        """A server of its own for each test."""
        async with SqsStub() as stub:
            yield stub.url


class TestRulesOnTheSqsFifoStub(TestRulesOnTheSqsStub):
    """The same, as a FIFO queue."""

    fifo = True
    ordered = True


class TestRulesOnMoto(_OnSqs):
    """Moto. Two receives that meet get the same messages, so one receive at a time."""

    changes: ClassVar[dict[str, str]] = {"SOURCES__LABS__MAX_IN_FLIGHT": "19"}

    @pytest.fixture
    def endpoint(self, aws_environment: None, moto_url: str) -> str:
        """The one server of the run."""
        return moto_url


class TestRulesOnFauxqs(_OnSqs):
    """Fauxqs."""

    @pytest.fixture
    def endpoint(self, aws_environment: None, fauxqs_url: str) -> str:
        """The one server of the run."""
        return fauxqs_url
