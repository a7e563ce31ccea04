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


class _SqsRig:
    visibility_timeout = WorkerConformance.visibility_timeout
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


class TestRulesOnTheSqsStub(_SqsRig, WorkerConformance):
    """The stub of this project."""

    @pytest.fixture
    async def endpoint(self, aws_environment: None) -> AsyncIterator[str]:
        """A server of its own for each test."""
        async with SqsStub() as stub:
            yield stub.url


@pytest.mark.thorough
class TestRulesOnTheSqsFifoStub(TestRulesOnTheSqsStub):
    """The same, as a FIFO queue."""

    fifo = True
    ordered = True


class TestOrderOnSqs(_SqsRig):
    """Of those, what is particular to a FIFO queue."""

    fifo = True
    ordered = True
    test_a_lane_runs_in_order = WorkerConformance.test_a_lane_runs_in_order
    test_stopping_gives_the_rest_back_at_once = WorkerConformance.test_stopping_gives_the_rest_back_at_once

    @pytest.fixture
    async def endpoint(self, aws_environment: None) -> AsyncIterator[str]:
        """A server of its own for each test."""
        async with SqsStub() as stub:
            yield stub.url


@pytest.mark.thorough
class TestRulesOnMoto(_SqsRig, WorkerConformance):
    """Moto. Two receives that meet get the same messages, so one receive at a time."""

    changes: ClassVar[dict[str, str]] = {"SOURCES__LABS__MAX_IN_FLIGHT": "19"}

    @pytest.fixture
    def endpoint(self, aws_environment: None, moto_url: str) -> str:
        """The one server of the run."""
        return moto_url


@pytest.mark.thorough
class TestRulesOnFauxqs(_SqsRig, WorkerConformance):
    """Fauxqs."""

    @pytest.fixture
    def endpoint(self, aws_environment: None, fauxqs_url: str) -> str:
        """The one server of the run."""
        return fauxqs_url
