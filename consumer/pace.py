"""Whether a handler has lately been fast enough to share a transaction with others."""

from __future__ import annotations

__all__ = ["Pace"]

_FAST = 0.010
_PROOF = 3
_AFTER_SLOW = 8
_AFTER_FAILURE = 64
"""A slow run is often a hiccup of the machine, and costs a group little; a failure costs it everything."""


class Pace:
    """Remembers how a handler's latest runs went; sharing a transaction is only for the reliably fast.

    A handler starts unproven. A few fast successes in a row earn it the right to be grouped; one slow or failed
    run takes it away for many runs. Seconds in, a yes or no out.
    """

    __slots__ = ("_owed",)

    def __init__(self) -> None:
        self._owed = _PROOF

    @property
    def groupable(self) -> bool:
        """Whether runs may share a transaction now."""
        return self._owed == 0

    def ran(self, seconds: float) -> None:
        """A run succeeded in this time."""
        if seconds > _FAST:
            self._owed = max(self._owed, _AFTER_SLOW)
        elif self._owed:
            self._owed -= 1

    def failed(self) -> None:
        """A run failed, timed out or was cancelled."""
        self._owed = _AFTER_FAILURE
