"""Handlers do what they like: nothing is stuck, nobody else is harmed, and each event has an outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from consumer import Context, Reject, Retry, Unavailable
from consumer.events import ProgramEvent
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed


class Weird(BaseException):
    """Not an Exception."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The local queue."""
    return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue")})


@pytest.mark.parametrize(
    "raised",
    [
        Weird(),
        GeneratorExit(),
        SystemExit(3),
        asyncio.CancelledError(),
        StopAsyncIteration(),
        StopIteration(),
        TimeoutError(),
        RecursionError(),
        MemoryError(),
        BaseExceptionGroup("g", [Weird()]),
        ExceptionGroup("g", [Retry(), ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_handler_raises(rig: Rig, raised: BaseException) -> None:
    """Any exception is a failed attempt of that event alone, also one in a group of the fast; then a dead letter."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        await effect(event, context)
        if event.event_id == "bad":
            raise raised

    names = [f"e{n}" for n in range(20)]
    await rig.publish(signed(program(one)) for one in [*names[:10], "bad", *names[10:]])
    await rig.consume(table, MAX_ATTEMPTS="2")
    assert rig.effects() == Counter(names)
    (record,) = rig.dead_letters()
    assert (record["event_id"], record["reason"]) == ("bad", "attempts_exhausted")
    # Python itself turns a StopIteration that leaves a coroutine into a RuntimeError.
    assert type(raised).__name__.replace("StopIteration", "RuntimeError") in record["error"]["type"]
    assert record["attempts"] == 2


async def test_a_handler_that_cancels_itself(rig: Rig) -> None:
    """Cancelling one's own task is a failed attempt, not the end of the worker."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        await effect(event, context)
        if event.event_id == "bad":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)

    names = [f"e{n}" for n in range(20)]
    await rig.publish(signed(program(one)) for one in [*names[:10], "bad", *names[10:]])
    async with rig.worker(table, MAX_ATTEMPTS="2") as app:
        await eventually(lambda: len(rig.effects()) == 20)
        await asyncio.sleep(0.5)
        assert not app.worker.stopping
    assert rig.effects() == Counter(names)
    assert len(rig.dead_letters()) + (await rig.depth()).total == 1


async def test_a_slow_one_among_the_fast(rig: Rig) -> None:
    """A handler that hangs runs into its time limit; nobody else's event waits for it or fails with it."""
    table = effects_table()

    @table.on(ProgramEvent, timeout=0.3)
    async def handler(event: ProgramEvent, context: Context) -> None:
        await effect(event, context)
        if event.event_id == "slow":
            await asyncio.sleep(60)

    names = [f"e{n}" for n in range(30)]
    await rig.publish(signed(program(one)) for one in [*names[:15], "slow", *names[15:]])
    await rig.consume(table, MAX_ATTEMPTS="2")
    assert rig.effects() == Counter(names)
    assert [(one["event_id"], one["reason"]) for one in rig.dead_letters()] == [("slow", "attempts_exhausted")]


async def test_a_handler_that_breaks_its_session(rig: Rig) -> None:
    """Swallowed errors, commits, kept sessions and open savepoints never reach another event."""
    table = effects_table()
    kept: list[Any] = []

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        session = context.session
        await effect(event, context)
        match event.event_id:
            case "swallows":
                with contextlib.suppress(Exception):
                    await session.execute(text("INSERT INTO nothing VALUES (1)"))
            case "commits":
                await session.commit()
            case "savepoint":
                kept.append(await session.begin_nested())
            case "keeps":
                kept.append(session)
            case "closes":
                await session.close()

    odd = ["swallows", "commits", "savepoint", "keeps", "closes"]
    names = [f"e{n}" for n in range(10)]
    await rig.publish(signed(program(one)) for pair in zip(names[::2], odd, names[1::2], strict=True) for one in pair)
    await rig.consume(table, MAX_ATTEMPTS="2")
    found = rig.effects()
    assert {name: found[name] for name in names} == dict.fromkeys(names, 1)
    assert set(found.values()) == {1}
    dead = {record["event_id"] for record in rig.dead_letters()}
    assert dead | set(found) == {*names, *odd}
    inbox = rig.rows("SELECT count(*) FROM consumer_inbox")
    assert inbox == [(len(names) + len(odd) - len(dead),)]


async def test_every_word_of_a_handler(rig: Rig) -> None:
    """Retry counts and comes back, also a returned one; Reject is final; Unavailable is nobody's fault."""
    table = effects_table()
    runs: Counter[str] = Counter()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        runs[event.event_id] += 1
        await effect(event, context)
        first = runs[event.event_id] == 1
        match event.event_id:
            case "retry" if first:
                raise Retry(0.05)
            case "returned" if first:
                return Retry()  # type: ignore[return-value] # the slip that is looked for
            case "reject":
                raise Reject("never")
            case "unavailable" if first:
                raise Unavailable
        return None

    names = ["retry", "returned", "reject", "unavailable", "plain"]
    await rig.publish(signed(program(one)) for one in names)
    await rig.consume(table)
    assert rig.effects() == Counter(["retry", "returned", "unavailable", "plain"])
    attempts = dict(rig.rows("SELECT event_id, attempt FROM effects"))
    assert attempts == {"retry": 2, "returned": 2, "unavailable": 1, "plain": 1}
    assert rig.reasons() == Counter(rejected=1)
    assert rig.dead_letters()[0]["detail"] == "never"


async def test_one_paused_source_does_not_stop_another(rig: Rig) -> None:
    """Of two sources only the one in trouble pauses; the same event on both takes effect once."""
    table = effects_table()
    gone = True

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        if gone and context.delivery.source == "labs":
            raise Unavailable
        await effect(event, context)

    other = Rig(rig.folder, {"KIND": "local", "PATH": str(rig.folder / "other")})
    rig.changes.update({f"SOURCES__OTHER__{name}": value for name, value in other.source.items()})
    names = [f"e{n}" for n in range(10)]
    await rig.publish(signed(program(one)) for one in [*names, "both"])
    await other.publish(signed(program(one)) for one in ["f0", "f1"])
    async with rig.worker(table) as app:
        await eventually(lambda: len(rig.effects()) == 2)
        await eventually(lambda: [i.breaker.closed for i in app.worker.intakes] == [False, True])
        await other.publish([signed(program("both")), signed(program("f2"))])
        await eventually(lambda: len(rig.effects()) == 4)
        gone = False
        await eventually(lambda: len(rig.effects()) == 14)
    assert set(rig.effects().values()) == {1}
    assert [record["event_id"] for record in rig.dead_letters()] in ([], ["both"])
