"""The interval of Sahha's webhooks: of a metric that changes often, only the last value is sent. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["IntervalWindows"]

Payload = TypeVar("Payload")


@dataclass(slots=True)
class _Window(Generic[Payload]):
    opened_at: float
    held: Payload | None = None


class IntervalWindows(Generic[Payload]):
    """A window for each metric of each profile: a delivery opens it, and until it ends later values are held.

    When it ends, the last value held is delivered, which opens the next window; with nothing held it closes. `interval`
    is in seconds, 0 holds nothing back. Times are seconds on one clock that never goes back.

    [D] connect/webhooks; whether a held value opens a window again is inferred: it is a delivery like any other.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._windows: dict[Hashable, _Window[Payload]] = {}

    @property
    def interval(self) -> float:
        """The length of a window, in seconds."""
        return self._interval

    @interval.setter
    def interval(self, interval: float) -> None:
        """Change the length, of the windows that are open too."""
        self._interval = interval

    @property
    def held(self) -> int:
        """How many values wait for the end of their window."""
        return sum(window.held is not None for window in self._windows.values())

    def offer(self, key: Hashable, payload: Payload, now: float) -> Payload | None:
        """Take a new value of the metric `key`; what is to be delivered at once, or None if it is held."""
        window = self._windows.get(key)
        if window is not None and now < window.opened_at + self._interval:
            window.held = payload
            return None
        # A value that was held past the end of its window is superseded by this one.
        self._windows[key] = _Window(now)
        return payload

    def due(self, now: float) -> list[Payload]:
        """The held values whose windows have ended, earliest end first; each opens the next window."""
        ended = sorted(self._ended(now), key=lambda key: self._windows[key].opened_at)
        ready: list[Payload] = []
        for key in ended:
            held = self._windows.pop(key).held
            if held is not None:
                ready.append(held)
                self._windows[key] = _Window(now)
        return ready

    def next_due(self) -> float | None:
        """When the first held value is to be delivered; None while nothing is held."""
        return min(
            (window.opened_at + self._interval for window in self._windows.values() if window.held is not None),
            default=None,
        )

    def _ended(self, now: float) -> Iterator[Hashable]:
        return (key for key, window in self._windows.items() if now >= window.opened_at + self._interval)
