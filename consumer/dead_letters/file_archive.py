"""Dead letters in files, read back. A purge is the only thing that ever rewrites a segment, and only a closed one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from consumer.dead_letters.archive import Chosen, Damaged, Entry, Problem, Purged, Unseal
from consumer.dead_letters.file_fates import fates_path, keep_fates, read_fates, record_fates
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.purging import Sieve, Sifted
from consumer.dead_letters.reading import LONGEST_LINE, SegmentUnreadable, read_segments
from consumer.dead_letters.segments import begun_since, closed, segments
from consumer.errors import DeadLetterError
from consumer.files import private_file, sync_folder

__all__ = ["FileArchive"]


class FileArchive:
    """Segment files, and folders of them; an `Archive`. With `missing_ok` a path that is not there holds nothing."""

    def __init__(self, paths: Sequence[Path], *, missing_ok: bool = False) -> None:
        self._paths = paths
        self._missing_ok = missing_ok

    @property
    def where(self) -> str:
        """The paths."""
        return ", ".join(map(str, self._paths))

    def read(
        self, chosen: Filter | None = None, *, unseal: Unseal | None = None, hold: bool = False
    ) -> Generator[Entry | Problem, None, None]:
        """Yield the chosen dead letters, oldest segment first, and what cannot be read; see `Archive.read`.

        Raises DeadLetterError for a path that does not exist or cannot be listed.
        """
        del hold  # files are nobody's while they are read
        yield from read_segments([_File(path) for path in self._found()], chosen, unseal=unseal)

    def record_fates(self, segment: str, fates: Mapping[str, str]) -> None:
        """Add the fates to the file beside the segment."""
        record_fates(Path(segment), fates, at=datetime.now(UTC))

    def purge(
        self,
        goes: Chosen,
        *,
        handled: bool = False,
        limit: int | None = None,
        damaged: Damaged | None = None,
        begun_before: datetime | None = None,
    ) -> Purged:
        """Delete what is meant from closed segments; see `Archive.purge`.

        A segment is compacted by a new file in its place, durably, so a crash leaves it as it was or as it should be.
        """
        sieve = Sieve(goes, handled=handled, limit=limit, damaged=damaged)
        try:
            for path in self._found():
                if begun_since(path.name, begun_before):
                    continue
                try:
                    _purge(path, sieve)
                except SegmentUnreadable as error:  # what cannot be read keeps no other from being deleted
                    sieve.done.problems.append(Problem(str(path), 0, str(error)))
        except OSError as error:
            raise DeadLetterError(f"{self.where}: {error.strerror}") from error
        return sieve.done

    def close(self) -> None:
        """Nothing is held open."""

    def _found(self) -> list[Path]:
        found: list[Path] = []
        for path in self._paths:
            try:
                if path.is_dir():
                    found += segments(path)
                elif path.exists():
                    found.append(path)
                elif not self._missing_ok:
                    raise DeadLetterError(f"{path}: no such file or folder")
            except OSError as error:
                raise DeadLetterError(f"{path}: {error.strerror}") from error
        return found


@dataclass(frozen=True, slots=True)
class _File:
    """One segment; satisfies `Lines`."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def fates(self) -> Mapping[str, str]:
        try:
            return read_fates(self.path)
        except DeadLetterError as error:
            raise SegmentUnreadable(str(error)) from error

    def lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self.path.open("rb") as file:
                place = 1
                while line := file.readline(LONGEST_LINE):
                    yield place, line
                    place += line.endswith(b"\n")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise SegmentUnreadable(error.strerror or type(error).__name__) from error

    def half(self) -> str:
        with closed(self.path) as is_closed:
            return "half-written last line" if is_closed else "last line is half-written, or being written now"


def _purge(path: Path, sieve: Sieve) -> None:
    with contextlib.suppress(FileNotFoundError):  # another purge may be at work
        if path.exists() and not os.access(path, os.R_OK):
            raise SegmentUnreadable("permission denied")
        with closed(path) as free:
            if free:
                _compact(path, sieve)
            else:
                sieve.done.skipped.append(str(path))


def _compact(path: Path, sieve: Sieve) -> None:
    """Write what stays to a new file and put it in the segment's place; with nothing left, remove both."""
    found = Sifted()
    new = path.with_name(path.name + ".new")  # not a segment's name; one that a crash left is overwritten
    try:
        with private_file(new) as file:
            file.writelines(sieve.sift(_File(path), found))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if not found.removed:
        new.unlink()
    elif size:
        new.replace(path)
        keep_fates(path, found.ids)
    else:
        new.unlink()
        path.unlink()
        fates_path(path).unlink(missing_ok=True)
    if found.removed:
        sync_folder(path.parent)
    sieve.count(found)
