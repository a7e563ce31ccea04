"""How one source's messages are opened and handled: what its settings come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from consumer.dispatch import DispatchTable
from consumer.events import Event
from consumer.guard import Guard
from consumer.signatures import Opened
from consumer.skipping import Skips

__all__ = ["EventReader", "Route", "Signature"]


class Signature(Protocol):
    """A platform's way of signing, with the secrets of one source."""

    def verify(self, raw: bytes, headers: Mapping[str, str], *, accepted_at: datetime, any_age: bool = False) -> Opened:
        """Open one envelope, or one body with the headers it came with.

        `accepted_at` is the queue's own time; with `any_age` the age of the message does not matter. Raises only
        `VerificationError`.
        """

    def signs_whole(self, headers: Mapping[str, str]) -> bool:
        """Whether a message with these headers is signed as a whole, so that its bytes must not be taken apart."""


class EventReader(Protocol):
    """Makes a platform's events of bodies whose signature holds."""

    def read(self, opened: Opened) -> Event:
        """The typed event. Raises `InvalidEvent`, whose text names fields and holds no value.

        Raises `VerificationError` where what came along unsigned says something else than the body does.
        """

    def facts(self, opened: Opened) -> tuple[str | None, str | None]:
        """Id and type of an event that cannot be read, as far as it states them. Raises nothing."""


@dataclass(slots=True, kw_only=True)
class Route:
    """One source's scheme, reader, table and limits."""

    source: str
    provider: str
    namespace: str
    signature: Signature
    """Replaced as a whole when its secrets change; deliveries already opened are not opened again."""
    reader: EventReader
    table: DispatchTable
    guard: Guard
    unknown_events: Literal["dead_letter", "ack"] = "dead_letter"
    max_attempts: int = 8
    handler_timeout: float = 30.0
    max_message_bytes: int = 1 << 20
    lane_by_member: bool = False
    """Events of one member run in order, one at a time; their lane shows only when they are opened."""
    any_age: bool = False
    """Replay with `--accept-stale`: the signature is checked, its age is not."""
    counts_attempts: bool = True
    """Replay runs each event once and leaves the recorded failures as they are."""

    skips: Skips = field(default_factory=Skips)
    """What an operator wants put aside when it comes next."""

    @property
    def max_receives(self) -> int:
        """Receives without a recorded failure after which a delivery is suspected of crashing the worker."""
        return 5 * self.max_attempts
