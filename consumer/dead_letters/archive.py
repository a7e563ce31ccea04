"""What reads dead letters back, wherever they are kept: the protocol."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from consumer.dead_letters.filters import Chosen, Filter
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter

__all__ = ["Archive", "Chosen", "Damaged", "Entry", "Problem", "Purged", "Unseal"]

Unseal = Callable[[bytes], bytes]
"""Decrypts what is sealed; see `consumer.dead_letters.sealing.unsealer`."""
Damaged = Callable[[bytes], bool]
"""Says of the bytes of a line that cannot be read whether it is meant."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One dead letter and where it stands."""

    record: DeadLetter | SealedDeadLetter
    segment: str
    """The file, object or queue it is in, as a person would write it."""
    place: int
    """Its line there, from 1; on a queue the how manieth it was."""
    fate: str | None
    """What became of it when it was last replayed; None: it was not."""
    raw: bytes = field(repr=False)
    """The line as it is, its newline included."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A line, or with `place` 0 a whole segment, that cannot be read."""

    segment: str
    place: int
    text: str
    half: bool = field(default=False, compare=False)
    """It is the end of a line that was never finished, so its message was never acknowledged: nothing is lost."""

    def __str__(self) -> str:
        where = f"{self.segment}:{self.place}" if self.place else self.segment
        return f"{where}: {self.text}"


@dataclass(slots=True)
class Purged:
    """What a purge did."""

    removed: int = 0
    """Dead letters deleted."""
    kept: int = 0
    """Dead letters left, in the segments that were looked at."""
    skipped: list[str] = field(default_factory=list)
    """Segments that a running process still writes to; they were left alone."""
    problems: list[Problem] = field(default_factory=list)
    """What cannot be read; it was kept."""


class Archive(Protocol):
    """Dead letters to be listed, replayed and deleted.

    Blocking, and used by one thread at a time; a `read` that was begun goes on and is closed in the thread that began
    it. Every method raises DeadLetterError when the store cannot be reached, read or written.
    """

    @property
    def where(self) -> str:
        """What it is, for people: a folder, s3://bucket/prefix, a queue."""
        ...

    def read(
        self, chosen: Filter | None = None, *, unseal: Unseal | None = None, hold: bool = False
    ) -> Generator[Entry | Problem, None, None]:
        """Yield the chosen dead letters, oldest segment first, and what cannot be read; an id counts once.

        With `unseal` sealed ones come out open. Raises NotConfigured when a filter by user meets a sealed one and
        there is no `unseal`. With `hold` a queue keeps what was yielded from others until the archive is closed,
        because fates are to be recorded; without it, only until the generator ends. Files and objects hold nothing.
        """
        ...

    def record_fates(self, segment: str, fates: Mapping[str, str]) -> None:
        """Note what became of the ids of a segment; durable on return. On a queue, what is done is deleted."""
        ...

    def purge(
        self,
        goes: Chosen,
        *,
        handled: bool = False,
        limit: int | None = None,
        damaged: Damaged | None = None,
        begun_before: datetime | None = None,
    ) -> Purged:
        """Delete for good what `goes` says; with `handled`, of those only what a replay has settled; `limit` at most.

        `goes` may raise DeadLetterError for what it cannot judge, which is then kept and told as a problem, as is a
        line that cannot be read, unless `damaged` says of its bytes that it goes too. Deleted fates go along. Segments
        begun at `begun_before` or later, as far as their names say so, are not looked at; a queue has none.
        """
        ...

    def close(self) -> None:
        """Let go of connections, and give back what is held. May be called twice."""
        ...
