"""When a batch of settlements is sent: as soon as it is full, or when its first entry has waited long enough."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Batcher"]

T = TypeVar("T")


class Batcher(Generic[T]):
    """Collects entries into batches of at most `most`, none waiting longer than `linger` seconds."""

    __slots__ = ("_entries", "_since", "linger", "most")

    def __init__(self, *, most: int, linger: float) -> None:
        self.most = most
        self.linger = linger
        self._entries: list[T] = []
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: T, now: float) -> list[T] | None:
        """Add an entry; the batch it completed, or None."""
        if not self._entries:
            self._since = now
        self._entries.append(entry)
        return self.take() if len(self._entries) >= self.most else None

    @property
    def due(self) -> float | None:
        """When the batch begun must be sent, or None when there is none."""
        return self._since + self.linger if self._entries else None

    def take(self) -> list[T]:
        """The batch begun, full or not."""
        entries, self._entries = self._entries, []
        return entries
