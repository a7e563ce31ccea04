"""Two worker processes on one inbox and one queue, with duplicates in both hands."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.rig import Rig, program, signed
from tests.faults.harness import WorkerProcess, sqs_rig, stub_process
from tests.servers.postgres import PostgresServer


@pytest.fixture(params=["local", "sqs"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path, aws_environment: None) -> AsyncIterator[Rig]:
    """Each kind of queue."""
    if request.param == "local":
        yield Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue")})
        return
    with stub_process() as stub:
        stub.create_queue("labs")
        yield sqs_rig(tmp_path, stub, "labs")


async def test_two_workers_make_one_effect(rig: Rig, postgres: PostgresServer) -> None:
    """Every event twice, small hands, two workers that migrate and consume at once: one effect each, none lost."""
    names = [f"e{n}" for n in range(300)]
    messages = [signed(program(one)) for one in names] * 2
    random.Random(5).shuffle(messages)
    await rig.publish(messages)
    async with postgres.fresh_database() as url:
        database = url.rpartition("/")[2]
        changes = {
            "DATABASE__URL": url,
            "DATABASE__AUTO_MIGRATE": "true",
            "MAX_IN_FLIGHT": "20",
            "HANDLER_SECONDS": "0.01",
            "HANDLER_FAILING": "0.05",
            "MAX_ATTEMPTS": "50",
        }
        with WorkerProcess(rig, **changes) as one, WorkerProcess(rig, **changes) as two:
            workers = (one, two)
            for worker in workers:
                await worker.logged("started")

            async def handled() -> int:
                (row,) = await postgres.execute("SELECT count(DISTINCT event_id) FROM effects", database=database)
                return int(row[0])

            async def empty() -> bool:
                return (await rig.depth()).total == 0

            for _ in range(300):
                if await handled() == len(names) and await empty():
                    break
                await asyncio.sleep(0.1)
            for worker in workers:
                worker.send(signal.SIGTERM)
            assert [await worker.ended() for worker in workers] == [0, 0]
        rows = await postgres.execute("SELECT event_id FROM effects", database=database)
        assert Counter(row[0] for row in rows) == Counter(names)
        # A duplicate may fail in one worker after it took effect in the other; that count is of no use to anybody.
        unsettled = "SELECT 1 FROM consumer_attempts WHERE key NOT IN (SELECT key FROM consumer_inbox)"
        assert await postgres.execute(unsettled, database=database) == []
    assert rig.reasons() == Counter()
    assert (await rig.depth()).total == 0
    assert all(worker.text.count("handler_failed") > 0 for worker in workers)
