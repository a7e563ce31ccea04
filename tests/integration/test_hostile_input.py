"""What a sender to the queue without a secret can do: little to the disk, and nothing to honest traffic."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from consumer.events import ProgramEvent
from consumer.sources.base import Outgoing
from tests.conformance.rig import Rig, effect, effects_table, program, signed


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The local queue, which has lanes and headers of any size."""
    return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue"), "LANE_ON_DEAD_LETTER": "park"})


@pytest.mark.parametrize("forged", [b"{}", b"garbage", signed(program("forged"), secret="guessed")])
async def test_a_forged_message_does_not_park_a_lane(rig: Rig, forged: bytes) -> None:
    """A lane is parked behind an event that was put aside, not behind what was never an event."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    await rig.publish([signed(program("first"))])
    await rig.publish([Outgoing(forged, ordering_key="a"), Outgoing(signed(program("honest")), ordering_key="a")])
    await rig.consume(table)
    assert rig.effects() == Counter(["first", "honest"])
    assert (await rig.depth()).total == 0


async def test_garbage_does_not_fill_the_disk(rig: Rig) -> None:
    """What cannot be read and was not signed is kept up to the quota, like what was forged; honest events all are."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    await rig.publish([signed(program("first"))])
    await rig.publish([b"garbage" * 1000 for _ in range(40)])
    await rig.publish([signed('{"event_id":"k","event_id":"k"}'), signed(program("last"))])
    await rig.consume(table, DEAD_LETTERS__UNPROVEN_LIMIT="50KiB")
    assert rig.effects() == Counter(["first", "last"])
    kept = sum(path.stat().st_size for path in rig.dead_letter_folder.glob("unproven-*"))
    assert 20_000 < kept <= 50 * 1024
    proven = [path for path in rig.dead_letter_folder.glob("*.jsonl") if not path.name.startswith("unproven-")]
    assert sum(len(path.read_bytes().splitlines()) for path in proven) == 1


async def test_an_array_of_nothing_costs_next_to_nothing(rig: Rig) -> None:
    """Three bytes of a forged array are no dead letter of their own, whose headers would be kept a thousand times."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    await rig.publish([signed(program("first"))])
    await rig.publish([Outgoing(b"[" + b",".join([b"{}"] * 1_000) + b"]", headers={"much": "x" * 100_000})])
    await rig.consume(table)
    assert rig.reasons() == Counter(unsigned=1)
    assert sum(path.stat().st_size for path in rig.dead_letter_folder.iterdir()) < 200_000
