"""SQLite run inline in the event loop's thread: an adapter with the face of an `aiosqlite` connection.

aiosqlite hands every statement to a thread, which costs more than the statement. Here statements run where they are
called, and only what waits for the disk (`COMMIT`, opening, closing) goes to a thread. Waiting for another process's
write lock is done by asking again between sleeps, so that neither the loop nor a thread is held. Measured with durable
commits: see `benchmarks/`.

SQLAlchemy's aiosqlite dialect takes an `InlineConnection` where it expects an aiosqlite one, through the connect
argument `async_creator_fn`. What the dialect touches of it, in SQLAlchemy 2.0.36 to 2.1, is what exists here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Self, TypeVar

__all__ = ["InlineConnection", "InlineCursor", "in_thread", "is_busy"]

T = TypeVar("T")

_PAUSES = (0.001, 0.002, 0.005, 0.010, 0.015, 0.020, 0.025)
"""Seconds between two questions for the write lock, the last one repeated; SQLite's own handler does much the same."""

_PRAGMAS = (
    "PRAGMA busy_timeout = 0",  # a wait inside SQLite would hold the loop; `_patiently` waits instead
    "PRAGMA synchronous = FULL",  # in WAL mode NORMAL loses acknowledged commits when the power goes
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -4000",
    "PRAGMA journal_size_limit = 67108864",
)


def is_busy(error: BaseException) -> bool:
    """Whether SQLite refused because somebody else holds a lock."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


async def in_thread(executor: Executor, function: Callable[[], T]) -> T:
    """Run a blocking function in a thread and wait until it is over, come what may.

    A cancellation meanwhile is raised when the function has returned: a connection must never be in two hands.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, function)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # looked at, so that it is not reported as forgotten
        raise cancelled
    return future.result()


class _InlineQueue:
    """What the dialect takes for aiosqlite's queue to its thread; used to set the isolation level."""

    def put_nowait(self, item: tuple[asyncio.Future[Any], Callable[[], Any]]) -> None:
        future, function = item
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who waits for the future
            future.set_exception(error)


class InlineConnection:
    """One SQLite connection in WAL mode, with full durability, in autocommit until `begin`."""

    def __init__(self, connection: sqlite3.Connection, executor: Executor, busy_timeout: float) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._executor = executor
        self._busy_timeout = busy_timeout
        self._tx = _InlineQueue()

    @classmethod
    async def open(cls, path: Path, executor: Executor, *, busy_timeout: float) -> Self:
        """Connect to the file, which exists; `busy_timeout` is how long, in seconds, to wait for a lock.

        Raises `sqlite3.Error`; `sqlite3.OperationalError` too where the file system cannot do WAL.
        """
        opened = await _patiently(lambda: in_thread(executor, lambda: _connect(path)), busy_timeout)
        return cls(opened, executor, busy_timeout)

    @property
    def _conn(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("no active connection")  # the very words by which the dialect knows a lost connection
        return self._connection

    @property
    def isolation_level(self) -> str | None:
        """SQLite's; None means that only `begin` begins."""
        return self._conn.isolation_level

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._conn.in_transaction

    async def begin(self) -> None:
        """Take the write lock, waiting for it up to the busy timeout. Raises `sqlite3.OperationalError` (busy)."""

        async def immediately() -> None:
            self._conn.execute("BEGIN IMMEDIATE")

        await _patiently(immediately, self._busy_timeout)

    async def commit(self) -> None:
        """Make the open transaction durable, if there is one; when that fails, forget it."""
        connection = self._conn
        if not connection.in_transaction:
            return
        try:
            await in_thread(self._executor, connection.commit)
        except sqlite3.Error:
            # SQLite keeps a transaction open that could not be committed, which SQLAlchemy does not expect.
            connection.rollback()
            raise

    async def rollback(self) -> None:
        """Forget the open transaction, if there is one."""
        self._conn.rollback()

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of one statement outside a transaction, waiting when the file is locked for recovery."""

        async def immediately() -> list[Any]:
            return self._conn.execute(sql, parameters).fetchall()

        return await _patiently(immediately, self._busy_timeout)

    def cursor(self) -> InlineCursor:
        """A new cursor; it may be awaited or entered, as aiosqlite's may."""
        return InlineCursor(self._conn.cursor())

    async def create_function(self, name: str, arguments: int, function: Callable[..., Any], **kwargs: Any) -> None:
        """Define an SQL function."""
        self._conn.create_function(name, arguments, function, **kwargs)

    async def close(self) -> None:
        """Close it, in a thread, because the last one to leave moves the whole log into the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await in_thread(self._executor, connection.close)

    def stop(self) -> None:
        """Close it at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class InlineCursor:
    """A cursor whose every method is a coroutine that never waits."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cursor.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        row = self._cursor.fetchone()
        if row is None:
            raise StopAsyncIteration
        return row

    @property
    def description(self) -> Any:
        """The columns of the last statement, or None."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row id of the last insert."""
        return self._cursor.lastrowid

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` returns."""
        return self._cursor.arraysize

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self._cursor.arraysize = value

    async def execute(self, sql: str, parameters: Any = ()) -> Self:
        """Run one statement."""
        self._cursor.execute(sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Any]) -> Self:
        """Run one statement many times."""
        self._cursor.executemany(sql, parameters)
        return self

    async def fetchone(self) -> Any:
        """The next row, or None."""
        return self._cursor.fetchone()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows."""
        return self._cursor.fetchmany(size or self._cursor.arraysize)

    async def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return self._cursor.fetchall()

    async def close(self) -> None:
        """Give it back."""
        self._cursor.close()


async def _patiently(attempt: Callable[[], Awaitable[T]], patience: float) -> T:
    """Try until SQLite is not busy, or `patience` seconds have passed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    tries = 0
    while True:
        try:
            return await attempt()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or loop.time() >= deadline:
                raise
        await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
        tries += 1


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except BaseException:
        connection.close()
        raise
    if mode != "wal":
        connection.close()
        raise sqlite3.OperationalError("the file system cannot do WAL")
    return connection
