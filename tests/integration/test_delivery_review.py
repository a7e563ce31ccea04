"""What delivery means at its edges: expiry, order, attempts, stops and twins, on the real queue and database."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from consumer import Context, Reject, Unavailable
from consumer import alone as alone_module
from consumer import database as database_module
from consumer import intake as intake_module
from consumer import recovery as recovery_module
from consumer.app import App
from consumer.database import Database
from consumer.events import LabResultEvent, ProgramEvent
from consumer.sources.base import Depth, Message, Outgoing
from consumer.sources.local import LocalSource
from tests.conformance.rig import Rig, effect, effects_table, eventually, lab_result, nothing_stray, program, signed


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The local queue."""
    return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue"), "POLL_WAIT": "0.3"})


class Guessing(LocalSource):
    """A queue whose counters lag behind, as those of SQS do, and whose first answer takes its time."""

    async def receive(self, limit: int) -> list[Message]:
        await asyncio.sleep(0.6)
        return await super().receive(limit)

    async def depth(self) -> Depth:
        return Depth(0)


class Partition(LocalSource):
    """A queue that is one lane, and hands out all of it, as a partition of an event hub does."""

    async def receive(self, limit: int) -> list[Message]:
        messages = await super().receive(limit)
        for message in messages:
            message.ordering_key = "a"
        return messages


def _counted(rig: Rig) -> list[Any]:
    return rig.rows("SELECT failures, starts, dead_lettered FROM consumer_attempts")


# A queue never deletes an event behind our back


async def test_nothing_expires_behind_a_wrong_secret(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is paused for its signatures still puts aside what its queue is about to delete."""
    monkeypatch.setattr(recovery_module, "_SWEEP_DELAY", 0.2)
    monkeypatch.setattr(intake_module, "_SUSPECT_DELAY", 0.5)
    table = effects_table()
    table.on(ProgramEvent)(effect)
    async with rig.worker(table, SOURCES__LABS__OPTIONS__RETENTION="5s") as app:
        await rig.publish(signed(program(f"e{n}"), secret="the new one") for n in range(30))
        await eventually(lambda: not app.worker.intakes[0].breaker.closed)
        await eventually(lambda: sum(rig.reasons().values()) == 30, within=10)
    assert rig.reasons() == Counter(bad_signature=20, expiring=10)


async def test_a_sweep_goes_on_while_it_finds_what_expires(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages are about to be deleted at once, none of them is."""
    monkeypatch.setattr(recovery_module, "_SWEEP_BATCHES", 1)
    table = effects_table()

    @table.on(ProgramEvent)
    async def gone(event: ProgramEvent, context: Context) -> None:
        raise Unavailable(60.0)

    async with rig.worker(table, SOURCES__LABS__OPTIONS__RETENTION="3s") as app:
        await rig.publish([signed(program("first"))])
        await eventually(lambda: not app.worker.intakes[0].breaker.closed)
        await rig.publish(signed(program(f"e{n}")) for n in range(100))
        await eventually(lambda: rig.reasons()["expiring"] == 101, within=8)


async def test_nothing_expires_in_a_parked_lane(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that wait in a parked lane are put aside before their queue deletes them."""
    monkeypatch.setattr(intake_module, "PARKED_DELAY", 0.5)
    table = effects_table()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "bad":
            raise Reject("never")
        await effect(event, context)

    rig.changes |= {"SOURCES__LABS__OPTIONS__RETENTION": "4s", "SOURCES__LABS__LANE_ON_DEAD_LETTER": "park"}
    async with rig.worker(table):
        await rig.publish(Outgoing(signed(program(one)), ordering_key="a") for one in ("bad", "e1", "e2", "e3"))
        await eventually(lambda: rig.reasons() == Counter(rejected=1, expiring=3), within=8)
    assert rig.effects() == Counter()


# Order


async def test_a_long_lane_of_ignored_events(rig: Rig) -> None:
    """Two hundred followers that need no handler do not bury the worker under each other."""
    table = effects_table()
    table.ignore(LabResultEvent)
    gate = asyncio.Event()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        await gate.wait()
        await effect(event, context)

    rig.source = {**rig.source, "KIND": "tests.integration.test_delivery_review:Partition"}
    await rig.publish([signed(program("head")), *(signed(lab_result(f"f{n}")) for n in range(199))])
    async with rig.worker(table, MAX_MESSAGE_BYTES="64KiB") as app:
        intake = app.worker.intakes[0]
        await eventually(lambda: len(intake.held) == 200)
        gate.set()
        await eventually(lambda: not intake.held)
        assert intake.breaker.closed
    assert rig.effects() == Counter(["head"])
    assert (await rig.depth()).total == 0


# Receiving


async def test_a_source_that_does_not_wait_is_not_asked_without_pause(rig: Rig) -> None:
    """With a poll that returns at once an empty queue is looked at a few times a second, not thousands."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    asked = 0
    async with rig.worker(table, DRAIN_TIMEOUT="0", SOURCES__LABS__POLL_WAIT="0") as app:
        source = app.worker.intakes[0].source
        receive = source.receive

        async def counted(limit: int) -> list[Message]:
            nonlocal asked
            asked += 1
            return await receive(limit)

        source.receive = counted  # type: ignore[method-assign] # only counts
        await asyncio.sleep(1.0)
        await rig.publish([signed(program("late"))])
        await eventually(lambda: rig.effects()["late"], within=2)
    assert 1 <= asked < 40


async def test_the_receive_of_a_probe_is_not_a_stuck_one(rig: Rig) -> None:
    """After a pause of any length, the first receive does not turn liveness red."""
    table = effects_table()
    red: list[str] = []

    @table.on(ProgramEvent)
    async def gone(event: ProgramEvent, context: Context) -> None:
        raise Unavailable

    await rig.publish([signed(program("e1"))])
    async with rig.worker(table) as app:
        intake = app.worker.intakes[0]
        await eventually(lambda: not intake.breaker.closed)
        await eventually(lambda: not intake.held)
        intake.receiver.last_answer -= 600
        receive = intake.source.receive

        async def watched(limit: int) -> list[Message]:
            await asyncio.sleep(0)
            red.append(app.worker.not_live() or "")
            return await receive(limit)

        intake.source.receive = watched  # type: ignore[method-assign] # only looks
        await eventually(lambda: red)
    assert set(red) == {""}


async def test_idle_is_not_believed_before_a_receive_came_back_empty(rig: Rig) -> None:
    """Counters of a queue lag: what was published before the start is handled before `--until-idle` ends."""
    rig.source = {**rig.source, "KIND": "tests.integration.test_delivery_review:Guessing"}
    table = effects_table()
    table.on(ProgramEvent)(effect)
    await rig.publish([signed(program("e1"))])
    await rig.consume(table)
    assert rig.effects() == Counter(["e1"])


async def test_a_secret_that_changed_while_the_worker_started(rig: Rig, tmp_path: Path) -> None:
    """Between reading the settings and watching the files no rotation is missed."""
    file = tmp_path / "secrets"
    file.write_text("the old one\n")
    rig.without.add("THRIVE__SIGNATURE__SECRETS")
    rig.changes["THRIVE__SIGNATURE__SECRETS_FILE"] = str(file)
    table = effects_table()
    table.on(ProgramEvent)(effect)
    loaded = rig.load()
    file.write_text("the new one\n")
    with nothing_stray():
        async with App.opened(loaded, table=table, reload=rig.load) as app:
            running = asyncio.create_task(app.worker.run())
            await asyncio.sleep(0.7)
            await rig.publish([signed(program("e1"), secret="the new one")])
            await eventually(lambda: rig.effects() or rig.reasons())
            app.worker.stop()
            await running
    assert rig.effects() == Counter(["e1"])


# Attempts


async def test_duplicates_in_hand_do_not_use_up_the_attempts(rig: Rig) -> None:
    """The same event ten times at once, failing for half a second: tried again later, not ten times at once."""
    table = effects_table()
    begun = 0.0

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        nonlocal begun
        begun = begun or time.monotonic()
        if time.monotonic() - begun < 0.5:
            raise RuntimeError
        await effect(event, context)

    await rig.publish([signed(program("e1"))] * 10)
    await rig.consume(table, MAX_ATTEMPTS="6", RETRY__BASE="1s", RETRY__CAP="1s")
    assert rig.reasons() == Counter()
    assert rig.effects() == Counter(["e1"])
    assert _counted(rig) == []


async def test_an_event_that_always_meets_a_locked_database_is_at_fault(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that locks itself out, with a connection of its own, uses up its attempts; others are handled."""
    monkeypatch.setattr(alone_module, "_CONFLICTS", 2)
    table = effects_table()

    @table.on(LabResultEvent)
    async def locks_itself_out(event: LabResultEvent, context: Context) -> None:
        await effect(event, context)
        with contextlib.closing(sqlite3.connect(rig.database, timeout=0)) as other:
            other.execute("INSERT INTO effects (event_id, attempt) VALUES ('other', 1)")

    table.on(ProgramEvent)(effect)
    async with rig.worker(table, MAX_ATTEMPTS="1") as app:
        await rig.publish([signed(lab_result("bad"))])
        for n in range(60):
            await rig.publish([signed(program(f"e{n}"))])
            await asyncio.sleep(0.3)
            if rig.reasons():
                break
            app.worker.intakes[0].breaker.retry_at = time.monotonic()
    assert rig.reasons() == Counter(attempts_exhausted=1)


class Panic(BaseException):
    """What extensions written in Rust raise when they panic: no `Exception`."""


@pytest.mark.parametrize("proven", [False, True])
async def test_a_handler_that_panics_has_failed(rig: Rig, proven: bool) -> None:
    """An exception beyond `Exception` is a failed attempt like any other; no delivery stays in hand for it."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        await effect(event, context)
        if event.event_id == "bad":
            raise Panic

    if proven:
        for handler_ in table.handlers_for(ProgramEvent):
            for _ in range(10):
                handler_.pace.ran(0.0)
    await rig.publish(signed(program(one)) for one in ("e1", "bad", "e2"))
    await rig.consume(table, MAX_ATTEMPTS="2")
    assert rig.effects() == Counter(["e1", "e2"])
    assert rig.reasons() == Counter(attempts_exhausted=1)


async def test_a_stop_that_a_handler_turns_into_an_error_is_no_attempt(rig: Rig) -> None:
    """What a library makes of its cancellation when the drain ends is not held against the event."""
    table = effects_table()
    started = asyncio.Event()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        try:
            started.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionError from None

    await rig.publish([signed(program("e1"))])
    async with rig.worker(table, DRAIN_TIMEOUT="0.5s", SOURCES__LABS__POLL_WAIT="0.2"):
        await started.wait()
    assert _counted(rig) == []
    assert (await rig.depth()).visible == 1


async def test_a_suspect_that_is_handled_leaves_nothing_behind(rig: Rig) -> None:
    """The recorded start of an event that was received very often goes with its effect, or its dead letter."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "bad":
            raise Reject("never")
        await effect(event, context)

    rig.source = {**rig.source, "KIND": "tests.integration.test_delivery_review:Tired"}
    await rig.publish(signed(program(one)) for one in ("e1", "bad"))
    await rig.consume(table)
    assert rig.effects() == Counter(["e1"])
    assert rig.reasons() == Counter(rejected=1)
    assert _counted(rig) == []


class Tired(LocalSource):
    """A queue that says it has handed everything out a thousand times."""

    async def receive(self, limit: int) -> list[Message]:
        messages = await super().receive(limit)
        for message in messages:
            message.receive_count += 1000
        return messages


async def test_what_is_noted_of_several_envelopes_goes_with_their_delivery(rig: Rig) -> None:
    """One envelope of an array is put aside, the other is retried; afterwards nothing is remembered of either."""
    table = effects_table()
    failed: list[str] = []

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "bad":
            raise Reject("never")
        if not failed:
            failed.append(event.event_id)
            raise RuntimeError
        await effect(event, context)

    await rig.publish([b"[" + b",".join(signed(program(one)) for one in ("bad", "good")) + b"]"])
    await rig.consume(table)
    assert rig.effects() == Counter(["good"])
    assert rig.reasons() == Counter(rejected=1)
    assert _counted(rig) == []


# Handlers


async def test_handlers_with_limits_do_not_wait_for_each_other_in_a_circle(rig: Rig) -> None:
    """Two types that share limited handlers, in opposite order, on a database with one writer: no standstill."""
    table = effects_table()

    async def first(event: LabResultEvent | ProgramEvent, context: Context) -> None:
        await effect(event, context)
        await asyncio.sleep(0.01)

    async def second(event: LabResultEvent | ProgramEvent, context: Context) -> None:
        await asyncio.sleep(0.01)
        await effect(event, context)

    table.on(LabResultEvent)(first)
    table.on(LabResultEvent, ProgramEvent, max_concurrency=1)(second)
    messages = [signed(lab_result(f"l{n}")) for n in range(10)] + [signed(program(f"p{n}")) for n in range(10)]
    await rig.publish(messages)
    started = time.monotonic()
    async with rig.worker(table) as app:
        await eventually(lambda: len(rig.effects()) == 20, within=10)
        assert app.worker.intakes[0].breaker.closed
    assert time.monotonic() - started < 10


async def test_no_handler_starts_on_a_lease_that_lapsed_while_it_waited(rig: Rig) -> None:
    """A run that waited its turn looks at the clock again: somebody else may have the message by then."""
    table = effects_table()
    gate = asyncio.Event()
    ran: list[str] = []

    @table.on(ProgramEvent, max_concurrency=1)
    async def handler(event: ProgramEvent, context: Context) -> None:
        ran.append(event.event_id)
        if len(ran) == 1:
            await gate.wait()
        await effect(event, context)

    await rig.publish(signed(program(f"turn{n}")) for n in range(2))
    async with rig.worker(table) as app:
        intake = app.worker.intakes[0]
        await eventually(lambda: len(intake.held) == 2 and ran)
        (waiting,) = [held for held in intake.held if ran[0].encode() not in held.message.body]
        await asyncio.sleep(0.1)
        waiting.message.lease_until = time.monotonic() - 1  # as after a stall of the whole process
        gate.set()
        await eventually(lambda: len(intake.held) == 0)
        assert len(ran) == 1


async def test_a_stuck_handler_shows_although_it_shares_a_transaction(rig: Rig) -> None:
    """Liveness turns red for a handler that ignores its time limit, also when it ran with others."""
    table = effects_table()
    release = asyncio.Event()

    @table.on(ProgramEvent)
    async def stubborn(event: ProgramEvent, context: Context) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    for handler in table.handlers_for(ProgramEvent):
        for _ in range(10):
            handler.pace.ran(0.0)
    await rig.publish(signed(program(f"e{n}")) for n in range(3))
    async with rig.worker(table, HANDLER_TIMEOUT="0.1s") as app:
        await asyncio.sleep(1.5)
        try:
            assert app.worker.health._overdue() > 0.5  # its ten seconds of grace are not waited for
        finally:
            release.set()


async def test_a_long_line_for_the_one_writer_is_no_trouble(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that wait for SQLite's one writer longer than for a connection, and failures to count: no pause."""
    monkeypatch.setattr(database_module, "_POOL_TIMEOUT", 0.5)
    monkeypatch.setitem(Database.transaction.__wrapped__.__kwdefaults__, "within", 0.5)  # type: ignore[attr-defined] # a decorated function's
    table = effects_table()
    failed: set[str] = set()

    @table.on(ProgramEvent)
    async def slow(event: ProgramEvent, context: Context) -> None:
        await effect(event, context)
        await asyncio.sleep(0.05)
        if event.event_id.endswith("7") and event.event_id not in failed:
            failed.add(event.event_id)
            raise RuntimeError

    await rig.publish(signed(program(f"e{n}")) for n in range(60))
    paused = False
    async with rig.worker(table) as app:
        intake = app.worker.intakes[0]
        async with asyncio.timeout(20):
            while intake.held or len(rig.effects()) < 60:
                paused = paused or not intake.breaker.closed
                await asyncio.sleep(0.02)
    assert not paused
    assert set(rig.effects().values()) == {1}
    assert len(failed) == 6


# Pauses and stops


async def test_the_probe_is_another_delivery_than_the_one_in_trouble(rig: Rig) -> None:
    """After a pause somebody else is asked first, so one event's trouble does not keep the rest waiting."""
    table = effects_table()
    calls: list[str] = []

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        calls.append(event.event_id)
        if event.event_id == "bad":
            raise Unavailable
        await effect(event, context)

    await rig.publish([signed(program("bad"))])
    async with rig.worker(table) as app:
        await eventually(lambda: calls)
        await rig.publish([signed(program("good"))])
        await eventually(lambda: app.worker.intakes[0].breaker.closed)
        assert calls[1] == "good"
