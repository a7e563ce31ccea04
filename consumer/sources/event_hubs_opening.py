"""Taking a partition over: where it stands, whether the last owner left it as it should, what of it is parked."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

import structlog

from consumer.errors import SourceRefused
from consumer.sources.base import Suspects
from consumer.sources.event_hubs_owned import Owned

if TYPE_CHECKING:
    from consumer.settings import SourceSettings
    from consumer.sources.checkpoint_blobs import Checkpoint
    from consumer.sources.event_hubs_client import HubClients, PartitionFacts
    from consumer.sources.event_hubs_parking import Parker

__all__ = ["START", "Opening"]

_log = structlog.get_logger("event_hubs")

START: Final = "-1"
"""The offset before the first event, in the service's words."""


class Opening:
    """Prepares partitions of one source before anything of them is handed out."""

    def __init__(self, settings: SourceSettings, clients: HubClients, parker: Parker | None) -> None:
        self._settings = settings
        self._name = settings.name
        self._clients = clients
        self._parker = parker

    async def prepare(self, owned: Owned) -> None:
        """Learn where a partition stands, and make its checkpoint ours. Raises what azure-core and the database raise.

        Raises SourceRefused too, if the checkpoint is not of this hub.
        """
        partition_id = owned.partition.id
        before = await owned.checkpoint.read()
        facts = await self._clients.facts(partition_id)
        self._check(partition_id, before, facts)
        if self._parker is not None:
            owned.partition.lanes_are_parked(await self._parker.lanes(partition_id))
            owned.parked = await self._parker.ids(partition_id, before.sequence if before is not None else -1)
        first = self._first(facts)
        if owned.partition.closed:
            return
        if before is not None or first is not None:
            await owned.checkpoint.open(*(first or (-1, START)))
        self._begin(owned, facts)

    def _check(self, partition_id: str, before: Checkpoint | None, facts: PartitionFacts) -> None:
        if before is not None and self._clients.is_foreign(before, facts):
            raise SourceRefused(
                f"source {self._name}: the checkpoint of partition {partition_id} is of another hub of this name: "
                "if the hub was made anew, remove the checkpoints of the old one"
            )

    def _first(self, facts: PartitionFacts) -> tuple[int, str] | None:
        """The first checkpoint of all, which autoscalers count from; None: a time in the middle has none yet."""
        if self._settings.start_at == "earliest":
            return facts.beginning - 1, START
        if self._settings.start_at == "latest":
            return facts.last, facts.last_offset
        return None

    def _before_a_time(self, facts: PartitionFacts) -> int:
        """Where a start at a time is, as far as can be known before something arrives: too early rather than late."""
        start = self._settings.start_at
        none_to_come = isinstance(start, datetime) and facts.last_at <= start
        return facts.last if none_to_come else facts.beginning - 1

    def _begin(self, owned: Owned, facts: PartitionFacts) -> None:
        saved = owned.checkpoint.saved
        owned.start = saved.sequence if saved is not None else self._before_a_time(facts)
        owned.saved_at = time.monotonic()
        unclean = owned.checkpoint.unclean
        if unclean:
            owned.partition.suspects = Suspects(self._settings.max_in_flight)
        start = self._settings.start_at
        _log.info(
            "partition_opened",
            source=self._name,
            partition=owned.partition.id,
            after=owned.start,
            newest=facts.last,
            start_at=start.isoformat() if isinstance(start, datetime) else start,
            left_open=unclean,
        )
        missed = facts.beginning - owned.start - 1
        if saved is not None and missed > 0:
            _log.error("events_expired", source=self._name, partition=owned.partition.id, count=missed)
