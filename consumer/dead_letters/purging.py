"""Deleting dead letters for good: the only thing that ever rewrites a segment, and only a closed one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from consumer.dead_letters.fates import DONE, fates_path, keep_fates, read_fates
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.reading import Problem, lines_of
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, decode, open_sealed
from consumer.dead_letters.segments import closed, segments
from consumer.errors import DeadLetterError, NotConfigured
from consumer.files import private_file, sync_folder

__all__ = ["Purged", "purge"]


@dataclass(slots=True)
class Purged:
    """What a purge did."""

    removed: int = 0
    """Lines deleted."""
    kept: int = 0
    """Lines left, in the segments that were looked at."""
    skipped: list[Path] = field(default_factory=list)
    """Segments that a running process still writes to; they were left alone."""
    problems: list[Problem] = field(default_factory=list)
    """Lines that cannot be read; they were kept."""


def purge(
    folder: Path,
    chosen: Filter,
    *,
    unseal: Callable[[bytes], bytes] | None = None,
    handled: bool = False,
) -> Purged:
    """Delete the chosen dead letters of a folder's closed segments; with `handled`, only those a replay has settled.

    A segment is compacted by a new file in its place, durably, so a crash leaves it as it was or as it should be.
    Blocking. Raises ValueError for a filter that lets everything through (unless `handled`), NotConfigured when a
    filter by user meets a sealed line without `unseal`, DeadLetterError when a file cannot be read or written.
    """
    if chosen.empty and not handled:
        raise ValueError("a purge needs a filter")
    work = _Purge(chosen, unseal, handled=handled)
    try:
        for path in segments(folder):
            with contextlib.suppress(FileNotFoundError), closed(path) as free:  # another purge may be at work
                if free:
                    work.compact(path)
                else:
                    work.done.skipped.append(path)
        sync_folder(folder)
    except OSError as error:
        raise DeadLetterError(f"{folder}: {error.strerror}") from error
    return work.done


class _Purge:
    def __init__(self, chosen: Filter, unseal: Callable[[bytes], bytes] | None, *, handled: bool) -> None:
        self.done = Purged()
        self._chosen = chosen
        self._unseal = unseal
        self._handled = handled

    def compact(self, path: Path) -> None:
        """Write what stays to a new file and put it in the segment's place; with nothing left, remove both."""
        fates = read_fates(path)
        before = self.done.removed
        kept_ids: set[str] = set()
        new = path.with_name(path.name + ".new")  # not a segment's name; one that a crash left is overwritten
        with private_file(new) as file:
            for line_no, line in lines_of(path):
                record = self._record(path, line_no, line)
                if record is not None and self._goes(record, fates):
                    self.done.removed += 1
                    continue
                self.done.kept += 1
                kept_ids.update(() if record is None else (record.id,))
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if self.done.removed == before:
            new.unlink()
        elif size:
            new.replace(path)
            keep_fates(path, kept_ids)
        else:
            new.unlink()
            path.unlink()
            fates_path(path).unlink(missing_ok=True)

    def _record(self, path: Path, line_no: int, line: bytes) -> DeadLetter | SealedDeadLetter | None:
        try:
            record = decode(line)
            if self._chosen.users and isinstance(record, SealedDeadLetter) and self._chosen.matches(record):
                return self._opened(record)
        except DeadLetterError as error:
            self.done.problems.append(Problem(path, line_no, str(error)))
            return None
        return record

    def _opened(self, record: SealedDeadLetter) -> DeadLetter:
        if self._unseal is None:
            raise NotConfigured("dead_letters.identity_file: needed to choose sealed dead letters by user")
        return open_sealed(record, self._unseal)

    def _goes(self, record: DeadLetter | SealedDeadLetter, fates: dict[str, str]) -> bool:
        limit = self._chosen.limit
        if limit is not None and self.done.removed >= limit:
            return False
        return self._chosen.matches(record) and (not self._handled or fates.get(record.id) in DONE)
