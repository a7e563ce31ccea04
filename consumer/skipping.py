"""Events that an operator wants put aside instead of tried again, until they come by."""

from __future__ import annotations

import time
from collections import OrderedDict

__all__ = ["Skips"]

_MOST = 1_000
_FORGOTTEN_AFTER = 86_400.0


class Skips:
    """What to skip of one source, by the event's id or its message's. In memory: bounded, and forgotten after a day."""

    __slots__ = ("_wanted",)

    def __init__(self) -> None:
        self._wanted: OrderedDict[str, float] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def add(self, identity: str) -> bool:
        """Skip this one when it comes next. False: as many as are remembered wait already."""
        self._forget_old()
        if identity not in self._wanted and len(self._wanted) >= _MOST:
            return False
        self._wanted[identity] = time.monotonic() + _FORGOTTEN_AFTER
        self._wanted.move_to_end(identity)
        return True

    def wants(self, *identities: str | None) -> bool:
        """Whether one of these ids is to be skipped."""
        if not self._wanted:
            return False
        now = time.monotonic()
        return any(one is not None and self._wanted.get(one, 0.0) > now for one in identities)

    def done(self, identity: str | None) -> None:
        """It was put aside, or handled before that."""
        if identity is not None:
            self._wanted.pop(identity, None)

    @property
    def waiting(self) -> list[str]:
        """The ids that have not come by yet, in the order they were asked for."""
        self._forget_old()
        return list(self._wanted)

    def _forget_old(self) -> None:
        now = time.monotonic()
        while self._wanted and next(iter(self._wanted.values())) <= now:
            self._wanted.popitem(last=False)
