"""Sources that are not like the shipped ones, to be named by `KIND=tests.conformance.odd_sources:Class`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from consumer.sources.base import Capabilities, Message, SettleFailure
from consumer.sources.local import LocalSource

__all__ = ["Broken", "Leaseless"]


class Leaseless(LocalSource):
    """What is received stays with its receiver, as on an event hub."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, leases=False)

    async def receive(self, limit: int) -> list[Message]:
        messages = await super().receive(limit)
        for message in messages:
            message.lease_until = math.inf
        return messages


class Broken(LocalSource):
    """Breaks its contract: each kind of call raises what it must not, as often as `failing` says."""

    failing: ClassVar[dict[str, int]] = {}

    def _fail(self, call: str) -> None:
        if self.failing.get(call, 0) > 0:
            self.failing[call] -= 1
            raise RuntimeError(call)

    async def receive(self, limit: int) -> list[Message]:
        self._fail("receive")
        return await super().receive(limit)

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        self._fail("acknowledge")
        return await super().acknowledge(messages)

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        self._fail("release")
        return await super().release(messages, delay)

    async def extend(self, messages: Sequence[Message]) -> list[SettleFailure]:
        self._fail("extend")
        await asyncio.sleep(0)
        return await super().extend(messages)
