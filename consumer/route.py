"""How one source's messages are opened and handled: what its settings come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from consumer.dispatch import DispatchTable
from consumer.events.reading import ThriveReader
from consumer.guard import Guard
from consumer.signatures import ThriveSignature

__all__ = ["Route"]


@dataclass(slots=True, kw_only=True)
class Route:
    """One source's scheme, reader, table and limits."""

    source: str
    provider: str
    namespace: str
    signature: ThriveSignature
    """Replaced as a whole when its secrets change; deliveries already opened are not opened again."""
    reader: ThriveReader
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

    @property
    def max_receives(self) -> int:
        """Receives without a recorded failure after which a delivery is suspected of crashing the worker."""
        return 5 * self.max_attempts
