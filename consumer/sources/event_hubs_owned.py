"""One partition of an event hub while this process owns it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from consumer.partitions import Partition

if TYPE_CHECKING:
    from consumer.sources.checkpoint_blobs import PartitionCheckpoint

__all__ = ["Owned"]

_SAVE_AFTER: Final = 1_000
"""Events finished since the last checkpoint that make the next one due before its time."""
_SAVE_SPACING: Final = 1.0
"""Seconds between two checkpoints of a partition, at least."""


class Owned:
    """One partition, from when it became ours to when it is not any more."""

    def __init__(self, partition: Partition, checkpoint: PartitionCheckpoint) -> None:
        self.partition = partition
        self.checkpoint = checkpoint
        self.linked = False
        """The hub has taken us as its reader."""
        self.prepared = asyncio.Event()
        """Set once its checkpoint is ours and it is known what it has in the database."""
        self.preparing = False
        self.room = asyncio.Event()
        self.blocked = False
        """The SDK waits until we have room for more."""
        self.retry_at = 0.0
        """When to prepare it again, in monotonic seconds."""
        self.parked: set[str] = set()
        """Ids of events that will arrive although they are in the database already."""
        self.start = -1
        """The sequence number it started after."""
        self.saving = False
        self.saved_at = time.monotonic()

    @property
    def highest(self) -> int:
        """The newest event that arrived, or the one it started after."""
        highest = self.partition.watermark.highest
        return self.start if highest is None else max(highest, self.start)

    def save_due(self, now: float, interval: float) -> bool:
        """Whether a checkpoint should be written now."""
        position, saved = self.partition.watermark.position, self.checkpoint.saved
        if position is None or self.saving or self.checkpoint.lost or not self.prepared.is_set():
            return False
        ahead = position[0] - (saved.sequence if saved is not None else -1)
        passed = now - self.saved_at
        return ahead > 0 and (passed >= interval or (ahead >= _SAVE_AFTER and passed >= _SAVE_SPACING))
