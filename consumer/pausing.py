"""Why a source does not receive: trouble of our own, an operator's wish, or both; and what it left in its queue."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from consumer.breaker import Breaker

if TYPE_CHECKING:
    from consumer.sources.base import Message

__all__ = ["Pauses"]

_log = structlog.get_logger("worker")


class _Gauge(Protocol):
    def set(self, value: float) -> None: ...


class Pauses:
    """The pauses of one source. The breaker ends its own, by itself; an operator's ends when an operator says so.

    Neither outlives the process.
    """

    def __init__(self, source: str, gauge: _Gauge) -> None:
        self._source = source
        self._gauge = gauge
        self.breaker = Breaker()
        self.by_operator: str | None = None
        """Why an operator paused it, "" without a reason; None: no operator did."""
        self.any = asyncio.Event()
        """Set while there is a pause."""
        self.oldest_left: datetime | None = None
        """When the queue accepted the oldest message that a pause left there."""
        self.expiring_left: datetime | None = None
        """When the queue deletes the first of them."""

    @property
    def none(self) -> bool:
        """Whether the source receives as usual."""
        return self.breaker.closed and self.by_operator is None

    @property
    def why(self) -> str | None:
        """Why it is paused, for people; None when it is not."""
        if self.by_operator is not None:
            return f"paused by an operator{f': {self.by_operator}' if self.by_operator else ''}"
        return None if self.breaker.closed else f"paused, {self.breaker.reason}"

    def trip(self, why: str, retry_after: float | None, detail: str | None) -> None:
        """Trouble was met; `detail` is for the log, without health data."""
        if self.breaker.trip(time.monotonic(), why, retry_after=retry_after):
            said = {} if detail is None else {"detail": detail}
            _log.error("source_paused", source=self._source, reason=why, **said)
        self._changed()

    def mended(self) -> None:
        """The trouble is over."""
        lasted = round(time.monotonic() - self.breaker.since, 1)
        _log.info("source_resumed", source=self._source, paused_for=lasted)
        self.breaker.close()
        self._changed()

    def halt(self, reason: str) -> None:
        """An operator wants it to receive no more; said again, the newest reason holds."""
        self.by_operator = reason
        _log.warning("source_paused", source=self._source, reason="operator", detail=reason)
        self._changed()

    def go_on(self) -> bool:
        """An operator wants it to receive again. False: none had paused it."""
        if self.by_operator is None:
            return False
        self.by_operator = None
        _log.info("source_resumed", source=self._source, reason="operator", still=self.why)
        self._changed()
        return True

    def leave_behind(self, message: Message) -> None:
        """Remember, while paused, how old what waits in the queue is: nothing is in hand then that could tell."""
        if self.none:
            return
        self.oldest_left = min(self.oldest_left or message.accepted_at, message.accepted_at)
        if message.expires_at is not None:
            self.expiring_left = min(self.expiring_left or message.expires_at, message.expires_at)

    def _changed(self) -> None:
        if self.none:
            self.any.clear()
            self.oldest_left = self.expiring_left = None
        else:
            self.any.set()
        self._gauge.set(not self.none)
