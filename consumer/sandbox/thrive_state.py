"""Thrive's side of the sandbox, put together: what its routes work with, and its background work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from consumer.sandbox.access import Access, Once
from consumer.sandbox.answers import Refusal
from consumer.sandbox.members import Member
from consumer.sandbox.parts import Parts
from consumer.sandbox.publishing import Publisher
from consumer.sandbox.queues import QueueAdmin
from consumer.sandbox.rotation import Rotation
from consumer.sandbox.tokens import MemberTokens
from consumer.sandbox.traffic import Traffic
from consumer.testing import synthetic

__all__ = ["Thrive"]

_JOB_TAKES: Final = 300.0
"""Seconds of sandbox time."""
_MOST_PENDING: Final = 1000


class Thrive:
    """Everything Thrive's handlers share."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.url = ""
        """Of the server, known once it listens."""
        self.tokens = MemberTokens(parts.options.token_lifetime)
        self.access = Access(tenant_key=parts.credentials.tenant_key, tokens=self.tokens, world=parts.world)
        self.once = Once()
        self.rotation = Rotation(parts.credentials.thrive_secret, random=parts.world.draw("rotation"))
        self.publisher = Publisher(parts, self.rotation)
        self.queues = QueueAdmin(parts, self.publisher)
        self.traffic = Traffic(parts, self.publisher)
        self._ids = parts.world.draw_anew("ids")
        self._pending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish and make traffic while the context lasts."""
        async with self.publisher.running():
            started = {asyncio.create_task(self.queues.restore()), asyncio.create_task(self.traffic.run())}
            try:
                yield
            finally:
                await _end(started | self._pending)

    def new_id(self) -> str:
        """A UUID."""
        return synthetic.identifier(self._ids)

    def later(self, seconds: float, action: Callable[[], Any]) -> None:
        """Do something after so much sandbox time. Raises `Refusal` (429) when too much is waiting."""
        if len(self._pending) >= _MOST_PENDING:
            raise Refusal(429, "The sandbox has too much in hand", headers={"Retry-After": "1"})

        async def wait() -> None:
            await self.parts.clock.sleep(seconds)
            action()

        task = asyncio.create_task(wait())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def start_job(
        self, member: Member, *, takes: float = _JOB_TAKES, fails: bool = False, then: Callable[[], Any] | None = None
    ) -> str:
        """Start a job of a member's, which is running until it is completed or failed; returns its id."""
        job_id = self.new_id()

        def end() -> None:
            if fails:
                result = {"error": "processing_failed", "reason": "Asked for by the word fail in its name"}
                member.jobs.put(job_id, {"job_id": job_id, "status": "failed", "result": result})
                return
            member.jobs.put(job_id, {"job_id": job_id, "status": "completed", "result": {}})
            if then is not None:
                then()

        self.later(takes, end)
        member.jobs.put(job_id, {"job_id": job_id, "status": "running", "result": {}})
        return job_id


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
