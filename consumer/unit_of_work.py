"""One transaction that holds what handlers write together with the inbox rows of their events."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NoReturn, Self

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from consumer import inbox_sql
from consumer.database import Database
from consumer.database_errors import classify, connection_lost, own_trouble, sqlstate
from consumer.errors import ConsumerError, DatabaseConflict, DatabaseUnavailable

__all__ = ["HandlerSession", "InboxRow", "LostRace", "UnitOfWork"]

_COMMIT_TIMEOUT = 30.0
_ROLLBACK_TIMEOUT = 5.0
_ABORTED = "25P02"
"""in_failed_sql_transaction: a handler went on after an error that had already doomed the transaction."""


class LostRace(DatabaseConflict):
    """Another worker put one of the events into the inbox first; nothing of this transaction was kept."""


@dataclass(frozen=True, slots=True)
class InboxRow:
    """An event that takes effect with this transaction."""

    key: bytes
    body_hash: bytes
    failed_before: bool = False
    """Whether it has a row of attempts, which goes with the commit."""


def _refuse(name: str) -> NoReturn:
    raise ConsumerError(f"session.{name}() is not for handlers: the worker commits when the handler has returned")


class _HeldSession(Session):
    """The half of a session that works, without the methods that end its transaction.

    The worker calls them past these, as `Session.commit(session)`; SQLAlchemy itself does not call them.
    """

    def commit(self) -> None:
        _refuse("commit")

    def rollback(self) -> None:
        _refuse("rollback")

    def close(self) -> None:
        _refuse("close")

    def reset(self) -> None:
        _refuse("reset")

    def invalidate(self) -> None:
        _refuse("invalidate")

    def prepare(self) -> None:
        _refuse("prepare")

    def begin(self, nested: bool = False) -> SessionTransaction:
        if not nested:
            _refuse("begin")
        return super().begin(nested=True)


class HandlerSession(AsyncSession):
    """The session a handler sees as `context.session`.

    Its transaction begins with the first statement and is the worker's to end: `commit`, `rollback`, `close`, `begin`
    and the like raise `ConsumerError`. `begin_nested` is a savepoint as usual. Once the worker has ended the unit of
    work, every use raises.
    """

    sync_session_class = _HeldSession

    async def __aexit__(self, *_: object) -> None:
        _refuse("__aexit__")


class UnitOfWork:
    """What the handlers of one event, or of a group of events, do to the database, all or nothing.

        async with inbox.transaction() as unit:
            await handler(event, unit.session)
            await unit.commit([InboxRow(key, body_hash)])

    Left without `commit`, everything is rolled back, silently. Errors of the handlers' own statements come out as
    SQLAlchemy raises them; `consumer.database.classify` tells whose fault they are.
    """

    __slots__ = ("_database", "_driver", "_ended", "_session", "_touched")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: HandlerSession | None = None
        self._driver: Any = None
        self._touched = False
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._roll_back()

    @property
    def session(self) -> HandlerSession:
        """The handlers' session; made when first asked for, connected at its first statement."""
        if self._session is None:
            self._refuse_when_ended()
            self._session = HandlerSession(self._database.engine, expire_on_commit=False, close_resets_only=False)
        return self._session

    @property
    def touched(self) -> bool:
        """Whether a handler used the session, for reading or writing."""
        return self._touched or (self._session is not None and self._session.in_transaction())

    async def flush_member(self) -> None:
        """Between two events of a group: send what the last handler left pending, then forget its objects.

        So an error comes out in the turn of the handler that caused it, and no object of one handler is seen by the
        next. Raises `ConsumerError` when the handler left a savepoint open or ended the transaction.
        """
        session = self._session
        if session is None or not session.in_transaction():
            return
        if session.in_nested_transaction():
            raise ConsumerError("a handler left a savepoint of session.begin_nested() open")
        if session.new or session.dirty or session.deleted:
            await session.flush()
        await self._require_transaction(session)
        session.expunge_all()
        session.info.clear()

    async def _require_transaction(self, session: HandlerSession) -> None:
        """Find out whether a handler has sent a COMMIT or ROLLBACK of its own as SQL, which no session notices."""
        if self._driver is None:
            connection = await session.connection()
            self._driver = (await connection.get_raw_connection()).driver_connection
        sqlite = self._database.dialect == "sqlite"
        if not (self._driver.in_transaction if sqlite else self._driver.is_in_transaction()):
            raise ConsumerError("a handler ended the transaction with SQL of its own: the worker commits")

    async def commit(self, rows: Sequence[InboxRow]) -> None:
        """Put the events into the inbox and commit everything; after any failure everything is rolled back.

        Raises `LostRace` when another worker handled one of them meanwhile, `DatabaseConflict` when the outcome is
        unknown (both: start again from `Inbox.lookup`), `DatabaseUnavailable`, or what flushing the handlers' objects
        raised.
        """
        self._refuse_when_ended()
        try:
            if self._session is not None and self._session.in_transaction():
                await self._commit_session(self._session, rows)
            elif rows:
                await self._commit_rows(rows)
        except BaseException:
            await self._roll_back()
            raise
        self._ended = True
        if self._session is not None:
            Session.close(self._session.sync_session)  # holds no connection any more, so nothing is awaited

    async def _commit_session(self, session: HandlerSession, rows: Sequence[InboxRow]) -> None:
        await self.flush_member()
        connection = await session.connection()
        if rows:
            await _insert(connection, self._database, rows)
        self._touched = True
        await _settle(session.run_sync(Session.commit))

    async def _commit_rows(self, rows: Sequence[InboxRow]) -> None:
        with own_trouble():
            async with asyncio.timeout(None) as limit, self._database.engine.connect() as connection:
                limit.reschedule(asyncio.get_running_loop().time() + _COMMIT_TIMEOUT)
                await connection.begin()
                await _insert(connection, self._database, rows)
                await _settle(connection.commit())

    async def _roll_back(self) -> None:
        if self._ended:
            return
        self._ended = True
        session = self._session
        if session is not None:
            self._touched = session.in_transaction()
            await _to_the_end(_discard(session))

    def _refuse_when_ended(self) -> None:
        if self._ended:
            raise ConsumerError("the unit of work has ended")


async def _insert(connection: AsyncConnection, database: Database, rows: Sequence[InboxRow]) -> None:
    """Insert the rows, in the order of their keys so that two groups never wait for each other in a circle."""
    try:
        # A lock on the table, which some kinds of maintenance hold for long, is no reason to wait for ever.
        async with asyncio.timeout(_COMMIT_TIMEOUT):
            await _insert_ordered(connection, database, sorted(rows, key=attrgetter("key")))
    except TimeoutError:
        raise DatabaseUnavailable("the inbox did not take its rows in time") from None


async def _insert_ordered(connection: AsyncConnection, database: Database, ordered: Sequence[InboxRow]) -> None:
    keys = [row.key for row in ordered]
    dialect = database.dialect
    try:
        result = await connection.exec_driver_sql(
            inbox_sql.render(inbox_sql.INSERT, dialect, len(keys)),
            inbox_sql.parameters(dialect, keys, [row.body_hash for row in ordered]),
        )
        if result.rowcount < len(keys):
            raise LostRace("an event of this transaction is in the inbox already")
        failed = [row.key for row in ordered if row.failed_before]
        if failed:
            await connection.exec_driver_sql(
                inbox_sql.render(inbox_sql.FORGET_ATTEMPTS, dialect, len(failed)),
                inbox_sql.parameters(dialect, failed),
            )
    except SQLAlchemyError as exc:
        if sqlstate(exc) == _ABORTED:
            raise
        with own_trouble():
            raise


async def _settle(committing: Awaitable[None]) -> None:
    """Commit. A connection lost meanwhile leaves open whether it happened."""
    try:
        async with asyncio.timeout(_COMMIT_TIMEOUT):
            await committing
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        if connection_lost(exc):
            raise DatabaseConflict("the outcome of a commit is unknown") from None
        trouble = classify(exc)
        if trouble is None:  # a constraint that was deferred to the commit
            raise
        raise trouble from None


async def _discard(session: HandlerSession) -> None:
    """Roll back and give the connection back; if even that fails, throw the connection away."""
    try:
        async with asyncio.timeout(_ROLLBACK_TIMEOUT):
            await session.run_sync(Session.close)
    except Exception:  # noqa: BLE001 - the transaction is lost either way, which is what was wanted
        with suppress(Exception):
            await session.run_sync(Session.invalidate)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await work that must not stop half-way; a cancellation meanwhile is raised when it is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
