"""The inbox's SQL, in the words both databases share; what differs is put in by `render`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

__all__ = [
    "CLEAR_STARTS",
    "COUNT_FAILURE",
    "COUNT_START",
    "DROP_EMPTY_ATTEMPTS",
    "FORGET_ATTEMPTS",
    "INSERT",
    "LOOKUP",
    "MARK_DEAD_LETTERED",
    "parameters",
    "prune",
    "render",
]

Dialect = Literal["sqlite", "postgresql"]

# {keys}: a condition on `key`;  {given}: a table with the one column `k`;  {pairs}: rows of key and body hash.
LOOKUP = (
    "SELECT key, body_hash, 0, 0, FALSE FROM consumer_inbox WHERE {keys} "
    "UNION ALL SELECT key, NULL, failures, starts, dead_lettered FROM consumer_attempts WHERE {keys}"
)
INSERT = "INSERT INTO consumer_inbox (key, body_hash) {pairs} ON CONFLICT (key) DO NOTHING"
# "WHERE TRUE" keeps SQLite from taking the ON of "ON CONFLICT" for that of a join.
COUNT_FAILURE = (
    "INSERT INTO consumer_attempts (key, failures) SELECT k, 1 FROM {given} WHERE TRUE "
    "ON CONFLICT (key) DO UPDATE SET failures = consumer_attempts.failures + 1, starts = 0, "
    "updated_at = CURRENT_TIMESTAMP RETURNING key, failures"
)
COUNT_START = (
    "INSERT INTO consumer_attempts (key, starts) SELECT k, 1 FROM {given} WHERE TRUE "
    "ON CONFLICT (key) DO UPDATE SET starts = consumer_attempts.starts + 1, "
    "updated_at = CURRENT_TIMESTAMP RETURNING starts"
)
MARK_DEAD_LETTERED = (
    "INSERT INTO consumer_attempts (key, dead_lettered) SELECT k, TRUE FROM {given} WHERE TRUE "
    "ON CONFLICT (key) DO UPDATE SET dead_lettered = TRUE, updated_at = CURRENT_TIMESTAMP"
)
CLEAR_STARTS = "UPDATE consumer_attempts SET starts = 0, updated_at = CURRENT_TIMESTAMP WHERE {keys} AND starts > 0"
DROP_EMPTY_ATTEMPTS = "DELETE FROM consumer_attempts WHERE {keys} AND failures = 0 AND starts = 0 AND NOT dead_lettered"
FORGET_ATTEMPTS = "DELETE FROM consumer_attempts WHERE {keys}"


@lru_cache(maxsize=2048)
def render(template: str, dialect: Dialect, count: int) -> str:
    """The statement for so many keys. PostgreSQL takes them as one array, so there it is always the same."""
    if dialect == "postgresql":
        return template.format(
            keys="key = ANY($1::bytea[])",
            given="unnest($1::bytea[]) AS given(k)",
            pairs="SELECT * FROM unnest($1::bytea[], $2::bytea[])",
        )
    return template.format(
        keys=f"key IN ({','.join('?' * count)})",
        given=f"(SELECT column1 AS k FROM (VALUES {','.join(['(?)'] * count)}))",  # noqa: S608 - only question marks
        pairs=f"VALUES {','.join(['(?,?)'] * count)}",
    )


def prune(table: Literal["consumer_inbox", "consumer_attempts"], dialect: Dialect) -> str:
    """The statement that deletes the oldest rows; its parameters are an age in seconds and how many at most."""
    column = "handled_at" if table == "consumer_inbox" else "updated_at"
    if dialect == "postgresql":
        # Rows another worker is deleting, or counting a failure on, are left to the next round.
        old = f"{column} < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED"
    else:
        old = f"{column} < datetime('now', '-' || ? || ' seconds') LIMIT ?"
    return " ".join(("DELETE FROM", table, "WHERE key IN (SELECT key FROM", table, "WHERE", old + ")"))


def parameters(dialect: Dialect, *columns: Sequence[bytes], repeat: int = 1) -> tuple[Any, ...]:
    """Columns of equal length as a statement's parameters; `repeat` for a `{keys}` that stands there twice."""
    if dialect == "postgresql":
        return tuple(list(column) for column in columns)
    if len(columns) == 1:
        return tuple(columns[0]) * repeat
    return tuple(value for row in zip(*columns, strict=True) for value in row)
