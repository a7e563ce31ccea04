"""Workers on an event hub that are killed, stopped and cut off under load: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.rig import Rig, eventually
from tests.emulators.event_hubs_client import EventHubsControl, event_hubs_process
from tests.faults.harness import WorkerProcess
from tests.faults.harness_azure import CheckpointWatch, events, hub_rig
from tests.servers.azurite import Azurite

PARTITIONS = 4
INTERVAL = 0.5
"""Seconds between two looks at the ownerships; the rig's."""
_LOAD = {"HANDLER_SECONDS": "0.02", "HANDLER_FAILING": "0.02", "MAX_ATTEMPTS": "50"}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[EventHubsControl]:
    """A hub of four partitions in a process of its own."""
    with event_hubs_process(partitions=PARTITIONS) as control:
        yield control


@pytest.fixture
async def rig(tmp_path: Path, hub: EventHubsControl, azurite: Azurite) -> Rig:
    """A rig on it."""
    return await hub_rig(tmp_path, hub, azurite)


class _Load:
    """Fills the hub with events, a third of them twice."""

    def __init__(self, hub: EventHubsControl, seed: int) -> None:
        self.names: list[str] = []
        self.sent = 0
        self._hub = hub
        self._dice = random.Random(seed)

    async def fill(self, count: int) -> None:
        """So many more."""
        names = [f"e{len(self.names) + number}" for number in range(count)]
        self.names += names
        messages = events(names)
        messages += self._dice.sample(messages, count // 3)
        self._dice.shuffle(messages)
        self.sent += len(messages)
        await self._hub.acall("fill", bodies=[message.decode() for message in messages])


async def _balanced(watch: CheckpointWatch, owners: int) -> float:
    """Wait until all partitions are open, by so many owners; for how many seconds."""
    started = time.monotonic()
    while len(watch.owners) < PARTITIONS or None in (found := set(watch.owners.values())) or len(found) != owners:
        assert time.monotonic() - started < 20, f"not {owners} owners: {watch.owners} of {watch.now}"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def _all_handled(rig: Rig, load: _Load) -> None:
    await eventually(lambda: len(rig.effects()) == len(load.names), within=30, what=f"{len(load.names)} effects")


async def test_killed_stopped_and_cut_off(rig: Rig, hub: EventHubsControl) -> None:
    """Two workers, one killed, one stopped, the hub gone for a while, under load with duplicates: one effect each.

    Checkpoints never go back; the partitions of a killed worker move within six ownership intervals and a little, those
    of one that was stopped sooner.
    """
    load, dice = _Load(hub, 1), random.Random(2)
    async with CheckpointWatch(rig) as watch:
        with WorkerProcess(rig, **_LOAD) as steady, WorkerProcess(rig, **_LOAD) as killed:
            await load.fill(150)
            await _balanced(watch, 2)
            await load.fill(150)
            await asyncio.sleep(dice.uniform(0.1, 0.4))
            killed.send(signal.SIGKILL)
            await killed.ended()
            await load.fill(100)
            assert await _balanced(watch, 1) < 6 * INTERVAL + 2
            await _all_handled(rig, load)
            await load.fill(150)
            with WorkerProcess(rig, **_LOAD) as stopped:
                await _balanced(watch, 2)
                await load.fill(100)
                await asyncio.sleep(dice.uniform(0.1, 0.4))
                told = time.monotonic()
                stopped.send(signal.SIGTERM)
                assert await stopped.ended(within=10) == 0
                assert time.monotonic() - told < 5 + 3
                assert await _balanced(watch, 1) < 6 * INTERVAL, "as long as an ownership that nobody gave up"
            await load.fill(100)
            await _all_handled(rig, load)
            await load.fill(100)
            await hub.acall("stop")
            await asyncio.sleep(1)
            await load.fill(100)
            await hub.acall("start")
            await _all_handled(rig, load)
            await eventually(lambda: sum(watch.now.values()) == load.sent - PARTITIONS, within=10)
            steady.send(signal.SIGTERM)
            assert await steady.ended(within=10) == 0
        assert set(watch.owners.values()) == {None}
    assert rig.effects() == Counter(load.names)
    assert rig.reasons() == Counter()
    for worker in (steady, stopped):
        assert worker.events("stray_failure") == []
        assert "azure" not in worker.text
        assert "Traceback" not in worker.text
    with WorkerProcess(rig, "--until-idle", "--idle-after", "0.5s") as last:
        assert await last.ended(within=30) == 0
        assert last.events("stopped")[0]["handled"] == last.events("stopped")[0]["duplicates"] == 0


async def test_an_event_that_kills_the_worker(rig: Rig) -> None:
    """An event whose handler ends the process is found out and put aside as `crashed`; its neighbours are handled."""
    await rig.publish(events(["e0", "kill", "e1"]))
    changes = {"SOURCES__LABS__CHECKPOINTS__OWNERSHIP_INTERVAL": "0.2"}
    ends = []
    for _ in range(6):
        with WorkerProcess(rig, "--until-idle", "--idle-after", "0.2s", HANDLERS="hard:killing", **changes) as worker:
            ends.append(await worker.ended())
        if ends[-1] == 0:
            break
    assert ends[-1] == 0
    assert set(ends[:-1]) == {9}
    assert len(ends) <= 4
    assert rig.effects() == Counter(["e0", "e1"])
    assert [(one["event_id"], one["reason"]) for one in rig.dead_letters()] == [("kill", "crashed")]


@pytest.mark.thorough
async def test_stopped_with_long_ownership_intervals(rig: Rig) -> None:
    """A stop does not wait for the next look at the ownerships, and gives the partitions up at once."""
    await rig.publish(events([f"e{number}" for number in range(20)]))
    changes = {"SOURCES__LABS__CHECKPOINTS__OWNERSHIP_INTERVAL": "30"}
    with WorkerProcess(rig, **changes) as first:
        await eventually(lambda: len(rig.effects()) == 20)
        told = time.monotonic()
        first.send(signal.SIGTERM)
        assert await first.ended(within=10) == 0
        assert time.monotonic() - told < 5
    await rig.publish(events(["next"]))
    with WorkerProcess(rig, **changes) as second:
        await eventually(lambda: rig.effects()["next"], within=10)
        second.send(signal.SIGTERM)
        assert await second.ended(within=10) == 0
    assert first.events("consumer_not_closed") == []
    assert set(rig.effects().values()) == {1}
