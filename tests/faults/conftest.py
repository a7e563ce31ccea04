"""A rig for each kind of queue that fault tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.rig import Rig
from tests.faults.harness import Stub, sqs_rig, stub_process


@pytest.fixture
def stub(aws_environment: None) -> Iterator[Stub]:
    """An SQS stub in its own process, with one queue, `labs`."""
    with stub_process() as found:
        found.create_queue("labs")
        yield found


@pytest.fixture
def local_rig(tmp_path: Path) -> Rig:
    """The local queue; leases last two seconds, so that what a killed worker held comes back soon."""
    return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue"), "VISIBILITY_TIMEOUT": "2s"})


@pytest.fixture
def stub_rig(tmp_path: Path, stub: Stub) -> Rig:
    """The stub's queue; leases last two seconds, as above."""
    return sqs_rig(tmp_path, stub, "labs", visibility_timeout=2)


@pytest.fixture(params=["local", "stub"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Both, one after the other."""
    found: Rig = request.getfixturevalue(f"{request.param}_rig")
    return found
