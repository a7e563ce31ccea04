"""The partitions of an event hub that this process owns at the moment, and what keeps them going."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from consumer.errors import DatabaseError, SourceError, SourceUnavailable
from consumer.failures import describe
from consumer.partitions import Partition
from consumer.sources.checkpoint_blobs import PartitionCheckpoint
from consumer.sources.event_hubs_errors import hub_trouble
from consumer.sources.event_hubs_owned import Owned

if TYPE_CHECKING:
    from consumer.settings import SourceSettings
    from consumer.sources.event_hubs_client import HubClients, PartitionFacts
    from consumer.sources.event_hubs_messages import Reading

__all__ = ["Ownerships"]

_log = structlog.get_logger("event_hubs")

_TICK: Final = 0.25
_START: Final = "-1"
"""The offset before the first event, in the service's words."""
_RESTART_PAUSE: Final = 1.0
_CLOSE_LIMIT: Final = 8.0
"""Seconds that closing may take: a pod's grace has to cover it after the drain."""
_UNSETTLED: Final = 3
"""Ownership intervals after which two owners of a partition should know which of them it is."""


_current: ContextVar[Owned | None] = ContextVar("owned", default=None)
"""Whose callback this is: the SDK names the partition alone, and calls back late for one it has opened again."""


class Ownerships:
    """Runs the SDK's consumer, which shares the partitions out, and does what it leaves undone.

    Its callbacks only take events in and return; they wait while there is no room, and no exception leaves them.
    """

    def __init__(
        self,
        settings: SourceSettings,
        clients: HubClients,
        reading: Reading,
        *,
        owner: str,
        news: asyncio.Event,
        parked_lanes: Callable[[str], Awaitable[set[str]]] | None = None,
        stall_after: float = 60.0,
    ) -> None:
        self._settings = settings
        self._name = settings.name
        self._clients = clients
        self._reading = reading
        self._owner = owner
        self._news = news
        self._parked_lanes = parked_lanes
        self._stall_after = stall_after
        self._unsettled_for = _UNSETTLED * settings.checkpoints.ownership_interval
        self._restart = asyncio.Event()
        self._stopping = False
        self._marked = False
        self._said: str | None = None
        self._stalls: dict[str, int] = {}
        self._saves: set[asyncio.Task[None]] = set()
        self.owned: dict[str, Owned] = {}
        self.trouble: SourceError | None = None
        """Why partitions could not be had, since the last that could."""
        self.changes = 0
        """Partitions taken and given up since the start."""

    @property
    def stalled(self) -> str | None:
        """The partition that stays silent although it was started anew."""
        return next((partition for partition, times in self._stalls.items() if times > 1), None)

    @property
    def works(self) -> bool:
        """Whether some partition is being received from."""
        return any(one.prepared.is_set() and one.linked for one in self.owned.values())

    # The SDK's consumer

    async def run(self) -> None:
        """Own partitions until `stop`; then give them up, each with its last checkpoint."""
        async with asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(self._keep()), tasks.create_task(self._watch())]
            while not self._stopping:
                await self._consume()
            for other in others:
                other.cancel()
        if self._saves:
            await asyncio.wait(self._saves, timeout=_CLOSE_LIMIT)

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping = True
        self._restart.set()

    async def _consume(self) -> None:
        self._restart.clear()
        if not await self._start_is_marked():
            await asyncio.sleep(_RESTART_PAUSE)
            return
        client = self._clients.consumer(on_link=self._linked)
        receiving = asyncio.create_task(
            client.receive_batch(
                on_event_batch=self._arrived,
                on_error=self._failed,
                on_partition_initialize=self._opened,
                on_partition_close=self._closed,
                starting_position=self._starting_position(),
                max_batch_size=self._settings.prefetch,
                prefetch=self._settings.prefetch,
            )
        )
        told = asyncio.create_task(self._restart.wait())
        await asyncio.wait({receiving, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        try:
            async with asyncio.timeout(_CLOSE_LIMIT):
                await client.close()
        except Exception as error:  # noqa: BLE001 - a consumer that cannot even end is left behind
            _log.warning("consumer_not_closed", source=self._name, **describe(error))
        # It sleeps until it would look at the ownerships again, closed or not.
        receiving.cancel()
        await asyncio.wait({receiving})
        if not receiving.cancelled() and (failure := receiving.exception()) is not None:
            self._note(None, hub_trouble(self._name, "receiving", failure))
        for partition_id in list(self.owned):
            self._drop(partition_id)
        if not self._stopping:
            await asyncio.sleep(_RESTART_PAUSE)

    async def _start_is_marked(self) -> bool:
        if self._settings.start_at == "latest" and not self._marked:
            try:
                await self._clients.mark_latest()
            except SourceError as trouble:
                self._note(None, trouble)
                return False
        self._marked = True
        return True

    def _starting_position(self) -> Any:
        start = self._settings.start_at
        return start if isinstance(start, datetime) else {"earliest": _START, "latest": "@latest"}[start]

    def _linked(self, partition_id: str, error: Exception | None) -> None:
        owned = self.owned.get(partition_id)
        if owned is not None:
            owned.linked = error is None
        if error is not None:
            self._note(partition_id, hub_trouble(self._name, "receiving", error))
        elif self.works:
            self.trouble, self._said = None, None

    async def _failed(self, context: Any, error: Exception) -> None:
        if _of_the_store(error):
            trouble = self._clients.store_trouble(error)
        else:
            trouble = hub_trouble(self._name, "receiving", error)
        self._note(getattr(context, "partition_id", None), trouble)

    def _note(self, partition_id: str | None, trouble: SourceError) -> None:
        """Remember what keeps us from receiving, and log it once."""
        if not self.works:
            self.trouble = trouble
        text = str(trouble)
        if text != self._said:
            self._said = text
            _log.warning("event_hub_trouble", source=self._name, partition=partition_id, detail=text)
        self._news.set()

    async def _opened(self, context: Any) -> None:
        partition_id = context.partition_id
        self._drop(partition_id)
        # Not the process alone: it may lose a partition and have it again before the old ownership has ended.
        owner = f"{self._owner}/{self.changes}"
        checkpoint = PartitionCheckpoint(self._clients.checkpoints, partition_id, owner)
        owned = Owned(Partition(partition_id, parks=self._parked_lanes is not None), checkpoint)
        self.owned[partition_id] = owned
        _current.set(owned)
        self.changes += 1
        await self._prepare(owned)

    async def _closed(self, context: Any, reason: Any) -> None:
        owned = _current.get()
        if owned is None or self._is_over(owned):
            return
        prepared = owned.prepared.is_set()
        self._drop(context.partition_id)
        if prepared:
            try:
                await owned.checkpoint.close(owned.partition.watermark.position)
            except Exception as error:  # noqa: BLE001 - events after the last checkpoint come again, that is all
                _log.warning("checkpoint_failed", source=self._name, detail=str(self._clients.store_trouble(error)))
        why = getattr(reason, "name", str(reason)).lower()
        at = owned.checkpoint.saved.sequence if owned.checkpoint.saved is not None else None
        _log.info("partition_closed", source=self._name, partition=context.partition_id, reason=why, checkpoint=at)

    def _drop(self, partition_id: str) -> None:
        owned = self.owned.pop(partition_id, None)
        if owned is not None:
            self.changes += 1
            owned.partition.close()
            owned.prepared.set()
            owned.room.set()

    async def _arrived(self, context: Any, events: Sequence[Any]) -> None:
        owned = _current.get()
        if owned is None or self._is_over(owned):
            return
        try:
            await owned.prepared.wait()
            for event in events:
                arrival = self._reading.arrival(event, context.partition_id)
                owned.partition.arrive(
                    arrival.message, sequence=arrival.sequence, offset=arrival.offset, lane=arrival.lane
                )
        except Exception as error:  # noqa: BLE001 - let out, it would end the partition; what is lost so is read again
            _log.error("arrival_failed", source=self._name, partition=context.partition_id, **describe(error))
            self._restart.set()
            return
        owned.moved_at, owned.expected = time.monotonic(), None
        self._stalls.pop(context.partition_id, None)
        self.trouble, self._said = None, None
        self._news.set()
        await self._room(owned)

    async def _room(self, owned: Owned) -> None:
        """Keep the SDK waiting while enough is here: so memory stays bounded however slow the handlers are."""
        while self._is_full(owned) and not self._is_over(owned):
            owned.blocked = True
            owned.room.clear()
            await owned.room.wait()
        owned.blocked = False
        owned.moved_at = time.monotonic()

    def _is_over(self, owned: Owned) -> bool:
        return self.owned.get(owned.partition.id) is not owned

    def _is_full(self, owned: Owned) -> bool:
        share = self._settings.max_in_flight_bytes // max(1, len(self.owned))
        return owned.partition.is_full(self._settings.prefetch, share)

    def took(self, owned: Owned) -> None:
        """Messages of a partition were handed out, or left otherwise, which may have made room."""
        if owned.blocked and not self._is_full(owned):
            owned.room.set()

    # What the SDK leaves undone

    async def _prepare(self, owned: Owned) -> None:
        """Learn where a partition stands and make its checkpoint ours; tried again until it works."""
        if owned.preparing or owned.prepared.is_set():
            return
        owned.preparing = True
        try:
            facts = await self._clients.facts(owned.partition.id)
            before = await owned.checkpoint.read()
            if self._parked_lanes is not None:
                owned.partition.lanes_are_parked(await self._parked_lanes(owned.partition.id))
            first = self._first(facts)
            if self._is_over(owned):
                return
            if before is not None or first is not None:
                await owned.checkpoint.open(*(first or (-1, _START)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next turn tries again
            if isinstance(error, DatabaseError):
                trouble: SourceError = SourceUnavailable(f"source {self._name}: parked events: {error}")
            else:
                trouble = error if isinstance(error, SourceError) else self._clients.store_trouble(error)
            self._note(owned.partition.id, trouble)
            return
        finally:
            owned.preparing = False
        self._say_where(owned, facts)
        owned.prepared.set()
        self._news.set()

    def _first(self, facts: PartitionFacts) -> tuple[int, str] | None:
        """The first checkpoint of all, which autoscalers count from; None: a time in the middle has none yet."""
        if self._settings.start_at == "earliest":
            return facts.beginning - 1, _START
        if self._settings.start_at == "latest":
            return facts.last, facts.last_offset
        return None

    def _before_a_time(self, facts: PartitionFacts) -> int:
        """Where a start at a time is, as far as can be known before something arrives: too early rather than late."""
        start = self._settings.start_at
        none_to_come = isinstance(start, datetime) and facts.last_at <= start
        return facts.last if none_to_come else facts.beginning - 1

    def _say_where(self, owned: Owned, facts: PartitionFacts) -> None:
        saved = owned.checkpoint.saved
        owned.start = saved.sequence if saved is not None else self._before_a_time(facts)
        owned.saved_at = time.monotonic()
        unclean = owned.checkpoint.unclean
        if unclean:
            owned.partition.suspects = self._settings.max_in_flight
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

    async def _keep(self) -> None:
        """Write checkpoints when they are due, and prepare again what could not be prepared."""
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if self.trouble is not None and self.works:
                self.trouble, self._said = None, None
            for owned in list(self.owned.values()):
                self.took(owned)
                if not owned.prepared.is_set() and not owned.preparing:
                    self._start(self._prepare(owned))
                elif owned.checkpoint.lost and now - owned.saved_at >= self._unsettled_for:
                    # Whoever took the checkpoint over did not take the partition, or it would have been closed here.
                    self._restart.set()
                elif owned.save_due(now, self._settings.checkpoints.interval):
                    owned.saving = True
                    self._start(self._save(owned))

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._saves.add(task)
        task.add_done_callback(self._saves.discard)

    async def _save(self, owned: Owned) -> None:
        position = owned.partition.watermark.position
        try:
            if position is not None:
                await owned.checkpoint.save(*position)
        except Exception as error:  # noqa: BLE001 - it degrades, and never blocks: the next one covers it
            _log.warning("checkpoint_failed", source=self._name, detail=str(self._clients.store_trouble(error)))
        finally:
            owned.saving = False
            owned.saved_at = time.monotonic()
        if owned.checkpoint.lost:
            _log.warning("checkpoint_taken_over", source=self._name, partition=owned.partition.id)

    async def _watch(self) -> None:
        """Notice a partition that has gone silent although the hub has more of it; start everything anew."""
        while True:
            await asyncio.sleep(self._stall_after / 4)
            now = time.monotonic()
            for owned in list(self.owned.values()):
                quiet = now - owned.moved_at >= self._stall_after
                if quiet and owned.prepared.is_set() and not owned.blocked and await self._is_silent(owned):
                    partition_id = owned.partition.id
                    self._stalls[partition_id] = self._stalls.get(partition_id, 0) + 1
                    _log.error("partition_stalled", source=self._name, partition=partition_id)
                    self._restart.set()

    async def _is_silent(self, owned: Owned) -> bool:
        """Whether what the hub had when it was last asked has not arrived yet."""
        if owned.expected is not None and owned.expected > owned.highest:
            return not self._is_over(owned)
        try:
            facts = await self._clients.facts(owned.partition.id)
        except SourceError:
            return False
        # What the hub has deleted meanwhile will not arrive.
        owned.expected = facts.last if facts.last >= facts.beginning else None
        owned.moved_at = time.monotonic() - self._stall_after / 2
        return False


def _of_the_store(error: Exception) -> bool:
    return any(kind.__module__.startswith("azure.core") for kind in type(error).__mro__)
