"""The partitions of an event hub that this process owns at the moment, and what keeps them going."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from consumer.errors import DatabaseError, SourceError, SourceUnavailable
from consumer.failures import describe
from consumer.partitions import Partition
from consumer.sources.event_hubs_errors import PartitionTaken
from consumer.sources.event_hubs_opening import START, Opening
from consumer.sources.event_hubs_owned import Owned
from consumer.sources.event_hubs_watch import SilenceWatch

if TYPE_CHECKING:
    from consumer.settings import SourceSettings
    from consumer.sources.base import Message
    from consumer.sources.event_hubs_client import HubClients
    from consumer.sources.event_hubs_messages import Reading
    from consumer.sources.event_hubs_parking import Parker

__all__ = ["Ownerships"]

_log = structlog.get_logger("event_hubs")

_TICK: Final = 0.25
_PREPARE_AGAIN: Final = 2.0
_LARGEST: Final = 1024 * 1024
"""Bytes an event may have: what is expected before any was seen."""
_FORGETS: Final = 256
"""After about how many events a large one is no longer expected again."""
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
        owned: dict[str, Owned],
        parker: Parker | None = None,
        stall_after: float = 60.0,
    ) -> None:
        self._settings = settings
        self._name = settings.name
        self._clients = clients
        self._reading = reading
        self._owner = owner
        self._news = news
        self._parks = parker is not None
        self._opening = Opening(settings, clients, parker)
        self.silence = SilenceWatch(name=settings.name, clients=clients, stall_after=stall_after)
        self._unsettled_for = _UNSETTLED * settings.checkpoints.ownership_interval
        self._restart = asyncio.Event()
        self._stopping = False
        self._marked = False
        self._said: str | None = None
        self._largest: int | None = None
        self._saves: set[asyncio.Task[None]] = set()
        self.owned = owned
        self.on_lost: Callable[[Sequence[Message]], None] | None = None
        """Told of messages in hand whose partition is not ours any more."""
        self.trouble: SourceError | None = None
        """Why partitions could not be had, since the last that could."""
        self.changes = 0
        """Partitions taken and given up since the start."""
        self.checkpoint_failures = 0
        """Checkpoints that could not be written since the start."""

    @property
    def works(self) -> bool:
        """Whether some partition is being received from."""
        return any(one.prepared.is_set() and one.linked for one in self.owned.values())

    # The SDK's consumer

    async def run(self) -> None:
        """Own partitions until `stop`; then give them up, each with its last checkpoint."""
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(self._keep()),
                tasks.create_task(self.silence.run(self.owned, self._restart.set)),
            ]
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
        client = self._clients.consumer(on_link=self._linked, credit=self._credit)
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
            self._note(None, self._clients.hub_trouble("receiving", failure))
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
        return start if isinstance(start, datetime) else {"earliest": START, "latest": "@latest"}[start]

    def _linked(self, partition_id: str, error: Exception | None) -> None:
        owned = self.owned.get(partition_id)
        if owned is not None:
            owned.linked = error is None
        if error is None:
            self.silence.linked(partition_id)
        if error is not None:
            self._note(partition_id, self._clients.hub_trouble("receiving", error))
        elif self.works:
            self.trouble, self._said = None, None

    async def _failed(self, context: Any, error: Exception) -> None:
        if _of_the_store(error):
            trouble = self._clients.store_trouble(error)
        else:
            trouble = self._clients.hub_trouble("receiving", error)
        self._note(getattr(context, "partition_id", None), trouble)

    def _note(self, partition_id: str | None, trouble: SourceError) -> None:
        """Remember what keeps us from receiving, and log it once."""
        if not self.works and not isinstance(trouble, PartitionTaken):
            self.trouble = trouble
        text = str(trouble)
        if text != self._said:
            self._said = text
            # Losing a partition to another worker is how they are shared out.
            tell = _log.info if isinstance(trouble, PartitionTaken) else _log.warning
            tell("event_hub_trouble", source=self._name, partition=partition_id, detail=text)
        self._news.set()

    async def _opened(self, context: Any) -> None:
        from consumer.sources.checkpoint_blobs import PartitionCheckpoint  # noqa: PLC0415 - needs the SDK

        partition_id = context.partition_id
        self._drop(partition_id)
        # Not the process alone: it may lose a partition and have it again before the old ownership has ended.
        owner = f"{self._owner}/{self.changes}"
        checkpoint = PartitionCheckpoint(self._clients.checkpoints, partition_id, owner)
        owned = Owned(Partition(partition_id, parks=self._parks), checkpoint)
        self.owned[partition_id] = owned
        self.silence.opened(partition_id)
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
                self.checkpoint_failures += 1
                _log.warning("checkpoint_failed", source=self._name, detail=str(self._clients.store_trouble(error)))
        why = getattr(reason, "name", str(reason)).lower()
        at = owned.checkpoint.saved.sequence if owned.checkpoint.saved is not None else None
        _log.info("partition_closed", source=self._name, partition=context.partition_id, reason=why, checkpoint=at)

    def _drop(self, partition_id: str) -> None:
        owned = self.owned.pop(partition_id, None)
        if owned is not None:
            self.changes += 1
            self.silence.closed(partition_id)
            lost = owned.partition.close()
            if lost and self.on_lost is not None:
                self.on_lost(lost)
            owned.prepared.set()
            owned.room.set()

    async def _arrived(self, context: Any, events: Sequence[Any]) -> None:
        owned = _current.get()
        if owned is None or self._is_over(owned):
            return
        try:
            await owned.prepared.wait()
            partition, most, share = owned.partition, self._settings.prefetch, self._share
            for event in events:
                if partition.is_full(most, share):
                    await self._room(owned)
                if partition.closed:
                    return  # what has not arrived is above everything that has: its next owner reads it
                self._arrive(owned, event)
        except Exception as error:  # noqa: BLE001 - let out, it would end the partition; what is lost so is read again
            _log.error("arrival_failed", source=self._name, partition=context.partition_id, **describe(error))
            self._restart.set()
            return
        self.silence.moved(owned.partition.id)
        self.trouble, self._said = None, None
        self._news.set()

    def _arrive(self, owned: Owned, event: Any) -> None:
        arrival = self._reading.arrival(event, owned.partition.id)
        if arrival.message.message_id in owned.parked:
            owned.partition.arrive_settled(arrival.sequence, arrival.offset)
        else:
            owned.partition.arrive(arrival.message, sequence=arrival.sequence, offset=arrival.offset, lane=arrival.lane)
        size = arrival.message.size
        self._largest = size if self._largest is None else max(size, self._largest - self._largest // _FORGETS)

    async def _room(self, owned: Owned) -> None:
        """Keep the SDK waiting while enough is here: so memory stays bounded however slow the handlers are."""
        while self._is_full(owned) and not self._is_over(owned):
            self._news.set()
            owned.blocked = True
            owned.room.clear()
            await owned.room.wait()
            self.silence.waited(owned.partition.id)
        owned.blocked = False

    def _is_over(self, owned: Owned) -> bool:
        return self.owned.get(owned.partition.id) is not owned

    def _is_full(self, owned: Owned) -> bool:
        return owned.partition.is_full(self._settings.prefetch, self._share)

    @property
    def _share(self) -> int:
        """Bytes that may wait here of each partition."""
        return self._settings.max_in_flight_bytes // max(1, len(self.owned))

    def _credit(self, _: str) -> int:
        """Events that the SDK may hold of each partition: as many as its share of the bytes has room for."""
        return max(1, min(self._settings.prefetch, self._share // (self._largest or _LARGEST)))

    def took(self, owned: Owned) -> None:
        """Messages of a partition were handed out, or left otherwise, which may have made room."""
        if owned.blocked and not self._is_full(owned):
            owned.room.set()

    # What the SDK leaves undone

    async def _prepare(self, owned: Owned) -> None:
        """Make a partition ready; tried again until it works."""
        if owned.preparing or owned.prepared.is_set() or time.monotonic() < owned.retry_at:
            return
        owned.preparing = True
        try:
            await self._opening.prepare(owned)
        except Exception as error:  # noqa: BLE001 - whatever it is, a later turn tries again
            owned.retry_at = time.monotonic() + _PREPARE_AGAIN
            if isinstance(error, DatabaseError):
                trouble: SourceError = SourceUnavailable(f"source {self._name}: parked events: {error}")
            else:
                trouble = error if isinstance(error, SourceError) else self._clients.store_trouble(error)
            self._note(owned.partition.id, trouble)
            return
        finally:
            owned.preparing = False
        owned.prepared.set()
        self._news.set()

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
            self.checkpoint_failures += 1
            _log.warning("checkpoint_failed", source=self._name, detail=str(self._clients.store_trouble(error)))
        finally:
            owned.saving = False
            owned.saved_at = time.monotonic()
        if owned.checkpoint.lost:
            _log.warning("checkpoint_taken_over", source=self._name, partition=owned.partition.id)


def _of_the_store(error: Exception) -> bool:
    return any(kind.__module__.startswith("azure.core") for kind in type(error).__mro__)
