"""Tells many bad events from one bad secret or one bad deploy."""

from __future__ import annotations

from typing import Literal

__all__ = ["Guard", "Suspicion"]

Suspicion = Literal["signatures", "handlers"]

_SIGNATURES = 20
_FAILURES = 50


class Guard:
    """Watches one source for failure that is too even to be the events' fault.

    The first 20 signatures since the start or a change of secrets all bad: the secret is wrong. 50 different
    events in a row failed in handlers with no success between: the deploy, or something behind it, is.
    """

    __slots__ = ("_bad", "_failed", "_proven")

    def __init__(self) -> None:
        self._proven = False
        self._bad = 0
        self._failed: set[bytes] = set()

    @property
    def suspicion(self) -> Suspicion | None:
        """What looks broken as a whole, or None."""
        if not self._proven and self._bad >= _SIGNATURES:
            return "signatures"
        if len(self._failed) >= _FAILURES:
            return "handlers"
        return None

    def signature_good(self) -> None:
        """A message proved to be signed by one of the secrets."""
        self._proven = True

    def signature_bad(self) -> None:
        """A message was unsigned, or signed by nobody we know."""
        if not self._proven:
            self._bad += 1

    def secrets_changed(self) -> None:
        """New secrets: what the old ones said no longer counts."""
        self._proven = False
        self._bad = 0

    def handled(self) -> None:
        """An event was handled."""
        if self._failed:
            self._failed.clear()

    def failed(self, key: bytes) -> None:
        """A handler failed on the event with this key."""
        if len(self._failed) < _FAILURES:
            self._failed.add(key)
