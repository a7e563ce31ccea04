"""The rules of the worker on every queue there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import aioboto3
import pytest

from tests.conformance.rig import Rig
from tests.conformance.rules import WorkerConformance
from tests.emulators.event_hubs import EventHubsEmulator
from tests.emulators.sqs_stub import SqsStub
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.servers.azurite import Azurite, create_container, create_queue
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


class _StorageQueueRig:
    visibility_timeout = WorkerConformance.visibility_timeout

    @pytest.fixture
    async def rig(self, tmp_path: Path, account: str) -> Rig:
        """A new queue in the account."""
        name = fresh_name()
        await create_queue(account, name)
        source = {
            "KIND": "storage_queue",
            "CONNECTION_STRING": account,
            "QUEUE": name,
            "VISIBILITY_TIMEOUT": f"{self.visibility_timeout:g}s",
            "POLL_WAIT": "1",
        }
        return Rig(tmp_path, source)


class TestRulesOnTheStorageQueueStub(_StorageQueueRig, WorkerConformance):
    """The stub of this project."""

    @pytest.fixture
    async def account(self) -> AsyncIterator[str]:
        """A server of its own for each test."""
        async with StorageQueueStub() as stub:
            yield stub.connection_string


@pytest.mark.thorough
class TestRulesOnAzurite(_StorageQueueRig, WorkerConformance):
    """Azurite."""

    @pytest.fixture
    def account(self, azurite: Azurite) -> str:
        """The one server of the run."""
        return azurite.connection_string


def event_hubs_settings(hub: EventHubsEmulator, azurite: Azurite, container: str) -> dict[str, str]:
    """The settings of a source on the emulator's hub `events`."""
    return {
        "KIND": "event_hubs",
        "CONNECTION_STRING": hub.connection_string,
        "EVENT_HUB": "events",
        "CHECKPOINTS__CONNECTION_STRING": azurite.connection_string,
        "CHECKPOINTS__CONTAINER": container,
        "CHECKPOINTS__INTERVAL": "0.5",
        "CHECKPOINTS__OWNERSHIP_INTERVAL": "0.5",
        "POLL_WAIT": "1",
    }


class TestRulesOnTheEventHub(WorkerConformance):
    """The emulator of this project, with checkpoints in Azurite."""

    ordered = True

    @pytest.fixture
    async def rig(self, tmp_path: Path, azurite: Azurite) -> AsyncIterator[Rig]:
        """A hub and a container of its own for each test."""
        container = fresh_name()
        await create_container(azurite.connection_string, container)
        async with EventHubsEmulator(hubs={"events": 3}) as hub:
            yield Rig(tmp_path, event_hubs_settings(hub, azurite, container))
