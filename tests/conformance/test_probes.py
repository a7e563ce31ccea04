"""Each probe turns red for its own cause, and for nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from consumer import Context, DispatchTable, Unavailable, alone, unit_of_work
from consumer.app import App
from consumer.dead_letters.file_store import FileStore
from consumer.errors import DatabaseConflict, SourceUnavailable
from consumer.events import Event, ProgramEvent
from consumer.inbox import Inbox
from consumer.intake import Intake
from consumer.sources.base import Message
from consumer.worker import WorkerFailed
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The local queue, with short leases and a short drain: what hangs here never comes back."""
    source = {"KIND": "local", "PATH": str(tmp_path / "queue"), "POLL_WAIT": "0.02", "VISIBILITY_TIMEOUT": "2s"}
    return Rig(tmp_path, source, {"DRAIN_TIMEOUT": "1s"})


def _plain() -> DispatchTable:
    table = effects_table()
    table.on(ProgramEvent)(effect)
    return table


class _Clock:
    """Looks at liveness every ten seconds of a time that passes at will."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._now = time.monotonic()

    async def look(self, seconds: float) -> str | None:
        """The last answer after so many more seconds; meanwhile what can go on goes on."""
        answer = None
        for _ in range(int(seconds // 10)):
            await asyncio.sleep(0.02)
            self._now += 10
            answer = self._app.worker.health.not_live(self._now)
        return answer


def _intake(app: App) -> Intake:
    return app.worker.intakes[0]


class _Hang:
    """Calls that begin and do not end until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.gone = asyncio.Event()

    async def __call__(self, *_: Any, **__: Any) -> Any:
        self.begun += 1
        await self.gone.wait()
        return []


# Green


async def test_idle_and_busy(rig: Rig) -> None:
    """A worker with nothing to do for an hour is alive, and so is one that has just handled something."""
    async with rig.worker(_plain()) as app:
        clock = _Clock(app)
        await eventually(lambda: app.worker.not_ready() is None)
        for _ in range(3):
            assert await clock.look(100) is None
            turns = _intake(app).receiver.begun
            await eventually(lambda turns=turns: _intake(app).receiver.begun > turns + 1)
        await rig.publish([signed(program("e0"))])
        await eventually(rig.effects)
        assert await clock.look(30) is None


async def test_a_handler_within_its_time(rig: Rig) -> None:
    """Ten minutes of a handler that may take them are no standstill, nor is what waits behind it."""
    table, gate = effects_table(), asyncio.Event()

    @table.on(ProgramEvent, timeout=600, max_concurrency=1)
    async def handle(event: Event, context: Context) -> None:
        await effect(event, context)  # holds the database's only writer, too
        await gate.wait()

    await rig.publish(signed(program(f"e{n}")) for n in range(5))
    async with rig.worker(table, MAX_IN_FLIGHT="5") as app:
        await eventually(lambda: len(_intake(app).held) == 5)
        assert await _Clock(app).look(590) is None
        assert app.worker.not_ready() is None
        gate.set()
        await eventually(lambda: len(rig.effects()) == 5)


async def test_a_pause_of_an_operator(rig: Rig) -> None:
    """However long it lasts; the loop that sweeps goes on."""
    async with rig.worker(_plain()) as app:
        _intake(app).pause_by_operator("")
        clock = _Clock(app)
        for _ in range(3):
            assert await clock.look(200) is None
            await asyncio.sleep(1.1)


async def test_trouble_elsewhere(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that cannot be reached and a source that is paused are not ready, and alive: no restart helps."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handle(event: Event, context: Context) -> None:
        raise Unavailable

    await rig.publish([signed(program("e0"))])
    async with rig.worker(table) as app:
        intake = _intake(app)
        intake.breaker.first = intake.breaker.cap = 0.1
        await eventually(lambda: not intake.breaker.closed)
        clock = _Clock(app)
        for _ in range(3):
            tries = intake.breaker.tries
            assert await clock.look(200) is None
            await eventually(lambda tries=tries: intake.breaker.tries > tries)
        assert "paused" in (app.worker.not_ready() or "")

    async def refused(limit: int) -> list[Message]:
        raise SourceUnavailable("source labs: no answer")

    async with rig.worker(_plain()) as app:
        monkeypatch.setattr(_intake(app).source, "receive", refused)
        await eventually(lambda: app.worker.not_ready() == "source labs: no answer")
        assert await _Clock(app).look(600) is None


async def test_commits_in_doubt(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that lets every commit wait for half a minute, its standby being gone, is trouble elsewhere."""
    table = effects_table()
    table.on(ProgramEvent, max_concurrency=1)(effect)  # so each runs alone, and begins again by itself
    answers: list[str | None] = []

    async with rig.worker(table) as app:
        clock = _Clock(app)

        async def in_doubt(committing: Coroutine[Any, Any, None]) -> None:
            committing.close()
            answers.append(await clock.look(30))
            raise DatabaseConflict("the outcome of a commit is unknown")

        monkeypatch.setattr(unit_of_work, "_settle", in_doubt)
        monkeypatch.setattr(alone, "backoff", lambda *_, **__: 0.0)
        await rig.publish([signed(program("e0"))])
        await eventually(lambda: not _intake(app).breaker.closed)
        monkeypatch.undo()
    assert answers == [None] * 10


async def test_a_locked_inbox(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by maintenance of its table: nothing waits for ever, the source pauses, and no attempt is counted."""
    hang = _Hang()
    monkeypatch.setattr(unit_of_work, "_insert_ordered", hang)
    monkeypatch.setattr(unit_of_work, "_COMMIT_TIMEOUT", 0.05)
    await rig.publish([signed(program("e0"))])
    async with rig.worker(_plain()) as app:
        await eventually(lambda: not _intake(app).breaker.closed)
        monkeypatch.undo()
        await eventually(lambda: rig.effects() == {"e0": 1})
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


# Red


async def test_not_connected_yet(rig: Rig) -> None:
    """Ready once the queue has answered a receive, or lets one wait as one does that is empty; not before."""
    async with App.opened(rig.load(), table=_plain()) as app:
        assert app.worker.not_ready() == "source labs: not connected yet: its queue has not answered a receive"
        assert app.worker.not_live() is None
        with _intake(app).receiver.asking.under_way():
            assert app.worker.not_ready() is not None
            await eventually(lambda: app.worker.not_ready() is None, within=5)
    async with rig.worker(_plain()) as app:
        await eventually(lambda: app.worker.not_ready() is None, within=5)


async def test_a_dead_poller(rig: Rig) -> None:
    """A receive that never returns is noticed, and one that does after all makes up for it."""
    async with rig.worker(_plain()) as app:
        intake = _intake(app)
        real, hang = intake.source.receive, _Hang()
        intake.source.receive = hang  # type: ignore[method-assign] # a queue that forgets a call
        await eventually(lambda: hang.begun)
        intake.source.receive = real  # type: ignore[method-assign] # but for that one
        clock = _Clock(app)
        assert await clock.look(110) is None
        assert "source labs: a receive does not come back" in (await clock.look(30) or "")
        hang.gone.set()
        await eventually(lambda: intake.receiver.begun > 1)
        assert await clock.look(10) is None


async def test_receiving_that_has_stopped(rig: Rig) -> None:
    """Nothing is in hand, nothing keeps it from receiving, and it does not: as when all permits are lost."""
    async with rig.worker(_plain()) as app:
        permits = _intake(app).permits
        lost = permits._held = permits.count
        await eventually(lambda: _intake(app).receiver.may_begin)
        clock = _Clock(app)
        assert await clock.look(50) is None
        assert "nothing is received, although it could be" in (await clock.look(30) or "")
        permits._held -= lost
        _intake(app).receiver.wake()


async def test_room_that_is_lost(rig: Rig) -> None:
    """A few permits that nobody holds make a worker slower for ever."""
    async with rig.worker(_plain()) as app:
        _intake(app).permits._held += 3
        clock = _Clock(app)
        assert await clock.look(100) is None
        assert "room for deliveries is lost" in (await clock.look(60) or "")
        _intake(app).permits._held -= 3


async def _hung(rig: Rig, arrange: Callable[[App, _Hang], object], *, publish: Sequence[bytes], says: str) -> None:
    """A worker in which something is made to hang is alive for a minute, and then is not, for this reason."""
    async with App.opened(rig.load(), table=_plain()) as app:
        hang = _Hang()
        arrange(app, hang)
        running = asyncio.create_task(app.worker.run())
        await rig.publish(publish)
        await eventually(lambda: hang.begun)
        clock = _Clock(app)
        assert await clock.look(50) is None
        assert says in (await clock.look(300) or "")
        hang.gone.set()
        app.worker.stop()
        await asyncio.wait_for(running, 20)


async def test_an_acknowledgement_that_is_never_answered(rig: Rig) -> None:
    """The queue is told, and says nothing at all."""
    await _hung(
        rig,
        lambda app, hang: setattr(_intake(app).source, "acknowledge", hang),
        publish=[signed(program("e0"))],
        says="source labs: the queue is not told what is done",
    )


async def test_a_dead_letter_that_is_never_written(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file server that has gone away without a word."""
    await _hung(
        rig,
        lambda _, hang: monkeypatch.setattr(FileStore, "append", hang),
        publish=[b"nonsense"],
        says="source labs: an event is not put aside or opened",
    )


async def test_events_that_nobody_takes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in hand hangs before any handler has it."""
    await _hung(
        rig,
        lambda _, hang: monkeypatch.setattr(Inbox, "lookup", hang),
        publish=[signed(program("e0"))],
        says="events in hand are not handled",
    )


async def test_a_paused_source_nobody_looks_at(rig: Rig) -> None:
    """The look at what was broken never ends."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def handle(event: Event, context: Context) -> None:
        raise Unavailable

    await rig.publish([signed(program("e0"))])
    async with rig.worker(table) as app:
        intake, hang = _intake(app), _Hang()
        intake.breaker.first = intake.breaker.cap = 0.1
        app.worker.recoveries[0].healthy = hang
        await eventually(lambda: hang.begun and not intake.held)
        clock = _Clock(app)
        assert await clock.look(50) is None
        assert "source labs: it is paused and nobody looks" in (await clock.look(400) or "")
        hang.gone.set()


async def test_leases_that_nobody_renews(rig: Rig) -> None:
    """A lease has run out in hand, which the loop that renews them would have noticed."""
    table, gate = effects_table(), asyncio.Event()

    @table.on(ProgramEvent)
    async def handle(event: Event, context: Context) -> None:
        await gate.wait()

    await rig.publish([signed(program("e0"))])
    async with App.opened(rig.load(MAX_IN_FLIGHT="1"), table=table) as app:
        running = asyncio.create_task(app.worker.run())
        intake, hang = _intake(app), _Hang()
        intake.source.extend = hang  # type: ignore[method-assign] # a queue that does not answer
        await eventually(lambda: hang.begun and intake.settlement.lapsed is not None)
        clock = _Clock(app)
        assert await clock.look(50) is None
        assert "source labs: leases are not renewed" in (await clock.look(40) or "")
        hang.gone.set()
        gate.set()
        app.worker.stop()
        await asyncio.wait_for(running, 20)


@pytest.mark.parametrize("part", ["heartbeat", "receiver", "recovery", "extra"])
async def test_a_part_that_ends_by_itself(rig: Rig, part: str) -> None:
    """The worker ends, cleanly and with an error, rather than limp on without it."""

    async def ends() -> None:
        await asyncio.sleep(0.05)

    def instead(app: App) -> Callable[[], Awaitable[None]]:
        return {
            "heartbeat": lambda: setattr(_intake(app).settlement, "heartbeat", ends),
            "receiver": lambda: setattr(_intake(app).receiver, "run", ends),
            "recovery": lambda: setattr(app.worker.recoveries[0], "run", ends),
            "extra": lambda: setattr(app.worker, "extra", [ends]),
        }[part]  # type: ignore[return-value] # what it returns does not matter

    async with App.opened(rig.load(), table=_plain()) as app:
        instead(app)()
        with pytest.raises(WorkerFailed, match="ended by itself: this is a bug"):
            await asyncio.wait_for(app.worker.run(), 20)
        assert not _intake(app).held
