"""Work of a source that takes a while and goes on beside the rest: opening large deliveries, putting events aside."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from consumer.ops.liveness import Spells

__all__ = ["Asides"]


class Asides:
    """Tasks that are started and forgotten by whoever starts them, but must end before a stop has ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.spells = Spells()
        """Those under way, for the watch over progress."""

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let it run; it handles its own errors."""
        task = asyncio.create_task(self._run(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self, longest: float) -> None:
        """Until all that are under way now have ended, but no longer than so many seconds."""
        await asyncio.wait(self._tasks, timeout=longest)

    async def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        with self.spells.under_way():
            await coroutine
