"""What a purge deletes of a segment and what it leaves, line by line; how a segment is replaced is its archive's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from consumer.dead_letters.archive import Chosen, Damaged, Problem, Purged
from consumer.dead_letters.fates import DONE
from consumer.dead_letters.reading import Lines
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, decode
from consumer.errors import DeadLetterError

__all__ = ["Sieve", "Sifted"]


@dataclass(slots=True)
class Sifted:
    """What became of the lines of one segment."""

    removed: int = 0
    kept: int = 0
    ids: set[str] = field(default_factory=set)
    """The ids of the lines that stay."""
    problems: list[Problem] = field(default_factory=list)


class Sieve:
    """Decides which lines go. The arguments are those of `Archive.purge`."""

    def __init__(self, goes: Chosen, *, handled: bool, limit: int | None, damaged: Damaged | None) -> None:
        self.done = Purged()
        """What `count` was told."""
        self._goes = goes
        self._handled = handled
        self._limit = limit
        self._damaged = damaged

    def sift(self, segment: Lines, found: Sifted) -> Iterator[bytes]:
        """Yield the lines that stay and note in `found` what becomes of each. Raises as `segment` does."""
        fates = segment.fates() if self._handled else {}
        for place, line in segment.lines():
            goes, record = self._judged(segment.name, place, line, found, fates)
            if goes and (self._limit is None or self.done.removed + found.removed < self._limit):
                found.removed += 1
                continue
            found.kept += 1
            if record is not None:
                found.ids.add(record.id)
            yield line

    def count(self, found: Sifted) -> None:
        """Add a segment whose lines have really gone, or stayed."""
        self.done.removed += found.removed
        self.done.kept += found.kept
        self.done.problems += found.problems

    def _judged(
        self, segment: str, place: int, line: bytes, found: Sifted, fates: Mapping[str, str]
    ) -> tuple[bool, DeadLetter | SealedDeadLetter | None]:
        record = None
        try:
            record = decode(line)
            return (not self._handled or fates.get(record.id) in DONE) and self._goes(record), record
        except DeadLetterError as error:
            if record is None and self._damaged is not None and self._damaged(line):
                return True, None
            found.problems.append(Problem(segment, place, str(error)))
            return False, record
