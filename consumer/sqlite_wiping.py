"""Leaving no bytes of deleted rows in a SQLite file.

SQLite takes a deleted row out of its page's index and leaves the bytes where they were, in the file and in its log,
until something else needs the room; and rows that were changed leave their earlier text behind in the same way.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["wipe"]


def wipe(path: Path, *, patience: float) -> None:
    """Write the file anew from the rows it has (VACUUM), and empty its log. Blocking; needs its size again, twice.

    Others may have the file open: their writes wait meanwhile, and this waits up to `patience` seconds for each of
    their transactions. Raises `sqlite3.Error`, `sqlite3.OperationalError` (busy) when that was not enough.
    """
    with closing(sqlite3.connect(path, timeout=patience, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("VACUUM")
        # The new content came by the log, which holds the old one too until it is cut off.
        ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise _busy()


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error.sqlite_errorname = "SQLITE_BUSY"
    return error
