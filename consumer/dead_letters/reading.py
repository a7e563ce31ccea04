"""Reading dead letters back, oldest segment first, with memory that does not grow with what is read."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final, Protocol

from consumer.dead_letters.archive import Entry, Problem, Unseal
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, decode, open_sealed
from consumer.errors import DeadLetterError, NotConfigured

__all__ = ["LONGEST_LINE", "Lines", "SegmentUnreadable", "read_segments"]

LONGEST_LINE: Final = 64 * 1024 * 1024
"""Bytes; a line without an end comes in pieces of this size."""


class SegmentUnreadable(DeadLetterError):
    """One segment cannot be read; the others perhaps can."""


class Lines(Protocol):
    """One segment, to be read.

    Every method raises SegmentUnreadable, DeadLetterError when no other can be read either, and FileNotFoundError when
    it is gone by now.
    """

    @property
    def name(self) -> str:
        """How a person would write it."""
        ...

    def fates(self) -> Mapping[str, str]:
        """The last fate of each id that was replayed."""
        ...

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the numbered lines, newlines included."""
        ...

    def half(self) -> str:
        """What to say of a last line that has no end."""
        ...


def read_segments(
    segments: Iterable[Lines], chosen: Filter | None = None, *, unseal: Unseal | None = None
) -> Generator[Entry | Problem, None, None]:
    """Yield the chosen dead letters of these segments, and what cannot be read of them.

    A line doubled by a crash counts once, the first. With `unseal` sealed lines come out open. Raises NotConfigured
    when a filter by user meets a sealed line and there is no `unseal`, DeadLetterError when nothing can be read.
    """
    chosen = chosen or Filter()
    yielded = 0
    with contextlib.closing(_Seen()) as seen:
        for segment in segments:
            for found in _read_segment(segment, chosen, unseal, seen):
                if isinstance(found, Entry):
                    if chosen.limit is not None and yielded == chosen.limit:
                        return
                    yielded += 1
                yield found


def _read_segment(
    segment: Lines, chosen: Filter, unseal: Unseal | None, seen: _Seen
) -> Generator[Entry | Problem, None, None]:
    try:
        fates = segment.fates()
        for place, raw in segment.lines():
            try:
                record = _choose(decode(raw), chosen, unseal)
            except DeadLetterError as error:
                whole = raw.endswith(b"\n") or len(raw) == LONGEST_LINE
                yield Problem(segment.name, place, str(error) if whole else segment.half(), half=not whole)
                continue
            if record is not None and seen.first(record.id):
                yield Entry(record, segment.name, place, fates.get(record.id), raw)
    except FileNotFoundError:
        return  # purged since the segments were listed
    except SegmentUnreadable as error:
        yield Problem(segment.name, 0, str(error))


def _choose(
    record: DeadLetter | SealedDeadLetter, chosen: Filter, unseal: Unseal | None
) -> DeadLetter | SealedDeadLetter | None:
    if not chosen.matches(record):
        return None
    if not isinstance(record, SealedDeadLetter):
        return record
    if unseal is not None:
        opened = open_sealed(record, unseal)
        return opened if chosen.matches(opened) else None
    if chosen.users:
        raise NotConfigured("dead_letters.identity_file: needed to choose sealed dead letters by user")
    return record


class _Seen:
    """Which ids were met before. They are kept in a temporary database that spills to disk: millions may come."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def first(self, identity: str) -> bool:
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (identity,)).rowcount == 1

    def close(self) -> None:
        self._db.close()
