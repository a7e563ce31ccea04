"""How an event hub's partitions stand, read off what is in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from consumer.sources.base import Partitioning, PartitionState

if TYPE_CHECKING:
    from consumer.sources.event_hubs_client import PartitionFacts
    from consumer.sources.event_hubs_owned import Owned
    from consumer.sources.event_hubs_ownership import Ownerships

__all__ = ["partitioning"]


def partitioning(ownerships: Ownerships | None, facts: Mapping[str, PartitionFacts]) -> Partitioning:
    """How the partitions stand; `facts` is what the hub told last of each, empty before it was asked."""
    count = len(facts) or None
    if ownerships is None:
        return Partitioning(count, (), stalled=0, changes=0, checkpoint_failures=0)
    now = time.monotonic()
    return Partitioning(
        count,
        [_state(owned, facts.get(name), now) for name, owned in ownerships.owned.items() if owned.prepared.is_set()],
        stalled=ownerships.silence.silent,
        changes=ownerships.changes,
        checkpoint_failures=ownerships.checkpoint_failures,
    )


def _state(owned: Owned, facts: PartitionFacts | None, now: float) -> PartitionState:
    partition = owned.partition
    unread = None if facts is None else max(0, facts.last - max(owned.highest, facts.beginning - 1))
    position, saved = partition.watermark.position, owned.checkpoint.saved
    behind = position is not None and (saved is None or position[0] > saved.sequence)
    return PartitionState(
        partition=partition.id,
        lag=None if unread is None else unread + len(partition.held) + partition.waiting,
        oldest=partition.oldest,
        checkpoint_age=now - owned.saved_at if behind else 0.0,
    )
