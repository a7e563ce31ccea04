"""Deliveries in hand: a message with its lease, and the envelopes it opened to."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from consumer.context import Delivery

if TYPE_CHECKING:
    from datetime import datetime

    from opentelemetry.trace import SpanContext

    from consumer.dispatch import Handler
    from consumer.events import Event
    from consumer.ops.tracing import Processing
    from consumer.outcomes import Verdict
    from consumer.route import Route
    from consumer.sources.base import Message

__all__ = ["Done", "Held", "Item"]


class Held:
    """One delivery in hand, from its receive to the queue's answer to its settlement."""

    __slots__ = (
        "busy",
        "concluded",
        "delay",
        "gave_back",
        "items",
        "lane",
        "lost",
        "marked",
        "message",
        "open_items",
        "opened",
        "permit",
        "received_at",
        "rest",
        "settling",
        "several",
        "size",
        "spans",
        "tasks",
        "unhandled",
        "waiter",
    )

    def __init__(self, message: Message, *, received_at: float) -> None:
        self.message = message
        self.size = len(message.body)
        self.received_at = received_at
        """Monotonic seconds."""
        self.permit = True
        """Whether it takes room from others; not so for what is given back as soon as it came."""
        self.open_items = 0
        """Envelopes without an outcome yet."""
        self.several = False
        """Whether it opened to more than one envelope."""
        self.items: Sequence[Item] = ()
        """Its envelopes, from its opening until it is known what becomes of it."""
        self.opened: list[Item] | None = None
        """Its envelopes, when it was opened before its turn."""
        self.rest: deque[Item] = deque()
        """Envelopes of a delivery in order that may not run before the one in front has an outcome."""
        self.marked: list[bytes] = []
        """Keys of its envelopes that are noted as dead-lettered, to be forgotten once the delivery is done."""
        self.delay: float | None = None
        """Seconds until the delivery should come back, when one of its envelopes must be tried again."""
        self.gave_back = False
        self.concluded = False
        """What becomes of it is known; only the queue's answer may be missing."""
        self.waiter: asyncio.Future[None] | None = None
        """Who waits for that."""
        self.lane: str | None = None
        """The lane it has entered, if its source keeps order."""
        self.lost = False
        """The lease is gone: no handler starts for it any more, and one that runs is cancelled."""
        self.unhandled = False
        """Lost before it was handled."""
        self.busy = False
        """A renewal of its lease is under way, so nothing else may be asked of the queue for it."""
        self.settling: Callable[[], None] | None = None
        """What to do once that renewal is answered."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """Handlers running for it alone, to be cancelled when the lease is lost."""
        self.spans: tuple[SpanContext, ...] = ()
        """The spans of its envelopes, where anybody collects spans."""

    def conclude(self) -> None:
        """It is known what becomes of it."""
        self.concluded = True
        self.items = ()  # they refer to it: a circle would wait for the collector
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def known(self) -> None:
        """Wait until it is known what becomes of it; its settlement may still be on its way."""
        if not self.concluded:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter

    @property
    def lapsed(self) -> bool:
        """Whether somebody else may have it by now: then no handler may start for it."""
        return self.lost or self.message.lease_until <= time.monotonic()


class Item:
    """One envelope of a delivery: what it opened to, and what is known of it so far."""

    __slots__ = (
        "attempt",
        "body_hash",
        "done",
        "event",
        "event_id",
        "event_type",
        "handlers",
        "headers",
        "held",
        "index",
        "key",
        "proven",
        "ran",
        "raw",
        "route",
        "signed_at",
        "span",
        "user_id",
        "verdict",
    )

    def __init__(self, held: Held, route: Route, index: int, raw: bytes) -> None:
        self.held = held
        self.route = route
        self.index = index
        self.raw = raw
        """The envelope's exact bytes."""
        self.headers = held.message.headers
        """What handlers see of headers: the message's own, and those that a neutral envelope holds."""
        self.proven = False
        """Whether one of the secrets signed it."""
        self.event: Event | None = None
        self.event_id: str | None = None
        self.event_type: str | None = None
        self.user_id: str | None = None
        self.signed_at: datetime | None = None
        self.key = b""
        self.body_hash = b""
        self.handlers: tuple[Handler, ...] = ()
        self.attempt = 1
        self.ran = False
        """Its handlers have run, without touching the database: only the inbox row is missing."""
        self.verdict: Verdict | None = None
        """Set when opening already decides what becomes of it."""
        self.done: Done | None = None
        self.span: Processing | None = None
        """From when its handlers begin until its outcome is known, where anybody collects spans."""

    @property
    def suspect(self) -> bool:
        """Whether it may have ended a process that handled it before."""
        message = self.held.message
        among = message.suspects is not None and message.suspects.left > 0
        return among or message.receive_count > self.route.max_receives

    def delivery(self) -> Delivery:
        """The facts a handler may see."""
        message = self.held.message
        return Delivery(
            source=self.route.source,
            message_id=message.message_id,
            attempt=self.attempt,
            receive_count=message.receive_count,
            accepted_at=message.accepted_at,
            ordering_key=message.ordering_key,
            headers=self.headers,
        )


Done = Callable[[Item, "Verdict"], None]
"""Told once, when an envelope's outcome is known and durable."""
