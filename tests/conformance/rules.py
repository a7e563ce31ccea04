"""The rules that hold on every queue, as tests of a whole worker. Subclasses say which queue: a fixture `rig`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from consumer import Context, Unavailable
from consumer import intake as intake_module
from consumer.events import ProgramEvent
from consumer.sources.base import Message, Outgoing, SettleFailure
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed

__all__ = ["WorkerConformance"]


def ids(count: int, prefix: str = "e") -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


class WorkerConformance:
    """What every worker does, whatever its queue."""

    ordered: ClassVar[bool] = False
    """Whether the queue keeps order within a key."""
    visibility_timeout: ClassVar[float] = 30.0
    """The rig's; long, so that whatever comes back soon was given back."""

    # 1 Nothing is lost

    async def test_every_event_takes_effect(self, rig: Rig) -> None:
        """What is published is handled, all of it, and the queue is empty afterwards."""
        table = effects_table()
        table.on(ProgramEvent)(effect)
        await rig.publish(signed(program(one)) for one in ids(40))
        await rig.consume(table)
        assert rig.effects() == Counter(ids(40))
        assert rig.reasons() == Counter()
        assert (await rig.depth()).total == 0

    async def test_acks_follow_what_is_durable(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the queue is told that a delivery is done, its inbox row is committed or its dead letter synced."""
        table = effects_table()
        table.on(ProgramEvent)(effect)
        forged = [_tampered(f"forged{n}") for n in range(3)]
        await rig.publish([*(signed(program(one)) for one in ids(15)), *forged])
        synced = _synced_sizes(monkeypatch)
        early: list[bytes] = []
        async with rig.worker(table) as app:
            source = app.worker.intakes[0].source
            acknowledge = source.acknowledge

            async def watched(messages: Sequence[Message]) -> list[SettleFailure]:
                committed = rig.effects()
                kept = _synced_messages(rig.dead_letter_folder, synced)
                bodies = [message.body for message in messages]
                early.extend(body for body in bodies if _event_id(body) not in committed and body not in kept)
                return await acknowledge(messages)

            monkeypatch.setattr(source, "acknowledge", watched)
            await eventually(lambda: len(rig.effects()) == 15 and rig.reasons().total() == 3)
            await eventually(lambda: app.worker.intakes[0].receiver.empty_since and not app.worker.intakes[0].held)
        assert early == []
        assert rig.effects() == Counter(ids(15))
        assert rig.reasons() == Counter(bad_signature=3)
        assert rig.rows("SELECT count(*) FROM consumer_inbox") == [(15,)]

    # 2 Nothing unproven gets in

    async def test_nothing_unproven_reaches_a_handler(self, rig: Rig) -> None:
        """Forged, unsigned, stale, early, ambiguous and unreadable messages become dead letters; the rest goes on."""
        table = effects_table()
        table.on(ProgramEvent)(effect)
        now = datetime.now(UTC)
        honest = signed(program("honest"))
        bad = {
            _tampered("tampered"): "bad_signature",
            signed(program("foreign"), secret="not the secret"): "bad_signature",
            _without_signature("unsigned"): "unsigned",
            signed(program("old"), signed_at=now - timedelta(days=4)): "stale",
            signed(program("early"), signed_at=now + timedelta(hours=1)): "stale",
            _with_second_body("ambiguous"): "unreadable",
            b"hello": "unreadable",
            _neutral(_without_signature("wrapped")): "unsigned",
        }
        await rig.publish([*list(bad)[:4], honest, *list(bad)[4:]])
        await rig.consume(table)
        assert rig.effects() == Counter(["honest"])
        found = {record["message"].encode(): record for record in rig.dead_letters()}
        assert {raw: record["reason"] for raw, record in found.items()} == bad
        assert all(record["event_id"] is None for record in found.values())
        assert (await rig.depth()).total == 0

    # 3 Once in effect

    async def test_duplicates_take_effect_once(self, rig: Rig) -> None:
        """The same event three times, in hand together or not, with handlers that fail at random: one effect."""
        dice = random.Random(7)
        table = effects_table()

        @table.on(ProgramEvent)
        async def sometimes(event: ProgramEvent, context: Context) -> None:
            await effect(event, context)
            await asyncio.sleep(0)
            if dice.random() < 0.3:
                raise RuntimeError

        messages = [signed(program(one)) for one in ids(20)] * 3
        dice.shuffle(messages)
        await rig.publish(messages)
        app = await rig.consume(table, MAX_ATTEMPTS="50")
        assert rig.effects() == Counter(ids(20))
        assert rig.reasons() == Counter()
        assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]
        assert app.metrics.registry.get_sample_value("health_consumer_duplicates_total", {"source": "labs"}) == 40

    async def test_the_same_id_with_another_body(self, rig: Rig) -> None:
        """A second event under an id that took effect is a dead letter, and has no effect."""
        table = effects_table()
        table.on(ProgramEvent)(effect)
        await rig.publish([signed(program("one"))])
        await rig.consume(table)
        await rig.publish([signed(program("one", more=1))])
        await rig.consume(table)
        assert rig.effects() == Counter(["one"])
        assert rig.reasons() == Counter(conflicting_duplicate=1)

    # 4 Bounded

    async def test_never_more_than_max_in_flight(self, rig: Rig) -> None:
        """No more deliveries are taken off the queue than `max_in_flight`, and no more bytes than allowed."""
        table = effects_table()
        gate = asyncio.Event()
        most = [0, 0]

        @table.on(ProgramEvent)
        async def waiting(event: ProgramEvent, context: Context) -> None:
            await gate.wait()
            await effect(event, context)

        await rig.publish(signed(program(one, pad="x" * 3000)) for one in ids(40))
        changes = {"MAX_IN_FLIGHT": "20", "MAX_IN_FLIGHT_BYTES": "40000", "MAX_MESSAGE_BYTES": "40000"}
        async with rig.worker(table, **changes) as app:
            intake = app.worker.intakes[0]

            def note() -> None:
                most[0] = max(most[0], len(intake.held))
                most[1] = max(most[1], sum(held.size for held in intake.held if held.permit))

            for _ in range(150):
                await asyncio.sleep(0.01)
                note()
            assert intake.held
            gate.set()

            def done() -> bool:
                note()
                return len(rig.effects()) == 40

            await eventually(done)
        assert most[0] <= 20
        assert most[1] <= 40_000
        assert rig.effects() == Counter(ids(40))

    # 5 Leaves cleanly

    async def test_stopping_finishes_what_runs(self, rig: Rig) -> None:
        """A stop waits for running handlers, whose events take effect and leave the queue."""
        table = effects_table()
        started: list[str] = []

        @table.on(ProgramEvent)
        async def slow(event: ProgramEvent, context: Context) -> None:
            started.append(event.event_id)
            await asyncio.sleep(0.6)
            await effect(event, context)

        await rig.publish(signed(program(one)) for one in ids(5))
        async with rig.worker(table):
            await eventually(lambda: started)
        assert set(started) <= set(rig.effects())
        assert len(rig.effects()) + (await rig.depth()).visible == 5
        assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]

    async def test_stopping_gives_the_rest_back_at_once(self, rig: Rig) -> None:
        """What is not done when the drain ends can be received at once, by anybody, and no attempt was counted."""
        table = effects_table()
        started: list[str] = []

        @table.on(ProgramEvent, max_concurrency=2)
        async def stuck(event: ProgramEvent, context: Context) -> None:
            await effect(event, context)
            started.append(event.event_id)
            await asyncio.sleep(3600)

        await rig.publish(signed(program(one)) for one in ids(10))
        async with rig.worker(table, DRAIN_TIMEOUT="1s", SOURCES__LABS__POLL_WAIT="1") as app:
            await eventually(lambda: started and len(app.worker.intakes[0].held) == 10)
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 4
        depth = await rig.depth()
        assert (depth.visible, depth.invisible) == (10, 0)
        assert rig.effects() == Counter()
        assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]
        attempts: list[int] = []
        again = effects_table()

        @again.on(ProgramEvent)
        async def noting(event: ProgramEvent, context: Context) -> None:
            attempts.append(context.delivery.attempt)
            await effect(event, context)

        await rig.consume(again)
        assert rig.effects() == Counter(ids(10))
        assert set(attempts) == {1}

    async def test_a_poll_under_way_strands_nothing(self, rig: Rig) -> None:
        """A message that arrives while the worker stops is handled or can be received at once."""
        table = effects_table()
        table.on(ProgramEvent)(effect)
        async with rig.worker(table) as app:
            await eventually(lambda: app.worker.intakes[0].receiver.empty_since)
            app.worker.stop()
            await rig.publish([signed(program("late"))])
        depth = await rig.depth()
        assert depth.invisible == 0
        assert depth.visible + rig.effects()["late"] == 1

    # 7 Own trouble is not the message's fault

    async def test_trouble_pauses_and_passes(self, rig: Rig) -> None:
        """While handlers say Unavailable the source pauses; later all is handled and nobody was blamed."""
        table = effects_table()
        gone = True
        calls = 0

        @table.on(ProgramEvent)
        async def needs_another(event: ProgramEvent, context: Context) -> None:
            nonlocal calls
            calls += 1
            if gone:
                raise Unavailable
            await effect(event, context)

        await rig.publish(signed(program(one)) for one in ids(30))
        async with rig.worker(table, MAX_ATTEMPTS="2") as app:
            intake = app.worker.intakes[0]
            await eventually(intake.paused.is_set)
            assert "paused" in (app.worker.not_ready() or "")
            await eventually(lambda: not intake.held, what="held messages given back")
            await asyncio.sleep(1.5)
            made = calls
            assert made < 60
            gone = False
            await eventually(lambda: len(rig.effects()) == 30)
            assert app.worker.not_ready() is None
        assert rig.effects() == Counter(ids(30))
        assert rig.reasons() == Counter()
        assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]

    async def test_wrong_secrets_dead_letter_next_to_nothing(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        """With every signature wrong the source pauses at 20; once the secret is right the rest is handled."""
        monkeypatch.setattr(intake_module, "_SUSPECT_DELAY", 1.0)
        table = effects_table()
        table.on(ProgramEvent)(effect)
        await rig.publish(signed(program(one), secret="the new one") for one in ids(50))
        async with rig.worker(table) as app:
            intake = app.worker.intakes[0]
            await eventually(lambda: intake.paused.is_set() and not intake.held)
            assert rig.reasons() == Counter(bad_signature=20)
            signature = type(intake.route.signature)(secrets=["the new one"])
            intake.route.signature = signature
            intake.secrets_changed()
            await eventually(lambda: len(rig.effects()) == 30)
        assert rig.reasons() == Counter(bad_signature=20)

    # Order

    async def test_a_lane_runs_in_order(self, rig: Rig) -> None:
        """Events of one lane take effect one at a time, in order, although some fail at first."""
        table = effects_table()
        running: Counter[str | None] = Counter()
        most: Counter[str | None] = Counter()
        failed: set[str] = set()

        @table.on(ProgramEvent)
        async def noting(event: ProgramEvent, context: Context) -> None:
            lane = context.delivery.ordering_key
            running[lane] += 1
            most[lane] = max(most[lane], running[lane])
            try:
                await effect(event, context)
                await asyncio.sleep(0.002)
                if event.event_id.endswith(("2", "5")) and event.event_id not in failed:
                    failed.add(event.event_id)
                    raise RuntimeError
            finally:
                running[lane] -= 1

        lanes = ["a", "b", "c"]
        await rig.publish(
            Outgoing(signed(program(f"{lane}{n}")), ordering_key=lane) for n in range(8) for lane in lanes
        )
        await rig.consume(table)
        order = [row[0] for row in rig.rows("SELECT event_id FROM effects ORDER BY id")]
        assert Counter(order) == Counter(f"{lane}{n}" for n in range(8) for lane in lanes)
        if self.ordered:
            for lane in lanes:
                assert [one for one in order if one[0] == lane] == [f"{lane}{n}" for n in range(8)]
                assert most[lane] == 1


def _event_id(raw: bytes) -> str | None:
    try:
        return str(json.loads(json.loads(raw)["body"])["event_id"])
    except (ValueError, KeyError, TypeError):
        return None


def _tampered(event_id: str) -> bytes:
    return signed(program(event_id)).replace(b"program.updated", b"program.Updated")


def _without_signature(event_id: str) -> bytes:
    envelope = json.loads(signed(program(event_id)))
    del envelope["signature"]
    return json.dumps(envelope).encode()


def _with_second_body(event_id: str) -> bytes:
    honest = signed(program(event_id))
    return honest[:-1] + b',"body":' + json.dumps(json.dumps(program("other"))).encode() + b"}"


def _neutral(raw: bytes) -> bytes:
    from consumer.envelope import wrap_neutral

    return wrap_neutral(provider="thrive", body=raw, headers={}, received_at=datetime.now(UTC))


def _synced_sizes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How much of each file has been synced, kept up to date by listening to `os.fsync` and `os.fdatasync`."""
    sizes: dict[str, int] = {}

    def listening(call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(handle: int) -> None:
            path = str(Path(f"/proc/self/fd/{handle}").readlink())
            size = os.fstat(handle).st_size
            call(handle)
            sizes[path] = max(size, sizes.get(path, 0))

        return sync

    monkeypatch.setattr(os, "fsync", listening(os.fsync))
    monkeypatch.setattr(os, "fdatasync", listening(os.fdatasync))
    return sizes


def _synced_messages(folder: Path, synced: dict[str, int]) -> set[bytes]:
    found = set()
    for file in folder.glob("*.jsonl"):
        data = file.read_bytes()[: synced.get(str(file), 0)]
        found |= {json.loads(line)["message"].encode() for line in data.splitlines()}
    return found
