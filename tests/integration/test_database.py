"""The inbox and its transactions, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from sqlalchemy import Index, Integer, Text, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from consumer.database import Database, classify
from consumer.errors import ConsumerError, DatabaseConflict
from consumer.inbox import Inbox, InboxRow, LostRace, Seen, UnitOfWork, event_key

A, B, C = (event_key("", "thrive", name) for name in "abc")
HASH = b"h" * 32


class _Base(DeclarativeBase):
    pass


class _Note(_Base):
    """What a handler keeps."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    __table_args__ = (Index("note_name", "name", unique=True),)


@pytest.fixture(autouse=True)
async def _notes(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(_Base.metadata.create_all)


async def _names(database: Database) -> list[str]:
    return [name for (name,) in await database.read("SELECT name FROM note ORDER BY name")]


async def _commit(inbox: Inbox, *keys: bytes) -> None:
    async with inbox.transaction() as unit:
        await unit.commit([InboxRow(key, HASH) for key in keys])


async def _healthy(database: Database) -> None:
    """Nothing is held, and a transaction goes through."""
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    key = random.randbytes(32)
    await asyncio.wait_for(_commit(Inbox(database), key), 10)
    assert key in await Inbox(database).lookup([key])


async def test_what_a_handler_writes_and_the_inbox_row_commit_together(database: Database, inbox: Inbox) -> None:
    """Before the commit neither is seen, after it both are."""
    async with inbox.transaction() as unit:
        unit.session.add(_Note(name="x"))
        await unit.session.flush()
        assert (await inbox.lookup([A]), await _names(database)) == ({}, [])
        await unit.commit([InboxRow(A, HASH)])
        assert unit.touched
    assert await inbox.lookup([A, B]) == {A: Seen(body_hash=HASH)}
    assert await _names(database) == ["x"]


async def test_leaving_without_commit_forgets_everything(database: Database, inbox: Inbox) -> None:
    """A unit of work that ends otherwise, by an exception or quietly, leaves nothing."""

    async def fail() -> None:
        async with inbox.transaction() as unit:
            unit.session.add(_Note(name="x"))
            await unit.session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with inbox.transaction() as unit:
        unit.session.add(_Note(name="y"))
        await unit.session.flush()
    assert await _names(database) == []
    await _healthy(database)


async def test_untouched_units_still_write_their_rows(database: Database, inbox: Inbox) -> None:
    """An event whose handler did not use the session has its inbox row too, and `touched` says which it was."""
    async with inbox.transaction() as unit:
        assert not unit.touched
        assert unit.session is unit.session
        assert not unit.touched
        await unit.commit([InboxRow(B, HASH), InboxRow(A, HASH)])
    assert set(await inbox.lookup([A, B, C])) == {A, B}
    assert await inbox.lookup([]) == {}


@pytest.mark.parametrize("touch", [False, True])
async def test_the_second_of_two_workers_loses(database: Database, inbox: Inbox, touch: bool) -> None:
    """When another worker put one event of a group into the inbox first, the whole group is rolled back."""
    await _commit(inbox, B)
    async with inbox.transaction() as unit:
        if touch:
            unit.session.add(_Note(name="x"))
        with pytest.raises(LostRace):
            await unit.commit([InboxRow(A, HASH), InboxRow(B, b"other"), InboxRow(C, HASH)])
    assert await inbox.lookup([A, B, C]) == {B: Seen(body_hash=HASH)}
    assert await _names(database) == []
    await _healthy(database)


async def test_groups_in_opposite_order_do_not_deadlock(database_url: str, database: Database, inbox: Inbox) -> None:
    """Two workers with the same events in opposite order: one wins, the other loses the race, none hangs."""
    other = Database(database_url)
    await other.open()
    keys = [event_key("", "thrive", str(number)) for number in range(200)]

    async def work(box: Inbox, mine: list[bytes]) -> int:
        won = 0
        for start in range(0, len(mine), 10):
            try:
                await _commit(box, *mine[start : start + 10])
                won += 1
            except LostRace:
                pass
        return won

    async with asyncio.timeout(30):
        wins = await asyncio.gather(work(inbox, keys), work(Inbox(other), keys[::-1]), work(Inbox(other), keys))
    assert sum(wins) == 20
    await other.close()


@pytest.mark.parametrize("name", ["commit", "rollback", "close", "reset", "invalidate", "aclose", "begin"])
async def test_handlers_cannot_end_the_transaction(database: Database, inbox: Inbox, name: str) -> None:
    """What would end the worker's transaction raises, and what was written before it stays in the transaction."""
    async with inbox.transaction() as unit:
        unit.session.add(_Note(name="x"))
        await unit.session.flush()
        with pytest.raises(ConsumerError, match="the worker commits"):
            await getattr(unit.session, name)()
        with pytest.raises(ConsumerError):
            await unit.session.run_sync(lambda session: session.commit())
        with pytest.raises(ConsumerError):
            async with unit.session:
                pass
        await unit.commit([InboxRow(A, HASH)])
    assert await _names(database) == ["x"]


async def test_savepoints_are_the_handlers(database: Database, inbox: Inbox) -> None:
    """A handler may undo a part of its own work."""
    async with inbox.transaction() as unit:
        unit.session.add(_Note(name="x"))
        with pytest.raises(IntegrityError):
            async with unit.session.begin_nested():
                unit.session.add(_Note(name="x"))
        await unit.commit([InboxRow(A, HASH)])
    assert await _names(database) == ["x"]
    assert A in await inbox.lookup([A])


async def test_a_savepoint_left_open_is_a_mistake(database: Database, inbox: Inbox) -> None:
    """A handler that leaves a savepoint open fails in its own turn."""
    async with inbox.transaction() as unit:
        await unit.session.begin_nested()
        with pytest.raises(ConsumerError, match="savepoint"):
            await unit.flush_member()
    await _healthy(database)


async def test_the_session_ends_with_the_unit(inbox: Inbox) -> None:
    """A handler that kept its session cannot write with it later, when nobody commits."""
    units: list[UnitOfWork] = []
    for commit in (True, False):
        async with inbox.transaction() as unit:
            unit.session.add(_Note(name=f"x{commit}"))
            if commit:
                await unit.commit([InboxRow(A, HASH)])
        units.append(unit)
    for unit in units:
        with pytest.raises(InvalidRequestError):
            await unit.session.execute(text("SELECT 1"))
        with pytest.raises(ConsumerError):
            await unit.commit([])


async def test_an_error_comes_out_in_its_handlers_turn(database: Database, inbox: Inbox) -> None:
    """In a group, what one handler left pending fails before the next one runs, and the group leaves nothing."""
    await _commit(inbox, C)
    turns: list[str] = []

    async def group(unit: UnitOfWork) -> None:
        for name in ("x", "y", "y", "z"):
            turns.append(name)
            unit.session.add(_Note(name=name))
            await unit.flush_member()
            assert list(unit.session) == []

    with pytest.raises(IntegrityError) as caught:
        async with inbox.transaction() as unit:
            await group(unit)
    assert turns == ["x", "y", "y"]
    assert classify(caught.value) is None
    assert await _names(database) == []
    await _healthy(database)


async def test_a_constraint_seen_at_commit_is_the_handlers(database: Database, inbox: Inbox) -> None:
    """An object that cannot be stored is the handler's mistake even when only the commit finds out."""
    async with inbox.transaction() as unit:
        unit.session.add_all([_Note(name="x"), _Note(name="x")])
        with pytest.raises(IntegrityError) as caught:
            await unit.commit([InboxRow(A, HASH)])
    assert classify(caught.value) is None
    assert await inbox.lookup([A]) == {}
    await _healthy(database)


async def test_lookups_do_not_wait_for_a_writer(database: Database, inbox: Inbox) -> None:
    """While a handler holds the write lock, other events are looked up at once."""
    async with inbox.transaction() as unit:
        unit.session.add(_Note(name="x"))
        await unit.session.flush()
        began = time.monotonic()
        await asyncio.gather(*(inbox.lookup([A, B]) for _ in range(50)))
        assert time.monotonic() - began < 2


async def test_failures_are_counted_and_go_with_success(inbox: Inbox) -> None:
    """Failures add up, forget recorded starts, and leave when the event takes effect."""
    assert await inbox.record_failures([A, B]) == {A: 1, B: 1}
    assert await inbox.record_start(A) == 1
    assert await inbox.record_start(A) == 2
    assert await inbox.record_failures([A]) == {A: 2}
    assert await inbox.lookup([A, B, C]) == {A: Seen(failures=2), B: Seen(failures=1)}
    async with inbox.transaction() as unit:
        await unit.commit([InboxRow(A, HASH, failed_before=True)])
    assert await inbox.lookup([A, B]) == {A: Seen(body_hash=HASH), B: Seen(failures=1)}
    await inbox.forget_attempts([B])
    assert await inbox.lookup([B]) == {}


async def test_starts_are_cleared_without_a_trace(inbox: Inbox) -> None:
    """Clearing starts keeps failures and forgets keys that have none."""
    await inbox.record_failures([A])
    for key in (A, B):
        await inbox.record_start(key)
    await inbox.clear_starts([A, B, C])
    assert await inbox.lookup([A, B, C]) == {A: Seen(failures=1)}


async def test_a_part_of_a_delivery_stays_dead_lettered(inbox: Inbox) -> None:
    """The mark survives until the attempts are forgotten, and clearing starts does not remove it."""
    await inbox.record_start(A)
    await inbox.mark_dead_lettered([A])
    await inbox.clear_starts([A])
    assert await inbox.lookup([A]) == {A: Seen(dead_lettered=True)}
    await inbox.forget_attempts([A])
    assert await inbox.lookup([A]) == {}


async def test_inbox_and_attempts_are_seen_together(inbox: Inbox) -> None:
    """A key that is in the inbox and has attempts too shows both."""
    await inbox.record_failures([A])
    await _commit(inbox, A)
    assert await inbox.lookup([A]) == {A: Seen(body_hash=HASH, failures=1)}


async def test_many_keys_at_once(inbox: Inbox) -> None:
    """More keys than one statement takes are still looked up and counted."""
    keys = [event_key("", "thrive", str(number)) for number in range(2_500)]
    counts = await inbox.record_failures(keys)
    assert len(counts) == len(await inbox.lookup(keys)) == 2_500


async def test_concurrent_failures_all_count(database: Database, inbox: Inbox) -> None:
    """Counts recorded at the same time by several tasks, in any order of keys, are all kept."""
    await asyncio.gather(*(inbox.record_failures(random.sample([A, B, C], 3)) for _ in range(20)))
    assert {seen.failures for seen in (await inbox.lookup([A, B, C])).values()} == {20}
    await _healthy(database)


async def test_pruning_goes_by_the_databases_clock(database: Database, inbox: Inbox) -> None:
    """Rows older than the retention go, in several transactions; younger ones, and all without a retention, stay."""
    keys = [event_key("", "thrive", str(number)) for number in range(1_200)]
    await _commit(inbox, *keys)
    await inbox.record_failures([A])
    hour_ago = "datetime('now', '-1 hour')" if database.dialect == "sqlite" else "now() - interval '1 hour'"
    await _commit(inbox, B)
    async with database.engine.begin() as connection:
        young = {"key": B}
        await connection.execute(text(f"UPDATE consumer_inbox SET handled_at = {hour_ago} WHERE key <> :key"), young)
        await connection.execute(text(f"UPDATE consumer_attempts SET updated_at = {hour_ago}"))
    assert await inbox.prune(None) == 0
    assert await inbox.prune(3_700) == 0
    assert await inbox.prune(3_500) == 1_201
    assert await inbox.prune(3_500) == 0
    assert set(await inbox.lookup([*keys, A, B])) == {B}


async def _handle(inbox: Inbox, key: bytes) -> None:
    async with inbox.transaction() as unit:
        unit.session.add(_Note(name=key.hex()))
        await unit.flush_member()
        await asyncio.sleep(0)
        await unit.commit([InboxRow(key, HASH)])


async def test_cancelling_anywhere_leaves_all_or_nothing(database: Database, inbox: Inbox) -> None:
    """Wherever a handler is cancelled, its write and its inbox row are both there or both not; the pool stays whole."""
    step = 0.0002
    for turn in range(60):
        key = event_key("", "thrive", str(turn))
        task = asyncio.create_task(_handle(inbox, key))
        if turn < 30:
            for _ in range(turn):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(step * (turn - 30))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        assert (key in await inbox.lookup([key])) == (key.hex() in await _names(database))
    await _healthy(database)


async def test_cancelling_twice_still_rolls_back(database: Database, inbox: Inbox) -> None:
    """A second cancellation during the rollback does not leave a connection behind."""
    for turn in range(20):
        task = asyncio.create_task(_handle(inbox, event_key("", "thrive", str(turn))))
        for _ in range(turn % 10 + 2):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await _healthy(database)


async def test_cancelled_waiting_is_not_the_handlers_slowness(database: Database, inbox: Inbox) -> None:
    """A handler whose time ran out while others held every connection is told from one that was slow itself."""
    units = [inbox.transaction() for _ in range(database.writers + (2 if database.dialect == "postgresql" else 0))]
    for unit in units:
        await unit.session.execute(text("SELECT 1"))
    with pytest.raises(TimeoutError) as caught:
        async with inbox.transaction() as unit, asyncio.timeout(0.05):
            await unit.session.execute(text("SELECT 1"))
    assert isinstance(classify(caught.value), DatabaseConflict)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(1)
    assert classify(caught.value) is None
    for unit in units:
        await unit.__aexit__(None, None, None)
    await _healthy(database)


async def test_a_swallowed_error_fails_the_commit(database: Database, inbox: Inbox) -> None:
    """A handler that goes on after its flush failed cannot have half of its work committed."""
    async with inbox.transaction() as unit:
        unit.session.add_all([_Note(name="x"), _Note(name="x")])
        with pytest.raises(IntegrityError):
            await unit.session.flush()
        with pytest.raises(InvalidRequestError) as caught:
            await unit.commit([InboxRow(A, HASH)])
    assert classify(caught.value) is None
    assert (await inbox.lookup([A]), await _names(database)) == ({}, [])


async def test_ending_the_transaction_by_the_back_door_fails(database: Database, inbox: Inbox) -> None:
    """Committing on the session's connection is noticed: the event does not count as handled."""
    async with inbox.transaction() as unit:
        connection = await unit.session.connection()
        await connection.commit()
        with pytest.raises(ConsumerError):
            await unit.commit([InboxRow(A, HASH)])
    assert await inbox.lookup([A]) == {}
    await _healthy(database)


async def test_a_deferred_constraint_is_the_handlers(database: Database, inbox: Inbox) -> None:
    """A constraint that is checked only by the commit itself is the handler's mistake too."""
    async with database.engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE child (note INTEGER REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)")
        )
    async with inbox.transaction() as unit:
        await unit.session.execute(text("INSERT INTO child VALUES (7)"))
        with pytest.raises(IntegrityError) as caught:
            await unit.commit([InboxRow(A, HASH)])
    assert classify(caught.value) is None
    assert await inbox.lookup([A]) == {}
    await _healthy(database)
