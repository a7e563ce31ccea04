"""The invented members of a sandbox, and what both platforms know of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from random import Random

from consumer.sandbox.members import MOST, Member, invented_member, new_member
from consumer.testing.synthetic import identifier

__all__ = ["World"]

_MOST_MEMBERS = 10_000
_MOST_ROWS = 100_000
"""Of one kind, of all members together: so many events a second may be made that only this bounds their resources."""
_FEWEST_ROWS = 100


class World:
    """Members by their ids. The same seed makes the same members, ids and values; only the dates follow `today`.

    What happens to them later follows the number of the start too: a worker keeps what it has seen, and takes an event
    id that comes again with another body for a conflict.
    """

    def __init__(self, *, seed: int = 1, members: int = 5, today: date | None = None, start: int = 0) -> None:
        if not 0 <= members <= _MOST_MEMBERS:
            raise ValueError(f"members: expected 0 to {_MOST_MEMBERS}")
        self.seed = seed
        self.start = start
        self.today = today or datetime.now(UTC).date()
        self._most = min(MOST, max(_FEWEST_ROWS, _MOST_ROWS // max(1, members)))
        ids = self.draw("members")
        self._members: dict[str, Member] = {}
        for number in range(members):
            user_id = identifier(ids)
            random = self.draw(f"member:{user_id}")
            self._members[user_id] = invented_member(user_id, random, self.today, number=number, most=self._most)

    @property
    def members(self) -> list[str]:
        """The ids of all members; those of the start come first."""
        return list(self._members)

    def draw(self, name: str) -> Random:
        """A source of chance of its own for each name, the same for the same seed."""
        return Random(f"{self.seed}:{name}")  # noqa: S311 - invented data, no secrets

    def draw_anew(self, name: str) -> Random:
        """The same for what is made while a sandbox runs: another at each start of the same seed."""
        return self.draw(f"start:{self.start}:{name}" if self.start else name)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._members

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def find(self, user_id: str) -> Member | None:
        """A member, or None."""
        return self._members.get(user_id)

    def add(self, user_id: str, profile: dict[str, object]) -> Member:
        """A new member, without any data yet. Raises `KeyError` for an id in use, `ValueError` for too many."""
        if user_id in self._members:
            raise KeyError(user_id)
        if len(self._members) >= _MOST_MEMBERS:
            raise ValueError("too many members")
        uuid.UUID(user_id)
        member = self._members[user_id] = new_member(user_id, profile, most=self._most)
        return member

    def remove(self, user_id: str) -> None:
        """Forget a member and all that is theirs."""
        self._members.pop(user_id, None)
