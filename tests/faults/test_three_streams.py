"""One worker process on three queues at once: SQS, an event hub and a storage queue."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from consumer.app import build_source
from consumer.sources.base import Outgoing
from tests.conformance.rig import Rig, eventually
from tests.emulators.event_hubs import EventHubsEmulator
from tests.emulators.sqs_stub import SqsStub
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.faults.harness import WorkerProcess
from tests.faults.harness_azure import CheckpointWatch, events, hub_rig
from tests.servers.azurite import Azurite

STREAMS = ("labs", "jobs", "mail")
_LOAD = {"HANDLER_SECONDS": "0.02", "HANDLER_FAILING": "0.02", "MAX_ATTEMPTS": "50"}


async def _publish(rig: Rig, stream: str, messages: Sequence[bytes]) -> None:
    source = build_source(rig.load().settings.source(stream))
    try:
        await source.open()
        await source.send([Outgoing(message) for message in messages])
    finally:
        await source.close()


async def _left(rig: Rig, stream: str) -> int:
    source = build_source(rig.load().settings.source(stream))
    try:
        await source.open()
        return (await source.depth()).total
    finally:
        await source.close()


async def test_three_streams(tmp_path: Path, azurite: Azurite, aws_environment: None) -> None:
    """Stopped under load it drains all three within its time; a second run finishes them: one effect for each event.

    An event that comes by all three has one effect too.
    """
    async with (
        EventHubsEmulator(hubs={"events": 2}) as hub,
        SqsStub() as sqs,
        StorageQueueStub() as storage,
    ):
        rig = await hub_rig(tmp_path, hub, azurite)
        storage.create_queue("mail")
        sqs.create_queue("jobs")
        rig.changes |= {
            "SOURCES__JOBS__KIND": "sqs",
            "SOURCES__JOBS__QUEUE_URL": f"{sqs.url}/000000000000/jobs",
            "SOURCES__JOBS__ENDPOINT_URL": sqs.url,
            "SOURCES__JOBS__REGION": "us-east-1",
            "SOURCES__JOBS__POLL_WAIT": "1",
            "SOURCES__MAIL__KIND": "storage_queue",
            "SOURCES__MAIL__CONNECTION_STRING": storage.connection_string,
            "SOURCES__MAIL__QUEUE": "mail",
            "SOURCES__MAIL__POLL_WAIT": "1",
        }
        common = [f"common{number}" for number in range(20)]
        shared = events(common)
        own = {stream: [f"{stream}{number}" for number in range(150)] for stream in STREAMS}
        names = [*common, *(name for stream in STREAMS for name in own[stream])]
        for stream in STREAMS:
            await _publish(rig, stream, [*shared, *events(own[stream][:100])])
        async with CheckpointWatch(rig):
            with WorkerProcess(rig, **_LOAD) as worker:
                await worker.logged("started")
                await eventually(lambda: all(any(one.startswith(s) for one in rig.effects()) for s in STREAMS))
                for stream in STREAMS:
                    await _publish(rig, stream, events(own[stream][100:]))
                await asyncio.sleep(0.1)
                assert len(rig.effects()) < len(names)
                told = time.monotonic()
                worker.send(signal.SIGTERM)
                assert await worker.ended(within=15) == 0
                assert time.monotonic() - told < 5 + 4
            assert worker.events("left_to_their_leases") == []
            with WorkerProcess(rig, "--until-idle", "--idle-after", "0.5s", **_LOAD) as second:
                assert await second.ended(within=60) == 0
        assert [await _left(rig, stream) for stream in STREAMS] == [0, 0, 0]
    assert rig.effects() == Counter(names)
    assert rig.reasons() == Counter()
    for run in (worker, second):
        assert run.events("stray_failure") == []
        assert "Traceback" not in run.text
