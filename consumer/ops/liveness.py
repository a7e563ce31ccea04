"""Whether what should make progress makes any: the core of the liveness probe.

Nothing here measures time by itself and no loop has a timer. A loop counts its turns; when a probe comes, `Progress`
compares what it reads with what it read before. Three rules keep the probe from crying wolf:

- Who waits for nothing reads None, and is never late.
- An error is an answer. A queue or database that refuses everything makes loops turn, so it turns no probe red; only
  a call that never returns does, and its own time-outs come first.
- Between two looks at most `LONGEST_STEP` seconds count. A process that was stopped, or that nobody asked for a while,
  has its time to move on before it is judged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["LONGEST_STEP", "Progress", "Spells"]

LONGEST_STEP = 30.0

Reading = Callable[[], Hashable | None]
"""Something that changes with every turn; None while there is nothing to do."""


@dataclass(slots=True)
class _Watched:
    what: str
    read: Reading
    limit: float
    last: Hashable | None = None
    stood: float = 0.0


class Progress:
    """Looks at what was registered, and says what stands still. Takes `now` in monotonic seconds; does no I/O."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._looked_at: float | None = None

    def watch(self, what: str, read: Reading, *, limit: float) -> None:
        """Let `what`, a sentence for people, be the answer once `read` has not changed for `limit` seconds."""
        self._watched.append(_Watched(what, read, limit))

    def standstill(self, now: float) -> str | None:
        """What has stood still for too long, or None."""
        step = 0.0 if self._looked_at is None else min(max(0.0, now - self._looked_at), LONGEST_STEP)
        self._looked_at = now
        found: str | None = None
        for one in self._watched:
            reading = one.read()
            if reading is None or reading != one.last:
                one.last, one.stood = reading, 0.0
                continue
            one.stood += step
            if one.stood >= one.limit and found is None:
                found = f"{one.what} ({one.stood:.0f} s)"
        return found


class Spells:
    """Pieces of work that must each end: `with spells.under_way(): ...`; `oldest` is for `Progress.watch`."""

    __slots__ = ("_begun", "_count")

    def __init__(self) -> None:
        self._begun: dict[int, float] = {}
        self._count = 0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """One piece of work, from its beginning to its end."""
        self._count += 1
        number = self._count
        self._begun[number] = time.monotonic()
        try:
            yield
        finally:
            del self._begun[number]

    @property
    def oldest(self) -> int | None:
        """The number of the piece that has been under way longest; None: there is none."""
        return next(iter(self._begun), None)

    @property
    def longest(self) -> float:
        """For how many seconds that piece has been under way; 0 with none."""
        begun = next(iter(self._begun.values()), None)
        return 0.0 if begun is None else time.monotonic() - begun
