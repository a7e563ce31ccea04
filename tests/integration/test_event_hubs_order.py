"""What a hub's source keeps in order: events of one key, of a partition, or of one member, however heads fail."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from consumer import Context, DispatchTable, Retry
from consumer.events import ProgramEvent
from consumer.sources import event_hubs_parking as parking_module
from tests.conformance.rig import effect, effects_table, eventually, program, signed
from tests.emulators.event_hubs import EventHubsEmulator
from tests.faults.harness_azure import CheckpointWatch, hurry, opened_hub
from tests.servers.azurite import Azurite


class _Log:
    """What a lane's handlers did: never two of a lane at once."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.together = 0

    @contextlib.contextmanager
    def entered(self, lane: str) -> contextlib.AbstractContextManager[None]:
        """While a handler of this lane runs."""
        self.running[lane] += 1
        self.together = max(self.together, self.running[lane])
        try:
            yield
        finally:
            self.running[lane] -= 1


def _lane(event_id: str) -> str:
    return event_id.split("-", maxsplit=1)[0]


def _unreliable(log: _Log, dice: random.Random) -> DispatchTable:
    """Handlers that take a while and fail: briefly, at random, and sometimes for so long that the event is parked."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handle(event: ProgramEvent, context: Context) -> None:
        with log.entered(_lane(event.event_id)):
            await effect(event, context)
            await asyncio.sleep(0)
            fate = dice.random()
            if context.delivery.attempt < 4:
                if fate < 0.1:
                    raise RuntimeError
                if fate < 0.2:
                    raise Retry(delay=0.05)
                if fate < 0.24:
                    raise Retry(delay=0)
                if fate < 0.28:
                    raise Retry(delay=40)

    return table


def _by_lane(names: list[str]) -> dict[str, list[str]]:
    lanes = defaultdict(list)
    for name in names:
        lanes[_lane(name)].append(name)
    return dict(lanes)


def _fill(hub: EventHubsEmulator, order_by: str, count: int, start: int = 0) -> list[str]:
    """So many events of six lanes, in turn; the names begin with the lane that is asked for."""
    names = []
    for number in range(start, start + count):
        lane = number % 6
        # A member's events come under two keys and without one, as if several senders wrote of it.
        key = {"key": f"key {lane}", "partition": None, "member": (None, f"x{lane}", f"y{lane}")[number // 6 % 3]}[
            order_by
        ]
        partition = str(lane % 2)
        name = f"{partition if order_by == 'partition' else lane}-{number:03}"
        body = signed(program(name, user_id=f"u{lane}"))
        hub.fill("events", [body], partition=partition, key=lambda _, key=key: key)
        names.append(name)
    return names


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look often for what others, here the test itself, have done to the table."""
    monkeypatch.setattr(parking_module, "_LOOK_EVERY", 0.2)


@pytest.mark.parametrize(
    "order_by",
    ["member", *(pytest.param(one, marks=pytest.mark.thorough) for one in ("key", "partition"))],
)
async def test_order_with_failing_heads(tmp_path: Path, azurite: Azurite, order_by: str) -> None:
    """Each lane's effects are in order and one at a time, over retries here and in the database and two workers."""
    dice, log = random.Random(order_by), _Log()
    table = _unreliable(log, dice)
    settings = {"ORDER_BY": order_by}
    async with opened_hub(tmp_path, azurite, partitions=2, **settings) as (hub, rig), CheckpointWatch(rig) as watch:
        names = _fill(hub, order_by, 72)

        async def until(count: int) -> None:
            async with asyncio.timeout(40):
                while len(rig.effects()) < count:
                    await hurry(rig)
                    await asyncio.sleep(0.05)

        async with rig.worker(table, MAX_ATTEMPTS="9"):
            await eventually(lambda: rig.rows("SELECT 1 FROM consumer_parked"))
            await until(30)
        async with rig.worker(table, MAX_ATTEMPTS="9"):
            names += _fill(hub, order_by, 36, start=72)
            await until(len(names))
            await eventually(lambda: sum(watch.now.values()) == len(names) - 2)
    found = [row[0] for row in rig.rows("SELECT event_id FROM effects ORDER BY id")]
    assert _by_lane(found) == _by_lane(names)
    assert log.together == 1
    assert rig.reasons() == Counter()
    assert rig.rows("SELECT count(*) FROM consumer_parked") == [(0,)]
