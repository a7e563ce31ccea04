"""Sources of partners: without leases, or with bugs; the worker loses nothing and does not fall over."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from consumer import Context
from consumer.events import ProgramEvent
from tests.conformance.odd_sources import Broken
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed


def _rig(folder: Path, name: str) -> Rig:
    return Rig(
        folder,
        {
            "KIND": f"tests.conformance.odd_sources:{name}",
            "PATH": str(folder / "queue"),
            "VISIBILITY_TIMEOUT": "2s",
            "POLL_WAIT": "0.3",
        },
    )


async def test_a_source_without_leases(tmp_path: Path) -> None:
    """A source that knows no leases needs no renewals, and the worker runs until it is told to stop."""
    rig = _rig(tmp_path, "Leaseless")
    table = effects_table()
    table.on(ProgramEvent)(effect)
    async with rig.worker(table) as app:
        await rig.publish(signed(program(f"e{n}")) for n in range(10))
        await eventually(lambda: len(rig.effects()) == 10)
        await asyncio.sleep(0.3)
        assert not app.worker.stopping
        await rig.publish([signed(program("late"))])
        await eventually(lambda: len(rig.effects()) == 11)
    assert (await rig.depth()).total == 0


@pytest.mark.parametrize("call", ["receive", "acknowledge", "extend", "release"])
async def test_a_source_with_bugs(tmp_path: Path, call: str) -> None:
    """Whatever call of an adapter raises what it must not, twice: every event takes effect once, and leaves."""
    rig = _rig(tmp_path, "Broken")
    table = effects_table()
    failed: set[str] = set()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        if call == "release" and event.event_id not in failed:
            failed.add(event.event_id)
            raise RuntimeError
        if call == "extend":
            await asyncio.sleep(2.5)
        await effect(event, context)

    names = [f"e{n}" for n in range(3)]
    await rig.publish(signed(program(one)) for one in names)
    Broken.failing[call] = 2
    async with rig.worker(table) as app:
        await eventually(lambda: len(rig.effects()) == 3)
        await eventually(lambda: not app.worker.intakes[0].held)
        assert not app.worker.stopping
    Broken.failing[call] = 0
    await rig.consume(table)
    assert rig.effects() == Counter(names)
    assert (await rig.depth()).total == 0
