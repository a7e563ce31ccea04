"""Reading dead letters back, oldest segment first, with memory that does not grow with what is read."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from consumer.dead_letters.fates import read_fates
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, decode, open_sealed
from consumer.dead_letters.segments import closed, segments
from consumer.errors import DeadLetterError, NotConfigured

__all__ = ["Entry", "Problem", "find_segments", "lines_of", "read"]

_LONGEST_LINE: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One dead letter and where it stands."""

    record: DeadLetter | SealedDeadLetter
    path: Path
    line_no: int
    """From 1."""
    fate: str | None
    """What became of it when it was last replayed; None: it was not."""
    raw: bytes = field(repr=False)
    """The line as it is, its newline included."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A line, or with `line_no` 0 a whole file, that cannot be read."""

    path: Path
    line_no: int
    text: str
    half: bool = field(default=False, compare=False)
    """It is the end of a line that was never finished, so its message was never acknowledged: nothing is lost."""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line_no}" if self.line_no else str(self.path)
        return f"{place}: {self.text}"


def find_segments(paths: Iterable[Path]) -> list[Path]:
    """The segments that are meant: files as given, folders by their segments, oldest first.

    Raises DeadLetterError for what does not exist or cannot be listed.
    """
    found: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                found += segments(path)
            elif path.exists():
                found.append(path)
            else:
                raise DeadLetterError(f"{path}: no such file or folder")
        except OSError as error:
            raise DeadLetterError(f"{path}: {error.strerror}") from error
    return found


def read(
    paths: Iterable[Path],
    *,
    chosen: Filter | None = None,
    unseal: Callable[[bytes], bytes] | None = None,
) -> Iterator[Entry | Problem]:
    """Yield the chosen dead letters of these segments, and what cannot be read of them.

    A line doubled by a crash counts once, the first. With `unseal` sealed lines come out open. Raises NotConfigured
    when a filter by user meets a sealed line and there is no `unseal`.
    """
    chosen = chosen or Filter()
    yielded = 0
    with contextlib.closing(_Seen()) as seen:
        for path in paths:
            for found in _read_segment(path, chosen, unseal, seen):
                if isinstance(found, Entry):
                    if chosen.limit is not None and yielded == chosen.limit:
                        return
                    yielded += 1
                yield found


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines of a segment, newlines included; an endless line comes in pieces. Raises OSError."""
    with path.open("rb") as file:
        line_no = 1
        while line := file.readline(_LONGEST_LINE):
            yield line_no, line
            line_no += line.endswith(b"\n")


def _read_segment(
    path: Path, chosen: Filter, unseal: Callable[[bytes], bytes] | None, seen: _Seen
) -> Iterator[Entry | Problem]:
    try:
        fates = read_fates(path)
        for line_no, raw in lines_of(path):
            try:
                record = _choose(decode(raw), chosen, unseal)
            except DeadLetterError as error:
                whole = raw.endswith(b"\n") or len(raw) == _LONGEST_LINE
                yield Problem(path, line_no, str(error) if whole else _half(path), half=not whole)
                continue
            if record is not None and seen.first(record.id):
                yield Entry(record, path, line_no, fates.get(record.id), raw)
    except FileNotFoundError:
        return  # purged since the folder was listed
    except OSError as error:
        yield Problem(path, 0, error.strerror or type(error).__name__)
    except DeadLetterError as error:
        yield Problem(path, 0, str(error))


def _choose(
    record: DeadLetter | SealedDeadLetter, chosen: Filter, unseal: Callable[[bytes], bytes] | None
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


def _half(path: Path) -> str:
    with closed(path) as is_closed:
        return "half-written last line" if is_closed else "last line is half-written, or being written now"


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
