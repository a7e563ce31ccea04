"""The `event_hubs` kind: an Azure event hub, its partitions shared out through checkpoints in Blob Storage.

A hub has no leases and takes nothing back. What other queues do at the broker is done here: an ownership's unfinished
events are kept in memory, handed out again when they are due, and moved to the database when that takes long; the
checkpoint follows what is finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from consumer.errors import DatabaseError, SourceRefused, SourceUnavailable
from consumer.failures import describe
from consumer.parked import ParkedEvents
from consumer.partitions import Place
from consumer.sources.base import Capabilities, Depth, Finding, Message, Outgoing, Partitioning, SettleFailure
from consumer.sources.event_hubs_client import HubClients, PartitionFacts
from consumer.sources.event_hubs_messages import Reading
from consumer.sources.event_hubs_owned import Owned
from consumer.sources.event_hubs_ownership import Ownerships
from consumer.sources.event_hubs_parking import Parker
from consumer.sources.event_hubs_sending import LARGEST_MESSAGE, largest_message, send_all
from consumer.sources.event_hubs_standing import partitioning

if TYPE_CHECKING:
    from consumer.database import Database
    from consumer.settings import SourceSettings

__all__ = ["EventHubsSource"]

_log = structlog.get_logger("event_hubs")

_BATCH: Final = 500
_SHARE: Final = 4
"""A receive takes at most this part of `max_in_flight`."""
_LINGER: Final = 0.005
"""Settling is a matter of memory here; and a lane in the database waits for each of its events to be settled."""
_MAX_DELAY: Final = 7 * 86_400.0
_LONGEST_STEP: Final = 180.0
"""Seconds that parking some events may take; the database's own time-outs come long before."""


class EventHubsSource:
    """One event hub, read as one consumer group; satisfies `consumer.sources.base.Source`.

    `settings` are the source's, resolved. `database` is where events that must wait long are parked; without one
    they wait in memory. `stall_after` is how many seconds a partition may be silent before the hub is asked whether
    it should be. Partitions are taken at the first `receive`: a source that only sends takes none, and with
    `for_sending` it does not look at the checkpoints either, which a sender has no right to see.
    """

    kind = "event_hubs"

    def __init__(
        self,
        settings: SourceSettings,
        *,
        database: Database | None = None,
        for_sending: bool = False,
        stall_after: float = 60.0,
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._database = database
        self._for_sending = for_sending
        self._stall_after = stall_after
        self._stack = contextlib.AsyncExitStack()
        self._news = asyncio.Event()
        self._clients: HubClients | None = None
        self._ownerships: Ownerships | None = None
        self._parker: Parker | None = None
        self._running: asyncio.Task[None] | None = None
        self._parking: asyncio.Task[None] | None = None
        self._interrupted = False
        self.on_lost: Callable[[Sequence[Message]], None] | None = None
        self._turn: deque[str] = deque()
        self._facts: dict[str, PartitionFacts] = {}
        self._largest_message = LARGEST_MESSAGE

    @property
    def capabilities(self) -> Capabilities:
        """What a hub can do, with what is done here: no leases, and one receive, which waits."""
        # No receive begins before there is room for a whole batch: if that were all the room, one slow event would
        # keep everything else out. And a batch of settlements that all in hand cannot fill would wait in vain.
        batch = max(1, min(_BATCH, self._settings.max_in_flight // _SHARE))
        return Capabilities(
            receive_batch=batch,
            settle_batch=batch,
            max_delay=_MAX_DELAY,
            poll_wait=self._settings.poll_wait,
            max_receives=1,
            settle_linger=_LINGER,
            leases=False,
            largest_message=self._largest_message,
        )

    # Opening and closing

    async def open(self) -> None:
        """Connect, and see that the hub and the container of the checkpoints are there."""
        async with contextlib.AsyncExitStack() as stack:
            clients = await stack.enter_async_context(HubClients.opened(self._settings))
            await clients.partition_ids()
            if not self._for_sending:
                await clients.check_store()
            self._clients = clients
            self._stack = stack.pop_all()

    @property
    def _hub(self) -> HubClients:
        if self._clients is None:
            raise SourceUnavailable(f"source {self.name} is not open")
        return self._clients

    def _start(self) -> Ownerships:
        """Begin to take partitions."""
        if self._ownerships is None:
            owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            settings = self._settings
            retention = timedelta(seconds=settings.retention) if settings.retention is not None else None
            partitions: dict[str, Owned] = {}
            if self._database is not None:
                parked = ParkedEvents(self._database, self.name, owner=owner, lease=settings.visibility_timeout)
                self._parker = Parker(parked, partitions, name=self.name, news=self._news)
                self._parking = asyncio.create_task(self._parker.run())
            reading = Reading(settings.order_by, retention, settings.max_message_bytes)
            owned = Ownerships(
                settings,
                self._hub,
                reading,
                owner=owner,
                news=self._news,
                owned=partitions,
                parker=self._parker,
                stall_after=self._stall_after,
            )
            owned.on_lost = self.on_lost
            self._ownerships = owned
            self._running = asyncio.create_task(owned.run())
        return self._ownerships

    async def close(self) -> None:
        """Give the partitions up, each with its last checkpoint, for others to take at once."""
        running, self._running = self._running, None
        parking, self._parking = self._parking, None
        if self._ownerships is not None:
            self._ownerships.stop()
        if running is not None:
            await asyncio.wait({running})
            if not running.cancelled() and (error := running.exception()) is not None:
                _log.error("source_failed", source=self.name, **describe(error))
        if parking is not None:
            parking.cancel()
            await asyncio.wait({parking})
        self._clients = None
        await self._stack.aclose()

    # Receiving

    async def receive(self, limit: int) -> list[Message]:
        """Wait for events, of the hub or parked ones that are due, and hand out up to `limit`."""
        ownerships = self._start()
        deadline = time.monotonic() + self._settings.poll_wait
        while not self._interrupted:
            self._news.clear()
            limit = min(limit, _BATCH)
            messages = await self._parker.claim(max(1, limit // 2)) if self._parker is not None else []
            # Nothing may come between taking and returning: what is taken must be in hand, in its lane, at once.
            messages += self._take(ownerships, limit - len(messages))
            now = time.monotonic()
            if messages:
                return messages
            if now >= deadline:
                self._raise_trouble(ownerships)
                return []
            await self._news_until(min(deadline, self._next_due(ownerships)))
        return []

    def _take(self, ownerships: Ownerships, limit: int) -> list[Message]:
        """What is due, from each partition in turn."""
        now = time.monotonic()
        taken: list[Message] = []
        turn = self._turn
        if len(turn) != len(ownerships.owned) or not all(one in ownerships.owned for one in turn):
            turn = self._turn = deque(ownerships.owned)
        turn.rotate(-1)
        for partition_id in turn:
            owned = ownerships.owned[partition_id]
            share = owned.partition.take(limit - len(taken), now)
            if share:
                taken += share
                ownerships.took(owned)
        return taken

    def _next_due(self, ownerships: Ownerships) -> float:
        dues = [due for owned in ownerships.owned.values() if (due := owned.partition.next_due) is not None]
        if self._parker is not None:
            dues.append(self._parker.look_at)
        return min(dues, default=float("inf"))

    def _raise_trouble(self, ownerships: Ownerships) -> None:
        if self._running is None or self._running.done():
            raise SourceUnavailable(f"source {self.name}: its consumer has ended")
        if ownerships.trouble is not None and not ownerships.works:
            raise ownerships.trouble

    async def _news_until(self, moment: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, moment - time.monotonic())):
                await self._news.wait()

    def interrupt(self) -> None:
        """Make the receive under way return now, and later ones return nothing."""
        self._interrupted = True
        self._news.set()

    def partitioning(self) -> Partitioning:
        """How the partitions stand, as this process knows."""
        return partitioning(self._ownerships, self._facts)

    def waiting_since(self) -> datetime | None:
        """When the hub accepted the oldest event that arrived here and is not finished."""
        return min((one.oldest for one in self.partitioning().owned if one.oldest is not None), default=None)

    def not_live(self) -> str | None:
        """Why the process should be restarted: a partition that stays silent although it was started anew."""
        if self._running is not None and self._running.done():
            return "its consumer has ended"
        if self._parking is not None and self._parking.done():
            return "what parks events has ended"
        if self._parker is not None and self._parker.steps.longest > _LONGEST_STEP:
            return f"events have not been parked for {self._parker.steps.longest:.0f} s"
        if self._ownerships is not None and self._ownerships.silence.stalled is not None:
            return f"partition {self._ownerships.silence.stalled} delivers nothing although the hub has events"
        return None

    async def hasten(self, message_id: str) -> bool:
        """Hand out now an event that waits for its next attempt, here or in the database."""
        here = self._ownerships.owned.values() if self._ownerships is not None else ()
        if any(owned.partition.hasten(message_id) for owned in list(here)):
            self._news.set()
            return True
        return self._parker is not None and await self._parker.hasten(message_id)

    def join(self, message: Message, lane: str, *, follows: bool) -> bool:
        """A message handed out turns out to belong to a lane. False: it must go back, and waits there for its turn.

        `follows`: the caller holds the lane's head and keeps the message behind it.
        """
        place = message.receipt
        return not isinstance(place, Place) or place.partition.join(message, lane, follows=follows)

    # Settling

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Note what is done: the checkpoint follows when nothing below is open."""
        here, parked = _apart(messages)
        failures = [_lost(message) for message in here if not message.receipt.partition.finish(message)]
        self._news.set()
        if parked and self._parker is not None:
            failures += await self._parker.finish(parked)
        return failures

    async def extend(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Renew the leases of parked events; the hub's have none."""
        here, parked = _apart(messages)
        failures = [_lost(message) for message in here if not message.receipt.held or message.lease_until <= 0]
        if parked and self._parker is not None:
            failures += await self._parker.renew(parked)
        return failures

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        """Keep events for another attempt: here, or in the database if it takes long."""
        here, parked = _apart(messages)
        now = time.monotonic()
        failures = [
            _lost(message) for message in here if not message.receipt.partition.give_back(message, delay=delay, now=now)
        ]
        self._news.set()
        if parked and self._parker is not None:
            failures += await self._parker.release(parked, delay)
        return failures

    # Everything else

    async def prepare_sending(self) -> None:
        """Open the link to send by, which tells how large an event may be."""
        self._largest_message = await largest_message(self._hub.producer, name=self.name)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Put events on the hub; those with one ordering key, its partition key, in order."""
        await send_all(self._hub.producer, messages, name=self.name)

    async def depth(self) -> Depth:
        """Events beyond what is finished; of partitions that others own, beyond their checkpoints."""
        facts = self._facts = await self._hub.all_facts()
        try:
            checkpoints = await self._hub.checkpoints.all()
        except Exception as error:  # noqa: BLE001 - the SDK raises what it likes; the protocol knows two errors
            raise self._hub.store_trouble(error) from None
        owned = self._ownerships.owned if self._ownerships is not None else {}
        now = time.monotonic()
        visible = invisible = delayed = 0
        for partition_id, fact in facts.items():
            mine = owned.get(partition_id)
            if mine is not None and mine.prepared.is_set():
                partition = mine.partition
                unread = max(0, fact.last - max(mine.highest, fact.beginning - 1))
                ready = partition.ready(now)
                visible += unread + ready
                invisible += len(partition.held)
                delayed += partition.waiting - ready
            else:
                checkpoint = checkpoints.get(partition_id)
                known = checkpoint is not None and not self._hub.is_foreign(checkpoint, fact)
                done = checkpoint.sequence if checkpoint is not None and known else -1
                visible += fact.last - max(done, fact.beginning - 1)
        depth = Depth(visible, invisible, delayed)
        if self._parker is not None:
            depth = _sum(depth, await self._parked_depth())
        return depth

    async def _parked_depth(self) -> Depth:
        try:
            return await self._parker.depth() if self._parker is not None else Depth(0)
        except DatabaseError as error:
            raise SourceUnavailable(f"source {self.name}: parked events: {error}") from None

    async def check(self) -> list[Finding]:
        """Whether hub, consumer group and checkpoints can be used, and how far behind they are."""
        from consumer.sources.event_hubs_check import findings  # noqa: PLC0415 - for `consumer check` only

        try:
            return await findings(self._hub, self._settings)
        except (SourceRefused, SourceUnavailable) as error:
            return [Finding("hub", ok=False, detail=str(error))]


def _apart(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Those of the hub, and those of the database."""
    here = [message for message in messages if isinstance(message.receipt, Place)]
    return here, [message for message in messages if not isinstance(message.receipt, Place)]


def _lost(message: Message) -> SettleFailure:
    return SettleFailure(message, "gone", "PartitionClosed")


def _sum(one: Depth, other: Depth) -> Depth:
    return Depth(one.visible + other.visible, one.invisible + other.invisible, one.delayed + other.delayed)
