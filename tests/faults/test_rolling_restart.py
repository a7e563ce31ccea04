"""Four workers on two queues and one PostgreSQL inbox are replaced one after the other, under load."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from consumer.app import build_source
from consumer.sources.base import Outgoing
from tests.conformance.rig import Rig, program, signed
from tests.faults.harness import WorkerProcess, sqs_rig, stub_process
from tests.servers.postgres import PostgresServer

WORKERS = 4
GROUPS = 6
GRACE = 15.0
"""What Kubernetes would give a pod between SIGTERM and SIGKILL, cut short."""
LONGEST_WAIT = 20.0
"""How long an event may take from its publishing to its effect while workers come and go."""


class Load:
    """Publishes to both queues, steadily, and knows when it published what."""

    def __init__(self, rig: Rig) -> None:
        self.published: dict[str, float] = {}
        self._rig = rig
        self._settings = rig.load().settings

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish while the context lasts."""
        async with AsyncExitStack() as stack:
            sources = {name: build_source(self._settings.source(name)) for name in ("labs", "jobs")}
            for source in sources.values():
                stack.push_async_callback(source.close)
                await source.open()

            async def publish() -> None:
                for turn in range(100_000):
                    for name, source in sources.items():
                        messages = [self._message(name, turn, group) for group in range(GROUPS)]
                        # Some twice, as queues and platforms do.
                        await source.send([*messages, *messages[:1]] if name == "labs" else messages)
                    await asyncio.sleep(0.15)

            task = asyncio.create_task(publish())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled(), task.exception()

    def _message(self, name: str, turn: int, group: int) -> Outgoing:
        event_id = f"{name}-{group}-{turn:06d}"
        self.published[event_id] = time.monotonic()
        body = signed(program(event_id))
        return Outgoing(body, ordering_key=f"group-{group}") if name == "jobs" else Outgoing(body)


async def test_rolling_restart(tmp_path: Path, aws_environment: None, postgres: PostgresServer) -> None:
    """Each worker goes by SIGTERM after its successor stands, one by SIGKILL: every event has one effect, in time.

    On the FIFO queue the effects of a group are in the order of their publishing, too.
    """
    with stub_process() as stub:
        stub.create_queue("labs")
        stub.create_queue("jobs.fifo", FifoQueue="true")
        rig = sqs_rig(tmp_path, stub, "labs", visibility_timeout=4.0)
        rig.changes = {
            f"SOURCES__JOBS__{name}": value.replace("/labs", "/jobs.fifo") for name, value in rig.source.items()
        }
        async with postgres.fresh_database() as url, AsyncExitStack() as stack:
            database = url.rpartition("/")[2]
            rig.changes |= {
                "DATABASE__URL": url,
                "DATABASE__AUTO_MIGRATE": "true",
                "DRAIN_TIMEOUT": "5s",
                "MAX_IN_FLIGHT": "20",
                "MAX_ATTEMPTS": "50",
            }

            async def start() -> WorkerProcess:
                worker = stack.enter_context(WorkerProcess(rig, HANDLER_SECONDS="0.05", HANDLER_FAILING="0.02"))
                await worker.logged("started")
                return worker

            async def effects() -> list[str]:
                rows = await postgres.execute("SELECT event_id FROM effects ORDER BY id", database=database)
                return [row[0] for row in rows]

            async def oldest() -> float:
                missing = load.published.keys() - set(await effects())
                return max((time.monotonic() - load.published[one] for one in missing), default=0.0)

            def left() -> int:
                counts = [stub.counts(name) for name in ("labs", "jobs.fifo")]
                return sum(one["ready"] + one["delayed"] + one["in_flight"] for one in counts)

            load = Load(rig)
            workers = [await start() for _ in range(WORKERS)]
            waits = []
            async with load.running():
                for number, worker in enumerate(workers):
                    workers[number] = await start()
                    waits.append(await oldest())
                    worker.send(signal.SIGKILL if number == 2 else signal.SIGTERM)
                    assert await worker.ended(within=GRACE) == (-signal.SIGKILL if number == 2 else 0)
            for _ in range(int(LONGEST_WAIT / 0.1)):
                if not (left() or await oldest()):
                    break
                await asyncio.sleep(0.1)
            waits.append(await oldest())
            for worker in workers:
                worker.send(signal.SIGTERM)
            assert [await worker.ended(within=GRACE) for worker in workers] == [0] * WORKERS
            done = await effects()
        assert Counter(done) == Counter(load.published.keys())
        assert len(done) > 200
        for group in range(GROUPS):
            of_group = [one for one in done if one.startswith(f"jobs-{group}-")]
            assert of_group == sorted(of_group)
        assert max(waits) < LONGEST_WAIT
        assert rig.reasons() == Counter()
        assert left() == 0
