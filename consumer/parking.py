"""Lanes that stay closed after a dead letter, for sources with `lane_on_dead_letter = park`."""

from __future__ import annotations

from consumer.inbox import Inbox, event_key

__all__ = ["PARKED_DELAY", "ParkedLanes"]

PARKED_DELAY = 900.0
"""Seconds until a message of a parked lane is looked at again."""


class ParkedLanes:
    """Remembers parked lanes in the database, so that every worker and every restart knows them.

    A lane is opened again by replaying its dead letter.
    """

    def __init__(self, inbox: Inbox, source: str) -> None:
        self._inbox = inbox
        self._source = source

    async def holds(self, lane: str) -> bool:
        """Whether the lane is parked. Raises `DatabaseUnavailable`."""
        key = self._key(lane)
        seen = (await self._inbox.lookup([key])).get(key)
        return seen is not None and seen.dead_lettered

    async def park(self, lane: str) -> None:
        """Close the lane. Raises `DatabaseUnavailable`."""
        await self._inbox.mark_dead_lettered([self._key(lane)])

    async def open(self, lane: str) -> None:
        """Open the lane again. Raises `DatabaseUnavailable`."""
        await self._inbox.forget_attempts([self._key(lane)])

    def _key(self, lane: str) -> bytes:
        # Where an event has its provider: so no event is a lane, whatever its namespace is called.
        return event_key("", "lane", self._source, lane)
