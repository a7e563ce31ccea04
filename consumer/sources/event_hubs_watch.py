"""Noticing partitions that have gone silent although the hub has more of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from consumer.errors import SourceError
from consumer.sources.event_hubs_owned import Owned

if TYPE_CHECKING:
    from consumer.sources.event_hubs_client import HubClients

__all__ = ["SilenceWatch"]

_log = structlog.get_logger("event_hubs")

_REMEMBERED = 10
"""How often the time of a stall may pass until a partition that comes back is a new one."""


@dataclass(slots=True)
class _Quiet:
    """What is known of one partition, over all the times this process owned it."""

    since: float = field(default_factory=time.monotonic)
    """When something last arrived, or the hub was asked whether there is more."""
    expected: int | None = None
    """The newest event the hub spoke of when nothing had arrived for long."""
    stalls: int = 0
    restarted: bool = False
    """It was closed for the silence of one of them, and is to have its time once it is open again."""
    closed_at: float | None = None


class SilenceWatch:
    """Watches the partitions this process owns.

    A partition that is closed and opened again and again, because something in it cannot be received, is as silent as
    one whose link says nothing: so its silence goes on over short gaps.
    """

    def __init__(self, *, name: str, clients: HubClients, stall_after: float) -> None:
        self._name = name
        self._clients = clients
        self._stall_after = stall_after
        self._partitions: dict[str, _Quiet] = {}

    @property
    def stalled(self) -> str | None:
        """The partition that stays silent although it was started anew."""
        silent = (name for name, quiet in self._partitions.items() if quiet.stalls > 1 and quiet.closed_at is None)
        return next(silent, None)

    @property
    def silent(self) -> int:
        """How many of the partitions that are ours were started anew for their silence, and stay silent."""
        return sum(1 for quiet in self._partitions.values() if quiet.stalls > 0 and quiet.closed_at is None)

    def opened(self, partition_id: str) -> None:
        """The partition is ours."""
        quiet = self._partitions.get(partition_id)
        if quiet is None or (quiet.closed_at or 0.0) + _REMEMBERED * self._stall_after < time.monotonic():
            self._partitions[partition_id] = _Quiet()
        else:
            quiet.closed_at = None

    def linked(self, partition_id: str) -> None:
        """The hub has taken us as its reader."""
        quiet = self._partitions.get(partition_id)
        if quiet is not None and quiet.restarted:
            quiet.since, quiet.restarted = time.monotonic(), False

    def closed(self, partition_id: str) -> None:
        """The partition is not ours any more."""
        quiet = self._partitions.get(partition_id)
        if quiet is not None:
            quiet.closed_at = time.monotonic()

    def moved(self, partition_id: str) -> None:
        """Something arrived."""
        self._partitions[partition_id] = _Quiet()

    def waited(self, partition_id: str) -> None:
        """Nothing could arrive, because there was no room here."""
        quiet = self._partitions.get(partition_id)
        if quiet is not None:
            quiet.since = time.monotonic()

    async def run(self, owned: Mapping[str, Owned], restart: Callable[[], None]) -> None:
        """Look at what is owned, until cancelled; `restart` is called to start everything anew."""
        while True:
            await asyncio.sleep(self._stall_after / 4)
            for partition_id, quiet in list(self._partitions.items()):
                mine = owned.get(partition_id)
                if mine is None or not mine.prepared.is_set() or mine.blocked or quiet.restarted:
                    continue
                if time.monotonic() - quiet.since >= self._stall_after and await self._is_silent(mine, quiet):
                    quiet.stalls += 1
                    for one in self._partitions.values():
                        one.restarted = True
                    _log.error("partition_stalled", source=self._name, partition=partition_id)
                    restart()

    async def _is_silent(self, owned: Owned, quiet: _Quiet) -> bool:
        """Whether what the hub had when it was last asked has not arrived yet."""
        if quiet.expected is not None and quiet.expected > owned.highest:
            return True
        try:
            facts = await self._clients.facts(owned.partition.id)
        except SourceError:
            return False
        # What the hub has deleted meanwhile will not arrive.
        quiet.expected = facts.last if facts.last >= facts.beginning else None
        quiet.since = time.monotonic() - self._stall_after / 2
        return False
