"""The database that holds the inbox and what handlers write: SQLite (one file) or PostgreSQL.

Both are reached through SQLAlchemy's asyncio engine. Every error of the database itself comes out as
`DatabaseUnavailable` or `DatabaseConflict`, whose text holds a class name and a code and nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from consumer.database_errors import classify, describe, own_trouble, unreached
from consumer.errors import DatabaseConflict, DatabaseUnavailable, SettingsError
from consumer.sqlite_inline import InlineConnection, in_thread
from consumer.sqlite_wiping import wipe
from consumer.waiting import in_line

__all__ = ["DEFAULT_URL", "Database", "classify"]

DEFAULT_URL = "sqlite+aiosqlite:///consumer.db"

T = TypeVar("T")

_OWN_TIMEOUT = 15.0
"""Seconds one of our own statements or transactions may take before the database counts as gone."""
_CONNECT_TIMEOUT = 5.0
_POSTGRES_PORT = 5432
_POOL_TIMEOUT = 20.0
"""Seconds to wait for a free connection; on SQLite, for the one transaction that may be open."""
_WIPE_PATIENCE = 30.0
_RECYCLE = 300
"""Seconds after which a PostgreSQL connection is replaced, before proxies drop it for its idleness."""
_POSTGRES_WRITERS = 8
_POSTGRES_READERS = 4
_POSTGRES_SPARE = 2
"""Connections beyond the writers', so that counting a failure need not wait for a handler."""


class Database:
    """One database; `open` before use, `close` at the end.

    Raises `SettingsError` at once when the URL cannot be used. Nothing is connected before `open`.
    """

    engine: AsyncEngine
    """For transactions; handlers' own tables may be made through it."""
    dialect: Literal["sqlite", "postgresql"]
    writers: int
    """How many transactions may usefully be open at once."""

    def __init__(
        self, url: str = DEFAULT_URL, *, app_name: str = "health-event-consumer", busy_timeout: float = 5.0
    ) -> None:
        """`busy_timeout` is how long, in seconds, to wait for another process's write lock on a SQLite file."""
        parsed = _parse(url)
        self._sqlite: _Sqlite | None = None
        if parsed.get_backend_name() == "sqlite":
            self.dialect, self.writers = "sqlite", 1
            self._sqlite = _Sqlite(_sqlite_path(parsed), busy_timeout)
            self.engine = self._reader = self._sqlite.engine
        else:
            self.dialect, self.writers = "postgresql", _POSTGRES_WRITERS
            arguments = _postgres_arguments(parsed, app_name)
            url = "postgresql+asyncpg://"
            self.engine = _engine(url, arguments, size=_POSTGRES_WRITERS, max_overflow=_POSTGRES_SPARE)
            # Reads have connections of their own, so that they never queue behind transactions.
            self._reader = _engine(url, arguments, size=_POSTGRES_READERS, isolation_level="AUTOCOMMIT")

    @staticmethod
    def classify(exc: BaseException) -> DatabaseUnavailable | DatabaseConflict | None:
        """Whether an exception is the database's trouble rather than a handler's; see `consumer.database_errors`."""
        return classify(exc)

    async def open(self) -> None:
        """Make sure the database answers. May be called again, after a failure or not.

        Raises `DatabaseUnavailable`, or `SettingsError` when the folder of a SQLite file does not exist.
        """
        if self._sqlite is not None:
            with own_trouble():
                await self._sqlite.open()
        await self.ping()

    async def ping(self) -> None:
        """Raise `DatabaseUnavailable` unless the database answers within seconds."""
        if self._sqlite is not None:
            self._sqlite.require_file()
        await self.read("SELECT 1" if self._sqlite is None else "SELECT 1 FROM sqlite_master LIMIT 1")

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
        """All rows of one statement outside any transaction, in one round trip, never behind a writer.

        The SQL is the dialect's own, with `?` (SQLite) or `$1` (PostgreSQL).
        """
        with own_trouble():
            async with asyncio.timeout(_OWN_TIMEOUT):
                if self._sqlite is not None:
                    return await self._sqlite.reader.fetch(sql, parameters)
                try:
                    return await self._fetch(sql, parameters)
                except DBAPIError as exc:
                    if not exc.connection_invalidated:
                        raise
                # The pooled connection had died meanwhile; the pool has thrown away all its contemporaries.
                return await self._fetch(sql, parameters)

    async def _fetch(self, sql: str, parameters: Sequence[Any]) -> Sequence[Any]:
        async with self._reader.connect() as connection:
            return (await connection.exec_driver_sql(sql, tuple(parameters))).all()

    @asynccontextmanager
    async def transaction(self, *, within: float = _OWN_TIMEOUT) -> AsyncIterator[AsyncConnection]:
        """A short transaction of our own, committed at the end; whatever goes wrong inside is own trouble.

        After `within` seconds it counts as failed; waiting for a connection is not part of them. On SQLite it waits for
        the other transactions of this process, so it must not be opened inside one of them.
        """
        with own_trouble():
            async with asyncio.timeout(None) as limit, self.engine.begin() as connection:
                limit.reschedule(asyncio.get_running_loop().time() + within)
                yield connection

    async def wipe(self) -> bool:
        """Leave no bytes of deleted rows in a SQLite file; False for PostgreSQL, whose server does it in its own time.

        Takes as long as writing all of the file twice. Raises `DatabaseConflict` when others kept it busy for half a
        minute, `DatabaseUnavailable` when there is no room, say.
        """
        if self._sqlite is None:
            return False
        with own_trouble():
            await self._sqlite.wipe()
        return True

    async def close(self) -> None:
        """Close every connection. Never raises for a database that is gone."""
        with suppress(Exception):
            await self.engine.dispose()
        with suppress(Exception):
            await self._reader.dispose()
        if self._sqlite is not None:
            with suppress(Exception):
                await self._sqlite.close()


class _Sqlite:
    """A SQLite file: one connection that writes, another that reads beside it."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._reader: InlineConnection | None = None
        url = URL.create("sqlite+aiosqlite", database=str(path))
        self.engine = _engine(url, {"async_creator_fn": self._connect}, size=1, pool_recycle=-1, poolclass=_Line)
        self._identity: tuple[int, int] | None = None
        event.listen(self.engine.sync_engine, "begin", self._begin)
        event.listen(self.engine.sync_engine, "commit", self._commit)

    def _begin(self, connection: Connection) -> None:
        """Take the write lock when a transaction begins: one that reads first cannot always get it later."""
        self.require_file()
        driver: Any = connection.connection.dbapi_connection
        with own_trouble(), in_line():
            driver.run_async(InlineConnection.begin)

    def _commit(self, _: Connection) -> None:
        pool = self.engine.sync_engine.pool
        if isinstance(pool, _Line):
            pool.commits += 1

    def require_file(self) -> None:
        """Raise `DatabaseUnavailable` unless the path leads to the file that is open.

        SQLite goes on writing into a file that was removed or replaced, where nobody will ever look.
        """
        try:
            found = self._path.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise DatabaseUnavailable("the SQLite file was removed or replaced: put it back, or restart")

    @property
    def reader(self) -> InlineConnection:
        if self._reader is None:
            raise DatabaseUnavailable("not open")
        return self._reader

    async def open(self) -> None:
        if not self._path.parent.is_dir():
            raise SettingsError("database.url: the folder of the SQLite file does not exist")
        if self._reader is None:
            # SQLite gives its -wal and -shm files the mode of the database itself.
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._reader = await self._connect()
            found = self._path.stat()
            self._identity = (found.st_dev, found.st_ino)

    async def wipe(self) -> None:
        self.require_file()
        await in_thread(self._executor, partial(wipe, self._path, patience=_WIPE_PATIENCE))

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        self._executor.shutdown(wait=False)

    async def _connect(self, *_: Any, **__: Any) -> InlineConnection:
        return await _reached(InlineConnection.open(self._path, self._executor, busy_timeout=self._busy_timeout))


class _Pool(AsyncAdaptedQueuePool):
    """A pool that says how long its callers waited for a connection."""

    def _do_get(self) -> ConnectionPoolEntry:
        with in_line():
            return super()._do_get()


class _Line(_Pool):
    """The line for SQLite's one writer: however long it is, there is no trouble while transactions are committed."""

    commits = 0

    def _do_get(self) -> ConnectionPoolEntry:
        while True:
            before = self.commits
            try:
                return super()._do_get()
            except PoolTimeout:
                if self.commits == before:
                    raise


def _engine(url: str | URL, arguments: dict[str, Any], *, size: int, **options: Any) -> AsyncEngine:
    return create_async_engine(
        url,
        connect_args=arguments,
        pool_size=size,
        pool_timeout=_POOL_TIMEOUT,
        hide_parameters=True,
        **({"max_overflow": 0, "pool_recycle": _RECYCLE, "poolclass": _Pool} | options),
    )


async def _reached(connecting: Awaitable[T], server: str | None = None) -> T:
    """A connection, or `DatabaseUnavailable`: whatever fails before there is one is no event's fault."""
    try:
        return await connecting
    except Exception as exc:  # noqa: BLE001 - drivers raise their own, OSError, ValueError for certificates, ...
        if server is not None and isinstance(exc, OSError):
            raise DatabaseUnavailable(f"cannot connect: {unreached(exc)} at {server}") from None
        raise (classify(exc) or DatabaseUnavailable(f"cannot connect: {describe(exc)}")) from None


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    names = ("sqlite", "sqlite+aiosqlite", "postgres", "postgresql", "postgres+asyncpg", "postgresql+asyncpg")
    if parsed is None or parsed.drivername not in names:
        raise SettingsError("database.url: expected sqlite:///FILE or postgresql://USER@HOST/NAME")
    if parsed.drivername.startswith("postgres"):
        if find_spec("asyncpg") is None:
            raise SettingsError("database is postgresql: pip install 'health-event-consumer[postgres]'")
        return parsed.set(drivername="postgresql")
    return parsed


def _sqlite_path(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:") or url.query:
        raise SettingsError("database.url: SQLite needs a file and takes no options: sqlite:///consumer.db")
    return Path(url.database).absolute()


def _postgres_arguments(url: URL, app_name: str) -> dict[str, Any]:
    """What SQLAlchemy passes to the driver, which reads the URL itself: it knows every libpq option (sslmode, ...)."""
    import asyncpg  # noqa: PLC0415 - an extra

    query = dict(url.query)
    cache = {name: _count(query.pop(name)) for name in ("prepared_statement_cache_size",) if name in query}
    driver: dict[str, Any] = {name: _count(query.pop(name)) for name in ("statement_cache_size",) if name in query}
    # What parks and unparks events must see what others committed meanwhile, whatever the server's own default is.
    driver["server_settings"] = {"default_transaction_isolation": "read committed"}
    if "application_name" not in query:
        driver["server_settings"]["application_name"] = app_name
    dsn = url.set(query=query).render_as_string(hide_password=False)

    server = f"{url.host}:{url.port or _POSTGRES_PORT}" if url.host else "libpq's default address"

    async def connect(**_: Any) -> Any:
        return await _reached(asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT, **driver), server)

    return {"async_creator_fn": connect, **cache}


def _count(value: str | tuple[str, ...]) -> int:
    if not isinstance(value, str) or not value.isdecimal():
        raise SettingsError("database.url: expected a number for each cache size")
    return int(value)
