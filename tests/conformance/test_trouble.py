"""Own trouble is not the message's fault: what the worker stands on breaks, the worker waits, and goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer import Context, Unavailable
from consumer import database as database_module
from consumer import intake as intake_module
from consumer import recovery as recovery_module
from consumer.database import Database
from consumer.errors import DatabaseUnavailable
from consumer.events import ProgramEvent
from consumer.inbox import Inbox
from consumer.sources.base import Outgoing
from consumer.worker import WorkerFailed
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed
from tests.servers.postgres import postgres_server


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The local queue."""
    return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue")})


def _nobody_was_blamed(rig: Rig) -> None:
    assert rig.reasons() == Counter()
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


async def test_a_locked_database(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds SQLite's write lock for longer than we wait: paused, then all is handled, no attempt."""
    monkeypatch.setattr(database_module, "_POOL_TIMEOUT", 2.0)
    monkeypatch.setitem(Database.__init__.__kwdefaults__, "busy_timeout", 0.5)
    table = effects_table()
    table.on(ProgramEvent)(effect)
    await rig.publish(signed(program(f"e{n}")) for n in range(20))
    async with rig.worker(table, MAX_ATTEMPTS="1") as app:
        await eventually(lambda: len(rig.effects()) == 20)
        with contextlib.closing(sqlite3.connect(rig.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await rig.publish(signed(program(f"f{n}")) for n in range(20))
            await eventually(lambda: not app.worker.intakes[0].breaker.closed, within=20)
            assert "paused" in (app.worker.not_ready() or "")
            other.execute("ROLLBACK")
        await eventually(lambda: len(rig.effects()) == 40, within=30)
    assert set(rig.effects().values()) == {1}
    _nobody_was_blamed(rig)


async def test_postgresql_gone_and_back(rig: Rig, tmp_path: Path) -> None:
    """PostgreSQL ends every session and refuses new ones: paused, then all is handled, once."""
    import asyncpg

    table = effects_table()
    table.on(ProgramEvent)(effect)
    with postgres_server() as server:
        async with server.fresh_database() as url:
            name = url.rpartition("/")[2]
            await rig.publish(signed(program(f"e{n}")) for n in range(100))
            changes = {"DATABASE__URL": url, "DATABASE__AUTO_MIGRATE": "true", "MAX_ATTEMPTS": "1"}
            async with rig.worker(table, **changes) as app:
                intake = app.worker.intakes[0]
                await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
                await rig.publish(signed(program(f"f{n}")) for n in range(100))
                await eventually(lambda: not intake.breaker.closed, within=30)
                await eventually(lambda: not intake.held, what="everything given back")
                await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
                await eventually(lambda: intake.breaker.closed and intake.receiver.empty_since, within=40)
                await eventually(lambda: not intake.held)
            connection = await asyncpg.connect(url)
            try:
                rows = await connection.fetch("SELECT event_id FROM effects")
                attempts = await connection.fetchval("SELECT count(*) FROM consumer_attempts")
            finally:
                await connection.close()
    assert Counter(row[0] for row in rows) == Counter([f"{kind}{n}" for kind in "ef" for n in range(100)])
    assert attempts == 0
    assert rig.reasons() == Counter()


async def test_dead_letters_cannot_be_kept(rig: Rig) -> None:
    """With the dead-letter folder gone for a file nothing is acknowledged; once it can be written all is kept."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    async with rig.worker(table) as app:
        intake = app.worker.intakes[0]
        shutil.rmtree(rig.dead_letter_folder, ignore_errors=True)
        rig.dead_letter_folder.write_text("in the way")
        await rig.publish([b"nonsense", *(signed(program(f"e{n}")) for n in range(5))])
        await eventually(lambda: not intake.breaker.closed)
        assert (await rig.depth()).total >= 1
        await asyncio.sleep(1.5)
        assert not intake.breaker.closed
        rig.dead_letter_folder.unlink()
        await eventually(lambda: rig.reasons() == Counter(unreadable=1) and len(rig.effects()) == 5, within=30)
        await eventually(lambda: not intake.held)
    assert (await rig.depth()).total == 0
    assert set(rig.effects().values()) == {1}


async def test_fifty_different_failures(rig: Rig) -> None:
    """Fifty events in a row fail: that is a bad deploy; the source pauses, dead-letters nothing more, and recovers."""
    table = effects_table()
    broken = True

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        if broken:
            raise RuntimeError
        await effect(event, context)

    await rig.publish(signed(program(f"e{n}")) for n in range(120))
    async with rig.worker(table, MAX_ATTEMPTS="3", RETRY__BASE="30s", RETRY__CAP="30s") as app:
        intake = app.worker.intakes[0]
        await eventually(lambda: not intake.breaker.closed)
        await eventually(lambda: not intake.held)
        assert rig.rows("SELECT count(*), sum(failures) FROM consumer_attempts") == [(50, 50)]
        await asyncio.sleep(2.5)
        assert rig.rows("SELECT count(*), sum(failures) FROM consumer_attempts") == [(50, 50)]
        broken = False
        await eventually(lambda: len(rig.effects()) >= 70, within=30)
        assert app.worker.not_ready() is None
    assert rig.reasons() == Counter()


async def test_a_parked_lane_and_a_database_that_is_gone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that fails while lanes are looked up or parked pauses the source, and no delivery is forgotten."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    changes = {"SOURCES__LABS__LANE_ON_DEAD_LETTER": "park"}
    async with rig.worker(table, **changes) as app:
        intake = app.worker.intakes[0]
        real = Inbox.lookup, Inbox.mark_dead_lettered

        async def gone(*_: object) -> None:
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(Inbox, "lookup", gone)
        monkeypatch.setattr(Inbox, "mark_dead_lettered", gone)
        await rig.publish([Outgoing(signed(program("one")), ordering_key="a")])
        await rig.publish([Outgoing(b"nonsense", ordering_key="b")])
        await eventually(lambda: not intake.breaker.closed)
        await eventually(lambda: not intake.held, what="everything given back")
        monkeypatch.setattr(Inbox, "lookup", real[0])
        monkeypatch.setattr(Inbox, "mark_dead_lettered", real[1])
        await eventually(lambda: rig.effects() == Counter(["one"]) and rig.reasons()["unreadable"], within=30)
        await eventually(lambda: not intake.held)
    assert (await rig.depth()).total == 0


async def test_a_lane_that_expires_while_the_source_is_paused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of a lane that their queue is about to delete are dead-lettered in a pause, and the worker goes on."""
    monkeypatch.setattr(recovery_module, "_SWEEP_DELAY", 0.2)
    table = effects_table()
    gone = True

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: Context) -> None:
        if gone:
            raise Unavailable(60.0 if event.event_id == "first" else None)
        await effect(event, context)

    changes = {"SOURCES__LABS__OPTIONS__RETENTION": "5s", "SOURCES__LABS__POLL_WAIT": "0.3"}
    async with rig.worker(table, **changes) as app:
        intake = app.worker.intakes[0]
        await rig.publish([Outgoing(signed(program("first")), ordering_key="z")])
        await eventually(lambda: not intake.breaker.closed)
        await rig.publish(Outgoing(signed(program(f"e{n}")), ordering_key="a") for n in range(3))
        await eventually(lambda: rig.reasons()["expiring"] == 4, within=12)
        await eventually(lambda: not intake.held)
        gone = False
        intake.breaker.retry_at = time.monotonic()
        await eventually(lambda: intake.breaker.closed)
        await rig.publish(Outgoing(signed(program(f"f{n}")), ordering_key="a") for n in range(3))
        await eventually(lambda: len(rig.effects()) == 3)
    assert rig.reasons() == Counter(expiring=4)


async def test_a_handler_that_will_not_be_cancelled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for a handler that ignores cancellation no longer than its grace, and gives back what waits."""
    from consumer import worker as worker_module

    monkeypatch.setattr(worker_module, "_HANDLER_GRACE", 0.5)
    table = effects_table()
    release = asyncio.Event()

    @table.on(ProgramEvent, max_concurrency=1)
    async def stubborn(event: ProgramEvent, context: Context) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    await rig.publish(signed(program(f"e{n}")) for n in range(3))
    started = time.monotonic()
    try:
        async with rig.worker(table, leaves=1, DRAIN_TIMEOUT="0.5s", SOURCES__LABS__POLL_WAIT="0.2") as app:
            await eventually(lambda: len(app.worker.intakes[0].held) == 3)
        assert time.monotonic() - started < 5
        assert (await rig.depth()).visible == 2
    finally:
        release.set()
        await asyncio.sleep(0.1)


async def test_odd_but_authentic_ids(rig: Rig) -> None:
    """Ids of half surrogate pairs, NUL and other odd text end in an effect or a dead letter, not in between."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    odd = ['"\\ud800"', '"a\\u0000b"', '" "', '"\\u202e"', f'"{"x" * 5000}"', "1", "null", "[]", '""', '"\\ufffe"']
    messages = []
    for number, text in enumerate(odd):
        body = '{"event_id":' + text + ',"event_type":"program.updated","user_id":' + odd[-number - 1] + "}"
        messages.append(signed(body))
        messages.append(signed('{"event_id":"t' + str(number) + '","event_type":' + text + "}"))
    await rig.publish(messages)
    await rig.consume(table, MAX_ATTEMPTS="2")
    assert (await rig.depth()).total == 0
    assert sum(rig.reasons().values()) + len(rig.effects()) == len(messages)


async def test_the_database_file_taken_away(rig: Rig) -> None:
    """With the SQLite file moved away nothing is acknowledged for an effect that nobody could find any more."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    async with rig.worker(table) as app:
        await rig.publish([signed(program("before"))])
        await eventually(lambda: rig.effects()["before"])
        away = rig.folder / "away"
        away.mkdir()
        for file in rig.folder.glob("consumer.db*"):
            file.rename(away / file.name)
        await rig.publish([signed(program("after"))])
        await eventually(lambda: not app.worker.intakes[0].breaker.closed)
        for file in away.glob("consumer.db*"):
            file.rename(rig.folder / file.name)
        await eventually(lambda: rig.effects()["after"], within=30)
    _nobody_was_blamed(rig)


async def test_a_flood_of_forgeries_at_the_start_does_not_stop_honest_messages(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source looks like one with a wrong secret, until the first probe finds an honest message behind the flood."""
    monkeypatch.setattr(intake_module, "_SUSPECT_DELAY", 2.0)
    table = effects_table()
    table.on(ProgramEvent)(effect)
    await rig.publish(signed(program(f"f{n}"), secret="a forger's") for n in range(400))
    await rig.publish([signed(program("honest"))])
    with capture_logs() as logs:
        async with rig.worker(table) as app:
            await eventually(lambda: rig.effects() == Counter(honest=1), within=8)
            await eventually(lambda: rig.reasons() == Counter(bad_signature=400))
            assert app.worker.not_ready() is None
    lines = sum(line["event"] == "dead_lettered" for line in logs)
    assert 50 <= lines < 100, "a log line for each would be a flood of its own"


async def test_a_run_until_idle_ends_when_every_signature_is_bad(rig: Rig) -> None:
    """It could wait for ever; instead it says what to look at, once a probe has found nothing better."""
    table = effects_table()
    await rig.publish(signed(program(f"f{n}"), secret="another") for n in range(60))
    with pytest.raises(WorkerFailed, match="signatures all failed"):
        await rig.consume(table)
    assert rig.reasons() == Counter(bad_signature=20)
