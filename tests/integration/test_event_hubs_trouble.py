"""A hub or a blob store that breaks off, refuses, falls silent or forgets: nothing is lost and nobody is blamed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer import Context
from consumer.events import ProgramEvent
from consumer.sources.event_hubs import EventHubsSource
from tests.conformance.rig import Rig, effect, effects_table, eventually
from tests.emulators.event_hubs import EventHubsEmulator
from tests.faults.harness_azure import BlobProxy, CheckpointWatch, events, hub_rig, logged, opened_hub
from tests.servers.azurite import Azurite


class _Load:
    """Events that keep coming, to all partitions, until it is stopped."""

    def __init__(self, hub: EventHubsEmulator, prefix: str = "e") -> None:
        self.names: list[str] = []
        self._hub, self._prefix = hub, prefix

    async def run(self) -> None:
        while True:
            fresh = [f"{self._prefix}{len(self.names) + number}" for number in range(5)]
            self.names += fresh
            self._hub.fill("events", events(fresh))
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def loaded(hub: EventHubsEmulator) -> AsyncIterator[_Load]:
    """Events keep coming meanwhile."""
    load = _Load(hub)
    task = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _plain() -> Any:
    table = effects_table()

    @table.on(ProgramEvent)
    async def handle(event: ProgramEvent, context: Context) -> None:
        await effect(event, context)
        await asyncio.sleep(0)

    return table


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second without events is long."""
    monkeypatch.setitem(EventHubsSource.__init__.__kwdefaults__, "stall_after", 1.0)


async def _all_handled(rig: Rig, names: list[str], within: float = 20) -> None:
    await eventually(lambda: len(rig.effects()) == len(names), within=within, what=f"all {len(names)} events")
    assert rig.effects() == Counter(names)


def _nobody_was_blamed(rig: Rig) -> None:
    assert rig.reasons() == Counter()
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


async def _progress(rig: Rig) -> None:
    """Wait for events to be handled from now on."""
    before = len(rig.effects())
    await eventually(lambda: len(rig.effects()) > before + 10, within=20, what="events handled again")


async def test_whatever_breaks_off(tmp_path: Path, azurite: Azurite) -> None:
    """Connections dropped, links detached for all sorts of reasons, server busy, under load: one effect each."""
    conditions = (
        "amqp:link:detach-forced",
        "amqp:connection:forced",
        "amqp:internal-error",
        "com.microsoft:server-busy",
        "com.microsoft:timeout",
        "amqp:resource-limit-exceeded",
        "amqp:link:stolen",
        None,
    )
    async with (
        opened_hub(tmp_path, azurite, partitions=3) as (hub, rig),
        CheckpointWatch(rig) as watch,
        rig.worker(_plain()) as app,
    ):
        async with loaded(hub) as load:
            await _progress(rig)
            for number, condition in enumerate(conditions):
                hub.detach(condition, role="listen", partition=(None, "0", "2")[number % 3])
                await _progress(rig)
            for _ in range(3):
                await eventually(hub.drop, what="a connection to drop")
            await _progress(rig)
            hub.busy(1.0)
            await asyncio.sleep(1.0)
            await _progress(rig)
        await _all_handled(rig, load.names)
        assert app.worker.not_ready() is None
        assert app.worker.not_live() is None
        await eventually(lambda: sum(watch.now.values()) == len(load.names) - 3)
    _nobody_was_blamed(rig)


async def test_gone_and_back(tmp_path: Path, azurite: Azurite) -> None:
    """A hub that refuses connections, and one that is gone: not ready, said so, then ready again by itself."""
    async with (
        opened_hub(tmp_path, azurite, partitions=2) as (hub, rig),
        CheckpointWatch(rig),
        rig.worker(_plain()) as app,
    ):
        async with loaded(hub) as load:
            await _progress(rig)
            with capture_logs() as logs:
                await hub.stop()
                await eventually(app.worker.not_ready, within=30, what="not ready")
                assert logged(logs, "event_hub_trouble")
            await hub.start()
            await _progress(rig)
            await eventually(lambda: app.worker.not_ready() is None)
            hub.fault("refuse_connections", seconds=1.5)
            hub.drop()
            await asyncio.sleep(1.5)
            await _progress(rig)
        await _all_handled(rig, load.names)
        assert app.worker.not_live() is None
        await eventually(lambda: app.worker.not_ready() is None)
    _nobody_was_blamed(rig)


@pytest.mark.thorough
async def test_no_permission_while_running(tmp_path: Path, azurite: Azurite) -> None:
    """A right to listen that is taken away makes the worker not ready, in words that help; given back, it goes on."""
    async with opened_hub(tmp_path, azurite) as (hub, rig), rig.worker(_plain()) as app:
        hub.fill("events", events(["before"]))
        await eventually(lambda: rig.effects()["before"])
        hub.deny(role="listen")
        hub.detach("amqp:unauthorized-access", role="listen")
        hub.fill("events", events(["meanwhile"]))
        await eventually(lambda: "access denied" in (app.worker.not_ready() or ""), within=30)
        assert rig.effects()["meanwhile"] == 0
        hub.clear()
        await eventually(lambda: rig.effects()["meanwhile"], within=30)
        await eventually(lambda: app.worker.not_ready() is None)
    _nobody_was_blamed(rig)


async def test_a_partition_that_falls_silent(tmp_path: Path, azurite: Azurite, soon: None) -> None:
    """A link that stays and brings nothing is noticed and started anew; twice in vain, the process is to be restarted.

    Other partitions go on meanwhile, and an event that comes after all makes it well.
    """
    async with opened_hub(tmp_path, azurite, partitions=2) as (hub, rig), CheckpointWatch(rig):
        with capture_logs() as logs:
            async with rig.worker(_plain()) as app:
                hub.fill("events", events(["a0"]), partition="0")
                await eventually(lambda: rig.effects()["a0"])
                hub.fault("silent", partition="1")
                hub.fill("events", events(["b0"]), partition="1")
                await eventually(lambda: logged(logs, "partition_stalled"), what="the first time")
                assert app.worker.not_live() is None
                await eventually(app.worker.not_live, what="the second time")
                assert app.worker.not_live() == (
                    "source labs: partition 1 delivers nothing although the hub has events"
                )
                hub.fill("events", events(["a1"]), partition="0")
                await eventually(lambda: rig.effects()["a1"])
                hub.clear()
                await eventually(lambda: rig.effects()["b0"])
                await eventually(lambda: app.worker.not_live() is None)
        assert {one["partition"] for one in logged(logs, "partition_stalled")} == {"1"}
    assert rig.effects() == Counter(["a0", "a1", "b0"])
    _nobody_was_blamed(rig)


async def test_quiet_is_not_silent(tmp_path: Path, azurite: Azurite, soon: None) -> None:
    """A partition is left alone that has nothing more, or nothing any more, or whose events wait for slow handlers."""
    going = asyncio.Event()
    table = effects_table()

    @table.on(ProgramEvent, max_concurrency=1, timeout=60)
    async def handle(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "slow0":
            await going.wait()
        await effect(event, context)

    async with opened_hub(tmp_path, azurite, partitions=3, PREFETCH="5") as (hub, rig):
        hub.fill("events", events(f"read{number}" for number in range(5)), partition="0")
        await rig.consume(table)
        hub.fill("events", events(f"gone{number}" for number in range(5)), partition="0")
        hub.trim("events", "0", 10)
        slow = [f"slow{number}" for number in range(50)]
        hub.fill("events", events(slow), partition="1")
        with capture_logs() as logs:
            async with rig.worker(table, MAX_IN_FLIGHT="8") as app:
                await asyncio.sleep(3.5)
                assert app.worker.not_live() is None
                going.set()
                await eventually(lambda: len(rig.effects()) == 55)
        assert logged(logs, "partition_stalled") == []
        (expired,) = logged(logs, "events_expired")
        assert (expired["partition"], expired["count"], expired["log_level"]) == ("0", 5, "error")


@pytest.mark.thorough
async def test_events_that_retention_took(tmp_path: Path, azurite: Azurite) -> None:
    """What the hub deleted before it was read is said as an error with its number; the rest is handled."""
    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        hub.fill("events", events(["a", "b"]))
        await rig.consume(_plain())
        hub.fill("events", events(f"e{number}" for number in range(10)))
        hub.trim("events", "0", 9)
        with capture_logs() as logs:
            await rig.consume(_plain())
        assert [one["count"] for one in logged(logs, "events_expired")] == [7]
        assert rig.effects() == Counter(["a", "b", "e7", "e8", "e9"])
        assert await watch.look() == {"0": 11}
        with capture_logs() as logs:
            await rig.consume(_plain())
        assert logged(logs, "events_expired") == []


async def test_the_blob_store_is_away(tmp_path: Path, azurite: Azurite) -> None:
    """Without the store events are handled on, checkpoints follow later; a worker that starts then begins later."""
    async with (
        EventHubsEmulator(hubs={"events": 2}) as hub,
        BlobProxy(azurite) as proxy,
    ):
        rig = await hub_rig(tmp_path, hub, proxy)
        direct = Rig(tmp_path, {**rig.source, "CHECKPOINTS__CONNECTION_STRING": azurite.connection_string})
        async with CheckpointWatch(direct) as watch:
            async with rig.worker(_plain()) as app:
                async with loaded(hub) as load:
                    await _progress(rig)
                    with capture_logs() as logs:
                        proxy.close()
                        await _progress(rig)
                        stood = dict(await watch.look())
                        await eventually(lambda: logged(logs, "checkpoint_failed"), within=30)
                        await _progress(rig)
                        assert await watch.look() == stood
                        assert len(logged(logs, "event_hub_trouble")) <= 2
                    proxy.reopen()
                    await _progress(rig)
                await _all_handled(rig, load.names)
                await eventually(lambda: sum(watch.now.values()) == len(load.names) - 2, within=20)
                assert app.worker.not_ready() is None
                proxy.close()
                hub.fill("events", events(["last"]))
                await eventually(lambda: rig.effects()["last"])
            # Stopped without the store: what came after the last checkpoint comes again, and is known.
            proxy.reopen()
            await rig.consume(_plain())
            await eventually(lambda: sum(watch.now.values()) == len(load.names) - 1)
    assert rig.effects() == Counter([*load.names, "last"])
    _nobody_was_blamed(rig)


@pytest.mark.thorough
async def test_an_ownership_that_others_wrote_over(tmp_path: Path, azurite: Azurite) -> None:
    """A worker that still receives a partition gets its checkpoint back after another process laid claim to it."""
    async with (
        opened_hub(tmp_path, azurite) as (hub, rig),
        CheckpointWatch(rig) as watch,
        rig.worker(_plain()) as app,
    ):
        hub.fill("events", events(["a"]))
        await eventually(lambda: watch.now == {"0": 0})
        source: Any = app.worker.intakes[0].source
        await source._hub.checkpoints.write("0", _claimed_by_another(), await _etag(source))
        hub.fill("events", events(["b"]))
        await eventually(lambda: rig.effects()["b"])
        await asyncio.sleep(1)
        hub.fill("events", events(["c"]))
        await eventually(lambda: watch.now == {"0": 2}, what="checkpoints again")


def _claimed_by_another() -> Any:
    from consumer.sources.checkpoint_blobs import Checkpoint

    return Checkpoint(0, "0", "another")


async def _etag(source: Any) -> str:
    return str((await source._hub.checkpoints.read("0"))[1])
