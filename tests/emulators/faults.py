"""Faults that an emulator can be told to have: which, on which action, how often."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

__all__ = ["BROKEN", "Fault", "Faults"]

BROKEN = ("reset", "reset_after", "hang", "latency", "cut")
"""Kinds that every emulator knows. reset: the connection breaks, nothing was done. reset_after: it was done, and the
reply is lost. hang: no reply ever. latency: the reply comes `seconds` late. cut: the reply is cut in half."""


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong; `action` is the service's name for a request, in any case, or * for all."""

    kinds: ClassVar[tuple[str, ...]] = BROKEN

    kind: str
    action: str = "*"
    probability: float = 1.0
    count: int | None = None
    """How many requests it hits; None: all of them until it is cleared."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in self.kinds:
            raise ValueError(f"a fault is one of {', '.join(self.kinds)}")
        self.action = self.action.lower()


F = TypeVar("F", bound=Fault)


class Faults(Generic[F]):
    """The faults in force, in order; the same seed gives the same course."""

    def __init__(self, make: type[F], seed: int = 0) -> None:
        self.active: list[F] = []
        self._make = make
        self._random = random.Random(seed)

    def add(self, kind: str, **options: Any) -> F:
        """Put a fault in force; see `Fault` for the options."""
        fault = self._make(kind, **options)
        self.active.append(fault)
        return fault

    def clear(self) -> None:
        """No faults from now on."""
        self.active.clear()

    def draw(self, action: str) -> list[F]:
        """The faults that hit this request, each used up by one."""
        hits: list[F] = []
        for fault in list(self.active):
            if fault.action not in {"*", action} or self._random.random() >= fault.probability:
                continue
            hits.append(fault)
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    self.active.remove(fault)
        return hits
