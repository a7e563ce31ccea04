"""What a queue must be able to do for the worker: the `Source` protocol and the types it speaks in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from consumer.errors import SourceError

__all__ = [
    "Capabilities",
    "Depth",
    "Finding",
    "Hastening",
    "LaneJoining",
    "LosingMessages",
    "Message",
    "Outgoing",
    "PartitionState",
    "Partitioned",
    "Partitioning",
    "SelfWatching",
    "SendChecking",
    "SendPreparing",
    "SendingEach",
    "SettleFailure",
    "Source",
    "Suspects",
    "Telling",
]


@dataclass(slots=True, eq=False)
class Suspects:
    """Messages one of which may have ended an earlier process."""

    left: int
    """How many of those that were not handled yet are still to be run with care."""


@dataclass(slots=True, eq=False)
class Message:
    """One message as a source handed it over: its bytes, the broker's facts, and the receipt that settles it.

    Compared by identity: the same message received twice is two of these.
    """

    body: bytes
    """Exactly the bytes the queue held."""
    message_id: str
    """The broker's id; not the event's, and not stable over a redrive."""
    receipt: Any
    """What the source needs to settle this very receive; a source may replace it when it renews the lease."""
    accepted_at: datetime
    """When the queue accepted the message, by the queue's clock, aware."""
    receive_count: int = 1
    """How often the queue has handed the message out, this time included; 0 where the queue does not count."""
    lease_until: float = math.inf
    """`time.monotonic()` at which the queue may hand it to somebody else; infinite without leases."""
    expires_at: datetime | None = None
    """When the queue itself deletes the message, if it does."""
    ordering_key: str | None = None
    """Messages with the same key are handed to handlers one at a time, in order; None: no order."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The message's attributes or properties, as text."""
    suspects: Suspects | None = None
    """Of queues that do not count receives: an earlier process may have ended while it handled one of these."""

    @property
    def size(self) -> int:
        """Bytes it takes, headers included."""
        if not self.headers:
            return len(self.body)
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers.items())


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to put on a queue."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    ordering_key: str | None = None
    delay: float = 0.0
    """Seconds before it may be received."""
    deduplication_id: str | None = None
    """For queues that drop repeats by an id given with the message (SQS FIFO)."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What kind of queue this is; the worker asks, instead of knowing kinds by name."""

    receive_batch: int
    """The most messages one receive can return."""
    settle_batch: int
    """The most messages one acknowledge, extend or release call may be given."""
    max_delay: float
    """The longest delay, in seconds, `release` can give; longer ones are cut."""
    poll_wait: float
    """The longest an empty receive waits, in seconds."""
    max_receives: int = 1
    """How many receives may be under way at once."""
    max_settles: int = 4
    """How many settling calls may be under way at once."""
    settle_linger: float = 0.05
    """How long a settling call may wait for more to go with it, in seconds."""
    leases: bool = True
    """Whether a received message comes back by itself unless its lease is renewed."""
    largest_message: int | None = None
    """Bytes of the largest message that can be sent; None without a limit, or without one that is known."""


@dataclass(frozen=True, slots=True)
class SettleFailure:
    """One message of a batch that the queue did not settle."""

    message: Message
    kind: Literal["again", "gone", "refused"]
    """again: try once more; gone: the receipt is no longer ours, the lease is lost; refused: it never will."""
    detail: str
    """The broker's error code."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages a queue holds; estimates, as far as the broker tells."""

    visible: int
    invisible: int = 0
    """In flight: received by somebody and not settled."""
    delayed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.visible + self.invisible + self.delayed


@dataclass(frozen=True, slots=True)
class PartitionState:
    """How one partition stands that this process reads."""

    partition: str
    lag: int | None
    """Events it has that are not finished, as of the last `depth`; None: not known yet."""
    oldest: datetime | None
    """When the queue accepted the oldest unfinished event that arrived here; None: there is none."""
    checkpoint_age: float
    """For how many seconds finished events have waited for a checkpoint; 0 with none."""


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How a queue made of partitions stands, as this process sees it."""

    count: int | None
    """Partitions the queue has, as of the last `depth`."""
    owned: Sequence[PartitionState]
    """Those this process reads."""
    stalled: int
    """Of those, how many stay silent although the queue has more of them."""
    changes: int
    """Partitions taken and given up since the start."""
    checkpoint_failures: int
    """Checkpoints that could not be written since the start."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `consumer check`."""

    name: str
    ok: bool
    detail: str
    warning: bool = False
    """With `ok` false: worth knowing, but the worker can run."""


class Source(Protocol):
    """A queue, as the worker sees it. `consumer.testing.conformance` states the same contract as tests.

    A class named by `CONSUMER_SOURCES__<NAME>__KIND=package.module:Class` is called with the source's
    `SourceSettings` and must satisfy this protocol.

    Guarantees an implementation gives:

    - A message returned by `receive` is nobody else's until `lease_until` passes, it is released, or this process
      dies; then the queue hands it out again. It is gone only after `acknowledge` returned without naming it.
    - Batch calls answer per message. They return the messages that were not settled, and raise only when nothing
      is known about any of them.
    - Every method but `receive` may be cancelled; what a cancelled settling call did is unknown, and safe.

    What it may rely on:

    - `open` is awaited once, before anything else, and `close` last, even after a failed `open`.
    - `receive` is never cancelled. A poll that is under way when the worker stops returns in its own time, at most
      `capabilities.poll_wait` plus a network round trip later; `interrupt` asks it to hurry.
    - One message is never given to two settling calls at once, and never to any after `acknowledge` succeeded.

    Raises everywhere: `SourceUnavailable` when trying again may help (network, throttling, server errors),
    `SourceRefused` when somebody must act first (queue gone, access denied). No other exception escapes.
    """

    name: str
    """The name it has in the settings."""
    kind: str
    """The kind it has in the settings, for people and metrics."""

    @property
    def capabilities(self) -> Capabilities:
        """What this queue can do; fixed once `open` has returned."""
        ...

    async def open(self) -> None:
        """Connect and read what must be known of the queue (retention, order). May be called again if it raised."""
        ...

    async def receive(self, limit: int) -> list[Message]:
        """Wait for messages and return from none to `limit` of them (never more), each under a fresh lease."""
        ...

    def interrupt(self) -> None:
        """Ask receives under way, and later ones, to return as soon as they can; they still lose nothing."""
        ...

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Tell the queue that these are done, for ever. Returns those that are not."""
        ...

    async def extend(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Renew the leases for another visibility timeout, moving `lease_until`. Returns those not renewed."""
        ...

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        """Give messages back, to be handed out again after `delay` seconds (0: at once). Returns those not."""
        ...

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Put messages on the queue; returns when the broker has accepted every one."""
        ...

    async def depth(self) -> Depth:
        """How many messages the queue holds now."""
        ...

    async def check(self) -> list[Finding]:
        """What an operator should know before a start: reachability, permissions, contradicting settings."""
        ...

    async def close(self) -> None:
        """Release connections. Messages still held are left to their leases."""
        ...


@runtime_checkable
class LaneJoining(Protocol):
    """A source that keeps order by what only shows when a message is opened."""

    def join(self, message: Message, lane: str, *, follows: bool) -> bool:
        """A message in hand belongs to this lane. False: it must be released, and comes again when it is its turn.

        `follows`: the caller holds the lane's head, and keeps the message behind it.
        """


@runtime_checkable
class LosingMessages(Protocol):
    """A source that learns by itself that messages in hand are somebody else's by now."""

    on_lost: Callable[[Sequence[Message]], None] | None
    """Told which; their leases are over already."""


@runtime_checkable
class Hastening(Protocol):
    """A source that can hand out at once a message that waits for its next attempt."""

    async def hasten(self, message_id: str) -> bool:
        """Have it come now. False: no such message waits here. Raises `SourceError` or `DatabaseError`."""


@runtime_checkable
class SelfWatching(Protocol):
    """A source that notices by itself that it has come to a standstill."""

    def not_live(self) -> str | None:
        """Why the process should be restarted, or None."""


@runtime_checkable
class Telling(Protocol):
    """A source that learns, when it is asked for its depth, for how long messages have waited."""

    def waiting_since(self) -> datetime | None:
        """When the queue accepted the oldest message that waits, as of the last `depth`; None: none does."""


@runtime_checkable
class Partitioned(Protocol):
    """A source whose queue is made of partitions that processes share out."""

    def partitioning(self) -> Partitioning:
        """How they stand; nobody is asked for it."""


@runtime_checkable
class SendPreparing(Protocol):
    """A source that needs more for sending than `open` makes, and can have it made before the first send."""

    async def prepare_sending(self) -> None:
        """Make it; `capabilities.largest_message` is right from then on. May be called again if it raised."""


@runtime_checkable
class SendChecking(Protocol):
    """A source that can tell, without sending anything, whether it may send."""

    async def check_sending(self) -> list[Finding]:
        """What somebody who is to send should know before a start; `open` was awaited."""


@runtime_checkable
class SendingEach(Protocol):
    """A source that sends many messages in a call and knows of each whether it was taken."""

    async def send_each(self, messages: Sequence[Outgoing]) -> list[SourceError | None]:
        """Put messages on the queue: None for each that is there, else why not."""
