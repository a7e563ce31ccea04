"""What only a server, or only a file, does to its clients."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from consumer.database import Database, classify
from consumer.errors import DatabaseConflict, DatabaseUnavailable
from consumer.inbox import Inbox, InboxRow, UnitOfWork, event_key
from tests.servers.postgres import PostgresServer

A, B = (event_key("", "thrive", name) for name in "ab")
HASH = b"h" * 32


async def _kill(postgres: PostgresServer, database: Database) -> None:
    """End every connection of the database, its reader's too."""
    ((name,),) = await database.read("SELECT current_database()")
    await postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)


async def _recovers(inbox: Inbox) -> None:
    async with inbox.transaction() as unit:
        await unit.session.execute(text("SELECT 1"))
        await unit.commit([InboxRow(B, HASH)])
    assert B in await inbox.lookup([B])


async def test_a_deadlock_is_a_conflict(postgres_database: Database) -> None:
    """Two handlers that lock each other's rows: one of them starts again, and it is nobody's failure."""
    inbox = Inbox(postgres_database)
    await inbox.record_failures([A, B])
    locked = asyncio.Barrier(2)

    async def handler(unit: UnitOfWork, first: bytes, second: bytes) -> None:
        statement = text("UPDATE consumer_attempts SET starts = starts + 1 WHERE key = :key")
        await unit.session.execute(statement, {"key": first})
        await locked.wait()
        await unit.session.execute(statement, {"key": second})

    async def run(first: bytes, second: bytes) -> BaseException | None:
        try:
            async with inbox.transaction() as unit:
                await handler(unit, first, second)
                await unit.commit([])
        except Exception as exc:  # noqa: BLE001 - looked at below
            return exc
        return None

    results = await asyncio.gather(run(A, B), run(B, A))
    (error,) = [result for result in results if result is not None]
    trouble = classify(error)
    assert isinstance(trouble, DatabaseConflict)
    assert "40P01" in str(trouble)


async def test_a_backend_killed_in_a_handler(postgres: PostgresServer, postgres_database: Database) -> None:
    """A connection lost in the middle of a transaction is own trouble, and the next transaction works."""
    inbox = Inbox(postgres_database)
    async with inbox.transaction() as unit:
        await unit.session.execute(text("SELECT 1"))
        await _kill(postgres, postgres_database)
        with pytest.raises(DBAPIError) as caught:
            await unit.session.execute(text("SELECT 1"))
    assert isinstance(classify(caught.value), DatabaseUnavailable)
    await _recovers(inbox)


async def test_a_backend_killed_before_the_commit(postgres: PostgresServer, postgres_database: Database) -> None:
    """Losing the connection on the way to the commit is trouble of ours, and nothing was committed."""
    inbox = Inbox(postgres_database)
    async with inbox.transaction() as unit:
        await unit.session.execute(text("SELECT 1"))
        await _kill(postgres, postgres_database)
        with pytest.raises((DatabaseUnavailable, DatabaseConflict)):
            await unit.commit([InboxRow(A, HASH)])
    assert await inbox.lookup([A]) == {}
    await _recovers(inbox)


async def test_a_backend_killed_at_the_commit(postgres: PostgresServer, postgres_database: Database) -> None:
    """Losing the connection with the commit itself leaves the outcome open: start again from the inbox."""
    inbox = Inbox(postgres_database)
    async with inbox.transaction() as unit:
        await unit.session.execute(text("SELECT 1"))
        await _kill(postgres, postgres_database)
        with pytest.raises(DatabaseConflict, match="unknown"):
            await unit.commit([])
    await _recovers(inbox)


async def test_an_unreachable_server_is_own_trouble() -> None:
    """No server, or not this database, is `DatabaseUnavailable` for every operation, without waiting long."""
    database = Database("postgresql://user:secret@127.0.0.1:1/name")
    inbox = Inbox(database)
    for operation in (database.open(), database.ping(), inbox.lookup([A]), inbox.record_failures([A]), inbox.prune(1)):
        with pytest.raises(DatabaseUnavailable) as caught:
            await operation
        assert "secret" not in repr(caught.value)
    async with inbox.transaction() as unit:
        with pytest.raises(DatabaseUnavailable):
            await unit.session.execute(text("SELECT 1"))
    async with inbox.transaction() as unit:
        with pytest.raises(DatabaseUnavailable):
            await unit.commit([InboxRow(A, HASH)])
    await database.close()


async def test_a_wrong_database_name(postgres: PostgresServer) -> None:
    """A server that refuses the login is own trouble too; the text has the code."""
    database = Database(postgres.url_of("nowhere"))
    with pytest.raises(DatabaseUnavailable, match="3D000"):
        await database.open()
    await database.close()


async def test_missing_tables_are_own_trouble(postgres_url: str) -> None:
    """Before `migrate`, no event is blamed for the tables that are not there."""
    database = Database(postgres_url)
    inbox = Inbox(database)
    with pytest.raises(DatabaseUnavailable, match="42P01"):
        await inbox.lookup([A])
    async with inbox.transaction() as unit:
        await unit.session.execute(text("SELECT 1"))
        with pytest.raises(DatabaseUnavailable, match="42P01"):
            await unit.commit([InboxRow(A, HASH)])
    await database.close()


async def test_the_server_knows_who_we_are(postgres_database: Database) -> None:
    """Connections carry the application's name, for those who look at the server."""
    assert await postgres_database.read("SELECT current_setting('application_name')") == [("health-event-consumer",)]


async def test_another_process_holding_the_file_is_waited_for(sqlite_database: Database, tmp_path: Path) -> None:
    """A write lock of another process is waited for without stopping the loop."""
    other = sqlite3.connect(tmp_path / "consumer.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    inbox = Inbox(sqlite_database)

    async def commit() -> None:
        async with inbox.transaction() as unit:
            await unit.commit([InboxRow(A, HASH)])

    waiting = asyncio.create_task(commit())
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert await inbox.lookup([A]) == {}
    assert not waiting.done()
    other.execute("COMMIT")
    await asyncio.wait_for(waiting, 5)
    other.close()
    assert A in await inbox.lookup([A])


async def test_a_file_locked_for_too_long_is_a_conflict(sqlite_database: Database, tmp_path: Path) -> None:
    """When patience ends, the transaction starts again; no event is blamed."""
    impatient = Database(f"sqlite:///{tmp_path}/consumer.db", busy_timeout=0.03)
    await impatient.open()
    inbox = Inbox(impatient)
    other = sqlite3.connect(tmp_path / "consumer.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseConflict, match="SQLITE_BUSY"):
        await inbox.record_failures([A])
    async with inbox.transaction() as unit:
        with pytest.raises(DatabaseConflict):
            await unit.session.execute(text("SELECT 1"))
    other.close()
    await _recovers(inbox)
    await impatient.close()


async def test_a_full_disk_is_own_trouble(sqlite_database: Database) -> None:
    """When the file cannot grow, neither the handler nor the event is blamed, and nothing is half done."""
    inbox = Inbox(sqlite_database)
    async with sqlite_database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE note (name TEXT)"))
        ((pages,),) = (await connection.execute(text("PRAGMA page_count"))).all()
        await connection.execute(text(f"PRAGMA max_page_count = {pages}"))
    async with inbox.transaction() as unit:
        with pytest.raises(DBAPIError) as caught:
            await unit.session.execute(text("INSERT INTO note VALUES (:name)"), {"name": "x" * 100_000})
    assert isinstance(classify(caught.value), DatabaseUnavailable)
    async with inbox.transaction() as unit:
        with pytest.raises(DatabaseUnavailable, match="SQLITE_FULL"):
            await unit.commit([InboxRow(event_key("", "thrive", str(number)), HASH) for number in range(200)])
    async with sqlite_database.engine.begin() as connection:
        await connection.execute(text("PRAGMA max_page_count = 1000000"))
    await _recovers(inbox)
