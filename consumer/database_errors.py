"""Whose fault a database error is: ours (try again later, or again at once) or the handler's."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from consumer.errors import DatabaseConflict, DatabaseError, DatabaseUnavailable

__all__ = ["classify", "connection_lost", "describe", "own_trouble", "sqlstate", "unreached"]

_CONFLICT_CLASSES = ("40",)
_UNAVAILABLE_CLASSES = ("08", "53", "57", "58")
_UNAVAILABLE_STATES = (
    "25006",  # read_only_sql_transaction: after a failover, the server we talk to is a replica
    "25P03",  # idle_in_transaction_session_timeout
)
_SQLITE_CONFLICTS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_SCHEMA)
_SQLITE_UNAVAILABLE = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
)
_CHAIN = 10
_DRIVER = ("asyncpg.",)
_WAITING = ("sqlalchemy.util.queue", "consumer.sqlite_inline")
"""Where a task is while it waits for a free connection, or for SQLite's write lock."""


def classify(exc: BaseException) -> DatabaseUnavailable | DatabaseConflict | None:
    """What the worker should make of an exception that reached it; None: it is not the database's doing.

    A handler may have wrapped the error in one of its own, so the chain of causes is followed; that also finds what a
    handler was waiting for when its time ran out. The result's text holds class names and codes only.
    """
    link: BaseException | None = exc
    for _ in range(_CHAIN):
        if link is None:
            return None
        trouble = _classify_one(link)
        if trouble is not None:
            return trouble
        link = link.__cause__ or link.__context__
    return None


@contextmanager
def own_trouble() -> Iterator[None]:
    """Around statements of our own: any failure is `DatabaseConflict` or `DatabaseUnavailable`, without its text."""
    try:
        yield
    except DatabaseError:
        raise
    except (SQLAlchemyError, sqlite3.Error, OSError, ValueError) as exc:
        raise (classify(exc) or DatabaseUnavailable(describe(exc))) from None


def describe(exc: BaseException) -> str:
    """Class name and code of an error, never its text, which may hold values."""
    original = _original(exc)
    code = sqlstate(exc) or getattr(original, "sqlite_errorname", None)
    name = type(original).__name__
    return f"{name} ({code})" if code else name


def unreached(error: OSError) -> str:
    """Why there was no way to a server, in words, without the error's own text."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    return f"no connection ({describe(error)})"


def sqlstate(exc: BaseException) -> str | None:
    """PostgreSQL's five-character code of an error, if it has one."""
    value = getattr(_original(exc), "sqlstate", None)
    return value if isinstance(value, str) else None


def connection_lost(exc: BaseException) -> bool:
    """Whether the connection went away under a statement, so that what the statement did is unknown."""
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return True
    return isinstance(exc, OSError) or (sqlstate(exc) or "")[:2] in ("08", "57")


def _original(exc: BaseException) -> BaseException:
    original = getattr(exc, "orig", None)
    return original if isinstance(original, BaseException) else exc


def _classify_one(exc: BaseException) -> DatabaseUnavailable | DatabaseConflict | None:
    if isinstance(exc, DatabaseUnavailable | DatabaseConflict):
        return exc
    kind = _kind(exc)
    return kind(describe(exc)) if kind is not None else None


def _kind(exc: BaseException) -> type[DatabaseUnavailable | DatabaseConflict] | None:
    if _gone(exc):
        return DatabaseUnavailable
    if isinstance(exc, asyncio.CancelledError):
        return DatabaseConflict if _passed_through(exc.__traceback__, _WAITING) else None
    original = _original(exc)
    if isinstance(original, sqlite3.Error):
        return _sqlite_kind(original)
    state = sqlstate(exc) or ""
    if state[:2] in _CONFLICT_CLASSES:
        return DatabaseConflict
    return DatabaseUnavailable if state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES else None


def _gone(exc: BaseException) -> bool:
    """Whether there was no connection to speak through."""
    if isinstance(exc, DBAPIError):
        return exc.connection_invalidated
    if isinstance(exc, PendingRollbackError):
        return exc.code == "8s2b"  # "can't reconnect": the connection was lost and the error not raised on
    return isinstance(exc, PoolTimeout) or (isinstance(exc, OSError) and _passed_through(exc.__traceback__, _DRIVER))


def _sqlite_kind(error: sqlite3.Error) -> type[DatabaseUnavailable | DatabaseConflict] | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary in _SQLITE_CONFLICTS:
        return DatabaseConflict
    return DatabaseUnavailable if primary in _SQLITE_UNAVAILABLE else None


def _passed_through(traceback: TracebackType | None, modules: tuple[str, ...]) -> bool:
    """Whether an exception came up through these modules.

    An OSError of the database's socket has the class of one of a handler's own sockets; and a time-out that fell
    while a handler waited for its turn at the database is not the handler's slowness.
    """
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).startswith(modules):
            return True
        traceback = traceback.tb_next
    return False
