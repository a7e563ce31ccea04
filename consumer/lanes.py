"""Order: messages of one lane go to handlers one at a time, and a lane that must wait waits as a whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from consumer.deliveries import Item

__all__ = ["Lanes", "lane_of_user", "member_lane"]

T = TypeVar("T")


class Lanes(Generic[T]):
    """Which of the deliveries in hand may run, for sources that keep order within a key.

    A lane exists while one of its deliveries is in hand. Its first is the head and runs; the others follow.
    """

    __slots__ = ("_followers",)

    def __init__(self) -> None:
        self._followers: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return len(self._followers)

    def __contains__(self, lane: str) -> bool:
        return lane in self._followers

    def enter(self, lane: str, item: T) -> bool:
        """A delivery arrived. True: it heads its lane and may run; False: it follows."""
        followers = self._followers.get(lane)
        if followers is None:
            self._followers[lane] = deque()
            return True
        followers.append(item)
        return False

    def advance(self, lane: str) -> T | None:
        """The head is settled for good; the next of the lane, which is now its head, or None."""
        followers = self._followers[lane]
        if followers:
            return followers.popleft()
        del self._followers[lane]
        return None

    def block(self, lane: str) -> list[T]:
        """The head goes back to the queue for later: its followers, which must go back too, and unhandled."""
        return list(self._followers.pop(lane, ()))

    def clear(self) -> list[T]:
        """Every follower in hand, taken out of its lane; the heads stay."""
        taken = [item for followers in self._followers.values() for item in followers]
        for followers in self._followers.values():
            followers.clear()
        return taken


def member_lane(items: Iterable[Item]) -> str | None:
    """The lane of a delivery whose source keeps each member's events in order: that of the first member it names.

    A digest, since lanes are stored. None: nothing proven in it names a member.
    """
    user_id = next((item.user_id for item in items if item.proven and item.user_id is not None), None)
    return None if user_id is None else lane_of_user(user_id)


def lane_of_user(user_id: str) -> str:
    """The lane of one member's events."""
    return sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
