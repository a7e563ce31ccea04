"""How many requests a second a client may begin: a pure core, told the time."""

from __future__ import annotations

__all__ = ["Pacer"]


class Pacer:
    """Spreads requests evenly: each gets the next free slot, `1 / rate` seconds after the one before.

    There is no burst to save up for: after a quiet hour the first request goes at once, the second a slot later.
    """

    __slots__ = ("_gap", "_next")

    def __init__(self, rate: float | None) -> None:
        """`rate` in requests a second; None for as many as there are."""
        self._gap = 1.0 / rate if rate else 0.0
        self._next = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the slot that this call takes; `now` is of a monotonic clock."""
        if not self._gap:
            return 0.0
        slot = max(self._next, now)
        self._next = slot + self._gap
        return slot - now
