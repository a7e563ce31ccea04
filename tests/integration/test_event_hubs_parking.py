"""Events of a hub that must wait long: kept in the database, so that the checkpoint can pass, and run from there."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer import Context, DispatchTable, Reject, Retry
from consumer import partitions as partitions_module
from consumer.errors import DatabaseUnavailable
from consumer.events import ProgramEvent
from consumer.parked import ParkedEvents
from consumer.sources import event_hubs_parking as parking_module
from tests.conformance.rig import Rig, effect, effects_table, eventually
from tests.emulators.event_hubs import EventHubsEmulator
from tests.faults.harness_azure import CheckpointWatch, change, events, hurry, logged, opened_hub
from tests.servers.azurite import Azurite

PARKED = "SELECT message_id FROM consumer_parked ORDER BY position"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look often for what others, here the test itself, have done to the table."""
    monkeypatch.setattr(parking_module, "_LOOK_EVERY", 0.2)


def _table(*late: str, seconds: float = 3600) -> DispatchTable:
    """Handlers that write an effect, but for these events ask for more time at the first attempt."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handle(event: ProgramEvent, context: Context) -> None:
        if event.event_id in late and context.delivery.attempt == 1:
            raise Retry(delay=seconds)
        await effect(event, context)

    return table


def _fill(hub: EventHubsEmulator, *names: str) -> None:
    """Put events into partition 0, each under the key that its name begins with."""
    keys = [name.split("-")[0] for name in names]
    hub.fill("events", events(names), partition="0", key=lambda number: keys[number])


def _parked(rig: Rig) -> list[str]:
    """The sequence numbers of what is parked, in order."""
    return [row[0].split("-")[1] for row in rig.rows(PARKED)]


def _order(rig: Rig, lane: str) -> list[str]:
    """The effects of a lane, in the order in which they took place."""
    return [row[0] for row in rig.rows("SELECT event_id FROM effects ORDER BY id") if row[0].startswith(f"{lane}-")]


async def test_a_long_retry_is_parked_and_runs_in_its_time(tmp_path: Path, azurite: Azurite) -> None:
    """An event that asks for an hour waits in the database, with those of its lane behind it; others go on.

    The checkpoint passes it only when it is there; any worker runs it when its time has come, then its followers.
    """
    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        _fill(hub, "a-0", "b-0", "a-1", "b-1", "a-2", "b-2")
        early: list[int] = []

        async def note_early_checkpoints() -> None:
            while True:
                # First the checkpoint, then the table: what the one has passed, the other must hold.
                passed = (await watch.look()).get("0", -1)
                if passed >= 0 and "0" not in _parked(rig):
                    early.append(passed)
                await asyncio.sleep(0.01)

        noting = asyncio.create_task(note_early_checkpoints())
        async with rig.worker(_table("a-0")) as app:
            await eventually(lambda: watch.now == {"0": 5}, what="the checkpoint at the end")
            assert _parked(rig) == ["0", "2", "4"]
            assert rig.effects() == Counter(["b-0", "b-1", "b-2"])
            _fill(hub, "a-3", "b-3")
            await eventually(lambda: watch.now == {"0": 7})
            assert _parked(rig) == ["0", "2", "4", "6"]
            assert (await app.worker.intakes[0].source.depth()).delayed == 4
        noting.cancel()
        assert early == []
        async with rig.worker(_table()):
            await asyncio.sleep(1.0)
            assert _order(rig, "a") == []
            _fill(hub, "a-4", "b-4")
            await eventually(lambda: watch.now == {"0": 9})
            assert _parked(rig) == ["0", "2", "4", "6", "8"]
            await hurry(rig)
            await eventually(lambda: rig.effects()["a-4"] and not _parked(rig), what="the lane from the database")
            _fill(hub, "a-5")
            await eventually(lambda: rig.effects()["a-5"], what="the lane from the hub again")
    assert _order(rig, "a") == [f"a-{number}" for number in range(6)]
    assert set(rig.effects().values()) == {1}
    assert rig.rows("SELECT attempt FROM effects WHERE event_id = 'a-0'") == [(2,)]
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


async def test_what_is_finished_above_a_retry_is_bounded(
    tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short retry with too many finished events above it is parked too, so that the checkpoint can go on."""
    monkeypatch.setattr(partitions_module, "MOST_ABOVE_A_RETRY", 50)
    names = [f"{number}-x" for number in range(300)]
    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        _fill(hub, *names)
        async with rig.worker(_table("7-x", seconds=25)):
            await eventually(lambda: watch.now == {"0": 299})
            assert _parked(rig) == ["7"]
            await hurry(rig)
            await eventually(lambda: rig.effects()["7-x"], what="the one that was parked")
    assert rig.effects() == Counter(names)


async def test_parked_to_the_last_attempt(tmp_path: Path, azurite: Azurite) -> None:
    """Attempts in the database count on; the last one leads to a dead letter with all of them, and frees the lane."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handle(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "a-0":
            raise Retry(delay=60)
        await effect(event, context)

    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        _fill(hub, "a-0", "a-1")
        async with rig.worker(table, MAX_ATTEMPTS="3"):
            await eventually(lambda: watch.now == {"0": 1})

            async with asyncio.timeout(15):
                while not rig.effects()["a-1"] or _parked(rig):
                    await hurry(rig)
                    await asyncio.sleep(0.05)
    assert [(one["event_id"], one["reason"], one["attempts"]) for one in rig.dead_letters()] == [
        ("a-0", "attempts_exhausted", 3)
    ]
    assert rig.dead_letters()[0]["message"].startswith('{"signed_at"')


async def test_cut_off_between_parking_and_passing(
    tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ends after it parked and before it knew: the event comes again, and still has one effect."""
    park = ParkedEvents.park

    async def commit_and_fail(self: ParkedEvents, parking: object) -> None:
        await park(self, parking)  # type: ignore[arg-type] # what it was given
        raise DatabaseUnavailable("the reply was lost")

    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        _fill(hub, "b-0", "a-0", "a-1", "b-1")
        monkeypatch.setattr(ParkedEvents, "park", commit_and_fail)
        async with rig.worker(_table("a-0")):
            await eventually(lambda: _parked(rig) == ["1", "2"])
            await eventually(lambda: rig.effects() == Counter(["b-0", "b-1"]))
            await asyncio.sleep(0.5)
            assert watch.now == {"0": 0}
        monkeypatch.setattr(ParkedEvents, "park", park)
        async with rig.worker(_table()):
            await eventually(lambda: watch.now == {"0": 3})
            await hurry(rig)
            await eventually(lambda: rig.effects()["a-1"] and not _parked(rig))
    assert rig.effects() == Counter(["a-0", "a-1", "b-0", "b-1"])
    assert _order(rig, "a") == ["a-0", "a-1"]


async def test_the_table_is_away_while_events_must_be_parked(tmp_path: Path, azurite: Azurite) -> None:
    """While nothing can be parked it is kept, the checkpoint waits below it, and others go on; then it is parked."""
    async with opened_hub(tmp_path, azurite) as (hub, rig), CheckpointWatch(rig) as watch:
        async with rig.worker(_table("a-1", "c-0")):
            _fill(hub, "b-0")
            await eventually(lambda: rig.effects()["b-0"])
            await change(rig, "ALTER TABLE consumer_parked RENAME TO elsewhere")
            with capture_logs() as logs:
                _fill(hub, "a-0", "a-1", "a-2", "b-1", "c-0")
                await eventually(lambda: rig.effects()["b-1"], what="the others")
                await eventually(lambda: len(logged(logs, "not_parked")) > 1)
                await eventually(lambda: watch.now == {"0": 1})
                await asyncio.sleep(0.5)
                assert watch.now == {"0": 1}
            await change(rig, "ALTER TABLE elsewhere RENAME TO consumer_parked")
            await eventually(lambda: watch.now == {"0": 5}, within=20)
            assert _parked(rig) == ["2", "3", "5"]
        async with rig.worker(_table()):
            await hurry(rig)
            await eventually(lambda: not _parked(rig))
    assert rig.effects() == Counter(["a-0", "a-1", "a-2", "b-0", "b-1", "c-0"])
    assert _order(rig, "a") == ["a-0", "a-1", "a-2"]
    assert rig.reasons() == Counter()


@pytest.mark.thorough
async def test_many_followers(tmp_path: Path, azurite: Azurite) -> None:
    """One lane with a long backlog behind a parked head: all of it is parked, nothing else stops; it runs in order."""
    backlog = [f"a-{number:04}" for number in range(600)]
    async with opened_hub(tmp_path, azurite, PREFETCH="100") as (hub, rig), CheckpointWatch(rig) as watch:
        _fill(hub, *backlog, "b-0")
        async with rig.worker(_table("a-0000")):
            await eventually(lambda: watch.now == {"0": 600}, within=30)
            assert len(_parked(rig)) == 600
            assert rig.effects() == Counter(["b-0"])
            await hurry(rig)
            await eventually(lambda: rig.effects()["a-0020"], within=30)
        assert _order(rig, "a")[:20] == backlog[:20]


async def test_the_rest_of_a_lane_after_a_dead_letter(tmp_path: Path, azurite: Azurite) -> None:
    """With lane_on_dead_letter = park the followers of a dead letter are parked, and the checkpoint passes them."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handle(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "a-1":
            raise Reject("never")
        await effect(event, context)

    park = {"LANE_ON_DEAD_LETTER": "park"}
    async with opened_hub(tmp_path, azurite, **park) as (hub, rig), CheckpointWatch(rig) as watch:
        _fill(hub, "a-0", "b-0", "a-1", "a-2", "b-1", "a-3")
        async with rig.worker(table):
            await eventually(lambda: watch.now == {"0": 5})
            assert rig.effects() == Counter(["a-0", "b-0", "b-1"])
            assert _parked(rig) == ["3", "5"]
            await hurry(rig)
            await asyncio.sleep(1)
            assert rig.effects() == Counter(["a-0", "b-0", "b-1"])
        assert _parked(rig) == ["3", "5"]
    assert rig.reasons() == Counter(rejected=1)
