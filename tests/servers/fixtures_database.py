"""Databases for tests: `database` is a migrated one, on SQLite and then on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from consumer.database import Database
from consumer.inbox import Inbox
from consumer.migrations import migrate
from tests.servers.postgres import PostgresServer, postgres_server

__all__ = ["database", "database_url", "inbox", "postgres", "postgres_database", "postgres_url", "sqlite_database"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole run."""
    with postgres_server() as server:
        yield server


@pytest.fixture
async def postgres_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """A new database on it."""
    async with postgres.fresh_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/consumer.db"
        return
    # Asked for here, so that tests on SQLite alone start no server.
    server: PostgresServer = request.getfixturevalue("postgres")
    async with server.fresh_database() as url:
        yield url


async def _migrated(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.open()
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated database of either kind."""
    async for one in _migrated(database_url):
        yield one


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[Database]:
    """An open, migrated SQLite file."""
    async for one in _migrated(f"sqlite:///{tmp_path}/consumer.db"):
        yield one


@pytest.fixture
async def postgres_database(postgres_url: str) -> AsyncIterator[Database]:
    """An open, migrated PostgreSQL database."""
    async for one in _migrated(postgres_url):
        yield one


@pytest.fixture
def inbox(database: Database) -> Inbox:
    """The inbox in `database`."""
    return Inbox(database)
