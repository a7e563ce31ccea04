"""What keeps dead letters: the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from consumer.dead_letters.record import DeadLetter

__all__ = ["DeadLetterStore"]


class DeadLetterStore(Protocol):
    """Keeps dead letters. Every method raises DeadLetterError when the store cannot do its work."""

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """Keep the records; they are durable when this returns.

        After an error any of them may have been kept or not: append them all again, a doubled id counts once. A
        cancelled call may still keep its records.
        """
        ...

    async def probe(self) -> None:
        """Find out whether `append` would work, without leaving anything behind."""
        ...

    async def close(self) -> None:
        """Let go of the store. May be called twice."""
        ...
