"""How much may be in hand: permits by count and by bytes, taken before a receive and given back after settling."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Permits"]


class Permits:
    """Bounds deliveries in hand by number and by bytes.

    A receive must be paid for before it is made, when the sizes of what comes are not known. So a receive reserves
    an estimate for each message, and `exchange` turns that into what the messages really weigh. The estimate
    follows the largest message lately seen, from the configured maximum down. One message larger than all the
    room there is passes when nothing else is in hand, otherwise it could never be handled.
    """

    __slots__ = ("_estimate", "_held", "_held_bytes", "_reserved", "_reserved_bytes", "count", "size")

    def __init__(self, *, count: int, size: int, largest: int) -> None:
        self.count = count
        self.size = size
        self._estimate = max(1, min(largest, size))
        self._held = 0
        self._held_bytes = 0
        self._reserved = 0
        self._reserved_bytes = 0

    @property
    def held(self) -> int:
        """Deliveries in hand."""
        return self._held

    @property
    def held_bytes(self) -> int:
        """Their size."""
        return self._held_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand and nothing is being received."""
        return not self._held and not self._reserved

    def reserve(self, want: int) -> tuple[int, int]:
        """Reserve room for a receive of up to `want` messages: how many, and a token for `exchange`.

        (0, 0) while there is less room than a whole batch could get at best: many small receives cost more than a
        short wait. But half of all the room, and of the bytes half of that, is enough, or one message in hand would
        keep a whole batch out.
        """
        batch = min(want, self.count, max(1, self.size // self._estimate))
        room = self.count - self._held - self._reserved
        by_size = (self.size - self._held_bytes - self._reserved_bytes) // self._estimate
        if not self.idle:
            needed = min(batch, max(1, self.count // 2))
            if room < needed or by_size * 2 < needed:
                return 0, 0
            batch = min(batch, room, by_size)
        cost = batch * self._estimate
        self._reserved += batch
        self._reserved_bytes += cost
        return batch, cost

    def exchange(self, reserved: int, cost: int, sizes: Sequence[int]) -> int:
        """Give a reservation back for the messages it brought; how many of them, from the first, may be kept."""
        self._reserved -= reserved
        self._reserved_bytes -= cost
        kept = 0
        for size in sizes:
            room = self._held < self.count and self._held_bytes + self._reserved_bytes + size <= self.size
            if not room and self._held:
                break
            self._held += 1
            self._held_bytes += size
            kept += 1
        if sizes:
            largest = max(1, *sizes)
            step = (self._estimate - largest) // 4
            self._estimate = largest if step <= 0 else self._estimate - step
        return kept

    def give_back(self, size: int) -> None:
        """A delivery of this size was settled."""
        self._held -= 1
        self._held_bytes -= size
