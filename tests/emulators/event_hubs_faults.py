"""What can go wrong in an Event Hubs emulator: which fault, where, how often, how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.emulators.amqp_frames import AmqpError

__all__ = ["BUSY", "KINDS", "Fault", "Faults"]

BUSY = "com.microsoft:server-busy"

KINDS = ("refuse_connections", "refuse_links", "reject_sends", "management", "silent")
"""refuse_connections: broken off at once. refuse_links: links to hubs and partitions are refused with `condition`.
reject_sends: what is sent is rejected with `condition`. management: READ answers with `status`. silent: readers keep
their links and get nothing."""


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong; hub, partition and role narrow it down."""

    kind: str
    condition: str = BUSY
    description: str = "The request was refused on demand."
    status: int = 500
    """management: what it answers."""
    hub: str | None = None
    partition: str | None = None
    role: str | None = None
    """refuse_links: "listen" or "send"."""
    count: int | None = None
    """How often; None: until it is cleared."""
    until: float | None = None
    """When it ends, in seconds since the epoch."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a fault is one of {', '.join(KINDS)}")
        if self.role not in {None, "listen", "send"}:
            raise ValueError("the role of a fault is listen or send")

    def error(self) -> AmqpError:
        """What the peer is told."""
        return AmqpError(self.condition, self.description)

    def hits(self, kind: str, now: float, where: dict[str, str | None]) -> bool:
        """Whether it concerns this."""
        if self.kind != kind or (self.until is not None and now >= self.until):
            return False
        mine = {"hub": self.hub, "partition": self.partition, "role": self.role}
        return all(mine[name] in {None, value} for name, value in where.items())


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self.active: list[Fault] = []

    def add(self, kind: str, *, now: float, seconds: float | None = None, **options: Any) -> Fault:
        """Put a fault in force, for so many seconds or without end; see `Fault` for the options."""
        fault = Fault(kind, until=None if seconds is None else now + seconds, **options)
        self.active.append(fault)
        return fault

    def clear(self, kind: str | None = None) -> None:
        """No faults (of this kind) from now on."""
        self.active = [fault for fault in self.active if kind not in {None, fault.kind}]

    def draw(self, kind: str, now: float, **where: str | None) -> Fault | None:
        """The fault that hits this, used up by one; None: all is well."""
        for fault in self.active:
            if fault.hits(kind, now, where):
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count <= 0:
                        self.active.remove(fault)
                return fault
        return None
