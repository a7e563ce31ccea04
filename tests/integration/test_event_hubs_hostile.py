"""What a hub may hold or become that would lose events, stop a partition, or fill memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from consumer import Context, Retry, recovery
from consumer.dispatch import DispatchTable
from consumer.events import ProgramEvent
from consumer.outcomes import Unavailable
from consumer.sources.event_hubs import EventHubsSource
from consumer.worker import WorkerFailed
from tests.conformance.rig import effect, effects_table, eventually, program, signed
from tests.emulators import amqp_codec
from tests.emulators.event_hubs import EventHubsEmulator
from tests.faults.harness_azure import events, hub_rig, hurry, opened_hub
from tests.servers.azurite import Azurite

_CHAR = amqp_codec.Opaque(0x73, b"\0\0\0A")
_NO_TYPE = amqp_codec.Opaque(0x9F, b"")
"""A constructor that AMQP does not have."""
_LARGE = 700_000


def _plain() -> DispatchTable:
    table = effects_table()
    table.on(ProgramEvent)(effect)
    return table


async def test_parts_that_the_sdk_cannot_decode(tmp_path: Path, azurite: Azurite) -> None:
    """A property of a type the SDK does not know does no harm; what nobody can decode is put aside."""
    async with opened_hub(tmp_path, azurite) as (hub, rig):
        hub.fill("events", events(["a"]), partition="0")
        hub.fill("events", events(["b"]), partition="0", properties={"letter": _CHAR})
        hub.fill("events", events(["broken"]), partition="0", properties={"nothing": _NO_TYPE})
        hub.fill("events", events(["c"]), partition="0")
        async with rig.worker(_plain()):
            await eventually(lambda: rig.effects() == Counter("abc") and rig.reasons() == Counter(unreadable=1))


async def test_a_hub_made_anew(tmp_path: Path, azurite: Azurite) -> None:
    """The checkpoint of another hub of that name is not applied: its partitions are refused, however far they grow."""
    async with EventHubsEmulator(hubs={"events": 1}) as hub:
        rig = await hub_rig(tmp_path, hub, azurite)
        hub.fill("events", events(f"old{n}" for n in range(5)), partition="0")
        await rig.consume(_plain())
        port = hub.port
    await asyncio.sleep(0.01)  # it was made at another millisecond
    async with EventHubsEmulator(hubs={"events": 1}, port=port) as hub:
        hub.fill("events", events(f"new{n}" for n in range(3)), partition="0")
        assert (await rig.depth()).visible == 3
        hub.fill("events", events(f"more{n}" for n in range(20)), partition="0")
        assert (await rig.depth()).visible == 23
        with pytest.raises(WorkerFailed, match=r"checkpoint of partition 0 is of another hub of this name"):
            await rig.consume(_plain())
    assert rig.effects() == Counter(f"old{n}" for n in range(5))


async def test_what_is_parked_does_not_run_from_the_hub_too(tmp_path: Path, azurite: Azurite) -> None:
    """An event that is in the database before its checkpoint is written waits there, though the hub brings it again."""
    async with opened_hub(tmp_path, azurite, CHECKPOINTS__INTERVAL="60") as (hub, rig):
        hub.fill("events", events(["e"]), partition="0")
        table = effects_table()
        attempts: list[int] = []

        @table.on(ProgramEvent)
        async def later(event: ProgramEvent, context: Context) -> None:
            attempts.append(context.delivery.attempt)
            raise Retry(3600.0)

        for _ in range(3):
            async with rig.worker(table) as app:
                source = app.worker.intakes[0].source
                assert isinstance(source, EventHubsSource)
                await eventually(lambda: rig.rows("SELECT count(*) FROM consumer_parked") == [(1,)])
                await eventually(lambda source=source: source._ownerships and source._ownerships.owned)
                assert source._ownerships is not None
                owned = source._ownerships.owned["0"]
                await eventually(lambda owned=owned: owned.partition.watermark.position == (0, owned_offset(hub)))
                owned.checkpoint.lost = True  # it ends without having written one
        assert attempts == [1]
        await hurry(rig)
        await rig.consume(_plain())
        assert rig.effects() == Counter(["e"])


def owned_offset(hub: EventHubsEmulator) -> str:
    """The offset of the only event."""
    return str(hub.log.hub("events").partitions[0].events[0].offset)


async def test_memory_follows_bytes(tmp_path: Path, azurite: Azurite) -> None:
    """Of large events the SDK holds far fewer than `prefetch` while nothing is handled, as the room for bytes says."""
    async with opened_hub(tmp_path, azurite, MAX_IN_FLIGHT_BYTES="4MiB", MAX_MESSAGE_BYTES="1MiB") as (hub, rig):
        hub.fill("events", events((f"e{n}" for n in range(100)), pad="x" * _LARGE), partition="0")
        table = effects_table()
        gate = asyncio.Event()

        @table.on(ProgramEvent)
        async def waiting(event: ProgramEvent, context: Context) -> None:
            await gate.wait()
            await effect(event, context)

        async with rig.worker(table) as app:
            source = app.worker.intakes[0].source
            assert isinstance(source, EventHubsSource)
            await eventually(lambda: app.worker.intakes[0].held)
            await asyncio.sleep(2.0)
            assert source._ownerships is not None
            assert source._ownerships.owned["0"].partition.waiting_bytes < 8 * 1024 * 1024
            assert hub.stats()["hubs"]["events"]["0"]["delivered"] < 60
            gate.set()
            await eventually(lambda: len(rig.effects()) == 100, within=40)


async def test_a_look_for_expiring_events_keeps_a_members_order(
    tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause in which the source is looked through for what may expire does not change the order of a member."""
    monkeypatch.setattr(recovery, "_SWEEP_EVERY", timedelta(seconds=1))
    monkeypatch.setattr(recovery, "_SWEEP_BATCHES", 2)
    more = {"ORDER_BY": "member", "RETENTION": "1h", "MAX_IN_FLIGHT": "40"}
    async with opened_hub(tmp_path, azurite, **more) as (hub, rig):
        table = effects_table()
        down = True

        @table.on(ProgramEvent)
        async def needs_another(event: ProgramEvent, context: Context) -> None:
            if down:
                raise Unavailable(retry_after=3)
            await effect(event, context)

        bodies = [signed(program(f"e{n:03}", user_id="same" if n >= 12 else f"m{n}")) for n in range(80)]
        hub.fill("events", bodies, partition="0")
        async with rig.worker(table) as app:
            await eventually(app.worker.intakes[0].paused.is_set)
            await asyncio.sleep(1.5)
            down = False
            await eventually(lambda: len(rig.effects()) == 80, within=40)
    order = [row[0] for row in rig.rows("SELECT event_id FROM effects ORDER BY id") if row[0] >= "e012"]
    assert order == sorted(order)


async def test_until_idle_ends_on_what_a_person_must_mend(tmp_path: Path, azurite: Azurite) -> None:
    """A consumer group that does not exist ends `run --until-idle` with one line that names it."""
    async with opened_hub(tmp_path, azurite, CONSUMER_GROUP="nobodys") as (hub, rig):
        hub.fill("events", events(["a"]), partition="0")
        with pytest.raises(WorkerFailed, match="no such event hub or consumer group nobodys"):
            await rig.consume(_plain())
    assert rig.effects() == Counter()
