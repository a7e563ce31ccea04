"""The secrets that events are signed with, and their rotation."""

from __future__ import annotations

import secrets
from random import Random

from consumer.signatures import ThriveSignature

__all__ = ["Rotation"]


class Rotation:
    """The signing secrets of now. Times are seconds of sandbox time.

    After a rotation the old secret stays in use for an overlap: each event is then signed with either, as by servers
    that learn of the new one at different times. Who holds both opens all of them.
    """

    def __init__(self, secret: str, *, random: Random) -> None:
        self._secrets: list[tuple[str, float]] = [(secret, float("inf"))]
        self._random = random

    @property
    def current(self) -> str:
        """The newest one."""
        return self._secrets[0][0]

    def valid(self, now: float) -> list[str]:
        """Every secret in use, the newest first."""
        self._secrets = [self._secrets[0], *(one for one in self._secrets[1:] if one[1] > now)]
        return [secret for secret, _ in self._secrets]

    def rotate(self, now: float, *, overlap: float, secret: str | None = None) -> str:
        """Make a new secret, or take the given one; the one before stays in use for the overlap."""
        new = secret or secrets.token_hex(32)
        old = [(one, min(until, now + overlap)) for one, until in self._secrets]
        self._secrets = [(new, float("inf")), *old]
        self.valid(now)
        return new

    def signature(self, now: float) -> ThriveSignature:
        """The scheme an event is signed with now."""
        return ThriveSignature(secrets=[self._random.choice(self.valid(now))], encoding="hex")
