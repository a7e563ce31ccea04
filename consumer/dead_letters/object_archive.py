"""Dead letters that are objects, read back in place, a piece at a time; fates are objects beside them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import Final

from consumer.dead_letters.archive import Chosen, Damaged, Entry, Problem, Purged, Unseal
from consumer.dead_letters.fates import FATES_SUFFIX, fates_in, fates_of, lines_of_fates
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.objects import ObjectChanged, Objects, Piece
from consumer.dead_letters.purging import Sieve, Sifted
from consumer.dead_letters.reading import LONGEST_LINE, SegmentUnreadable, read_segments
from consumer.dead_letters.segments import SUFFIX, UNPROVEN, begun_since
from consumer.errors import DeadLetterError

__all__ = ["ObjectArchive"]

_AHEAD: Final = 8
"""Segments read at once, of each the first piece."""
_TRIES: Final = 20
"""How often a change is begun again because somebody else changed the object meanwhile."""


class ObjectArchive:
    """The segments of an object store; an `Archive`.

    A segment is whole when it is there, and nobody writes to it, so none is ever skipped. Whatever is changed, is
    changed only if it still is what was read.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    @property
    def where(self) -> str:
        """The folder."""
        return self._objects.where

    def read(
        self, chosen: Filter | None = None, *, unseal: Unseal | None = None, hold: bool = False
    ) -> Generator[Entry | Problem, None, None]:
        """Yield the chosen dead letters, oldest segment first, and what cannot be read; see `Archive.read`."""
        del hold  # objects are nobody's while they are read
        with closing(self._begun()) as segments:
            yield from read_segments(segments, chosen, unseal=unseal)

    def record_fates(self, segment: str, fates: Mapping[str, str]) -> None:
        """Add the fates to the object beside the segment."""
        name = segment.removeprefix(self.where) + FATES_SUFFIX
        self._change_fates(name, partial(_with_fates, fates))

    def purge(
        self,
        goes: Chosen,
        *,
        handled: bool = False,
        limit: int | None = None,
        damaged: Damaged | None = None,
        begun_before: datetime | None = None,
    ) -> Purged:
        """Delete what is meant; see `Archive.purge`. A segment is replaced in one step, or deleted when it is empty."""
        sieve = Sieve(goes, handled=handled, limit=limit, damaged=damaged)
        with closing(self._begun(begun_before)) as segments:
            for segment in segments:
                try:
                    self._compact(segment, sieve)
                except SegmentUnreadable as error:  # what cannot be read keeps no other from being deleted
                    sieve.done.problems.append(Problem(segment.name, 0, str(error)))
        return sieve.done

    def close(self) -> None:
        """Let go of the connections."""
        self._objects.close()

    def _begun(self, before: datetime | None = None) -> Generator[_Object, None, None]:
        """The segments, oldest first, some of them read ahead: there are many, and each takes a while to be had."""
        threads = ThreadPoolExecutor(_AHEAD, thread_name_prefix="dead-letters")
        begun: deque[tuple[_Object, Future[None]]] = deque()
        try:
            for name, replayed in self._segments():
                if begun_since(name, before):
                    break  # and so are all that follow
                segment = _Object(self._objects, name, replayed=replayed)
                begun.append((segment, threads.submit(segment.begin)))
                if len(begun) == _AHEAD:
                    yield _waited(*begun.popleft())
            while begun:
                yield _waited(*begun.popleft())
        finally:
            threads.shutdown(cancel_futures=True)

    def _segments(self) -> Iterator[tuple[str, bool]]:
        """The names of the segments, oldest first, and whether each has fates; never more than a page in memory."""
        proven = ((name, name, replayed) for name, replayed in self._listed("") if not name.startswith(UNPROVEN))
        unproven = ((name.removeprefix(UNPROVEN), name, replayed) for name, replayed in self._listed(UNPROVEN))
        for _, name, replayed in heapq.merge(proven, unproven):
            yield name, replayed

    def _listed(self, start: str) -> Iterator[tuple[str, bool]]:
        last: str | None = None
        for found in self._objects.list(start):
            if last is not None:
                # Nothing of ours sorts between a name and the name of its fates.
                yield last, found.name == last + FATES_SUFFIX
            is_segment = found.name.endswith(SUFFIX) and "/" not in found.name and not found.name.startswith(".")
            last = found.name if is_segment else None
        if last is not None:
            yield last, False

    def _compact(self, segment: _Object, sieve: Sieve) -> None:
        name = segment.key
        written: tuple[bytes, Sifted] | None = None
        for _ in range(_TRIES):
            found = Sifted()
            try:
                kept = b"".join(sieve.sift(segment, found))
                if written is not None and not found.removed and kept == written[0]:
                    found = written[1]  # it was written when the SDK asked once, and the answer was lost
                elif kept and found.removed:
                    written = kept, found
                    self._objects.replace(name, kept, etag=segment.etag)
                elif found.removed:
                    # Whoever else changed it only took lines out of it, so nothing that stays can be lost here.
                    self._objects.delete(name)
            except FileNotFoundError:
                return  # another purge was faster
            except ObjectChanged:
                segment = _Object(self._objects, name)
                continue
            sieve.count(found)
            if found.removed:
                self._change_fates(name + FATES_SUFFIX, partial(_fates_left, found.ids))
            return
        raise self._contended(name)

    def _change_fates(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Write what `change` makes of the lines of an object, which may not be there; with none left, delete it."""
        for _ in range(_TRIES):
            fates = _Object(self._objects, name)
            try:
                before = fates.whole()
                after = change(before)
                if after == before:
                    return
                if not before:
                    self._objects.create(name, after)
                elif after:
                    self._objects.replace(name, after, etag=fates.etag)
                else:
                    self._objects.delete(name)
            except ObjectChanged:
                continue
            return
        raise self._contended(name)

    def _contended(self, name: str) -> DeadLetterError:
        return DeadLetterError(f"{self.where}{name}: others change it all the time: try again later")


class _Object:
    """One object, read a piece at a time and never two versions of it; satisfies `Lines`."""

    def __init__(self, objects: Objects, name: str, *, replayed: bool = True) -> None:
        """Without `replayed` it is known to have no fates."""
        self.etag = ""
        """The version that was read last."""
        self.key = name
        """Its name in the folder."""
        self._objects = objects
        self._replayed = replayed
        self._first: Piece | Exception | None = None

    @property
    def name(self) -> str:
        return self._objects.where + self.key

    def begin(self) -> None:
        """Read the first piece, to be at hand when it is asked for; what went wrong is raised then."""
        try:
            self._first = self._objects.read(self.key)
        except (DeadLetterError, FileNotFoundError) as error:
            self._first = error

    def fates(self) -> Mapping[str, str]:
        if not self._replayed:
            return {}
        return fates_in(_Object(self._objects, self.key + FATES_SUFFIX).whole().splitlines(keepends=True))

    def whole(self) -> bytes:
        """All of it; nothing when it is not there. Raises ObjectChanged."""
        try:
            return b"".join(self._pieces())
        except FileNotFoundError:
            return b""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        place, rest = 1, b""
        for piece in self._pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield place, line + b"\n"
                place += 1
            while len(rest) >= LONGEST_LINE:
                yield place, rest[:LONGEST_LINE]
                rest = rest[LONGEST_LINE:]
        if rest:
            yield place, rest

    def half(self) -> str:
        return "half-written last line"

    def _pieces(self) -> Iterator[bytes]:
        read = 0
        while True:
            piece = self._piece(read)
            self.etag = piece.etag
            read += len(piece.data)
            yield piece.data
            if read >= piece.total or not piece.data:
                return

    def _piece(self, offset: int) -> Piece:
        first, self._first = self._first, None
        if isinstance(first, Exception):
            raise first
        if first is not None and offset == 0:
            return first
        return self._objects.read(self.key, offset=offset, etag=self.etag if offset else None)


def _waited(segment: _Object, begun: Future[None]) -> _Object:
    begun.result()
    return segment


def _with_fates(fates: Mapping[str, str], lines: bytes) -> bytes:
    return lines + lines_of_fates(fates, at=datetime.now(UTC))


def _fates_left(ids: Collection[str], lines: bytes) -> bytes:
    return fates_of(ids, lines.splitlines(keepends=True))
