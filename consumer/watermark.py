"""How far a partition is done: the highest event with none unfinished at or below it."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

__all__ = ["Watermark"]

_GAPS = 100
"""Ranges of sequence numbers that were jumped over and are remembered."""


class Watermark:
    """The place in one partition up to which everything is finished, although events finish in any order.

    It lasts as long as one ownership of the partition, and knows nothing older: an event that comes again after the
    partition was closed and opened is new.
    """

    __slots__ = ("_finished", "_finished_heap", "_gaps", "_highest", "_open", "_open_heap", "_position")

    def __init__(self) -> None:
        self._open: dict[int, str] = {}
        self._open_heap: list[int] = []
        self._finished: dict[int, str] = {}
        self._finished_heap: list[int] = []
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_GAPS)
        self._highest: int | None = None
        self._position: tuple[int, str] | None = None

    @property
    def position(self) -> tuple[int, str] | None:
        """Sequence number and offset of the last event of the finished part; None: nothing to write down yet."""
        return self._position

    @property
    def highest(self) -> int | None:
        """The highest sequence number that has begun."""
        return self._highest

    @property
    def lowest_open(self) -> int | None:
        """The unfinished event that holds the position back."""
        self._forget_closed()
        return self._open_heap[0] if self._open_heap else None

    @property
    def unfinished(self) -> int:
        """How many events have begun and not finished."""
        return len(self._open)

    @property
    def waiting(self) -> int:
        """How many finished events wait above an unfinished one."""
        return len(self._finished)

    def begin(self, sequence: int, offset: str) -> bool:
        """An event arrived. False: this ownership holds it already, or has finished it."""
        highest = self._highest
        if highest is None or sequence > highest:
            if highest is not None and sequence > highest + 1:
                self._gaps.append((highest + 1, sequence - 1))
            self._highest = sequence
        elif not self._in_gap(sequence):
            return False
        self._open[sequence] = offset
        heappush(self._open_heap, sequence)
        return True

    def finish(self, sequence: int) -> bool:
        """An event is finished for good, or durable elsewhere. False: it was not open."""
        offset = self._open.pop(sequence, None)
        if offset is None:
            return False
        self._finished[sequence] = offset
        heappush(self._finished_heap, sequence)
        self._advance()
        return True

    def _advance(self) -> None:
        lowest = self.lowest_open
        while self._finished_heap and (lowest is None or self._finished_heap[0] < lowest):
            sequence = heappop(self._finished_heap)
            offset = self._finished.pop(sequence)
            if self._position is None or sequence > self._position[0]:
                self._position = (sequence, offset)

    def _forget_closed(self) -> None:
        heap = self._open_heap
        while heap and heap[0] not in self._open:
            heappop(heap)

    def _in_gap(self, sequence: int) -> bool:
        """Whether the event was jumped over before, so that it is late rather than a repeat.

        A late event is in the gaps until it begins, and in `_open`, `_finished` or, once those forget it, nowhere:
        so its gap is split around it.
        """
        for first, last in self._gaps:
            if first <= sequence <= last:
                self._gaps.remove((first, last))
                self._gaps.extend(part for part in ((first, sequence - 1), (sequence + 1, last)) if part[0] <= part[1])
                return True
        return False
