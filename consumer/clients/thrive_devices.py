"""Devices, and the platform's long work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from consumer.clients.thrive_calls import ThriveCalls
from consumer.models.thrive_api import Job, JobStarted
from consumer.models.thrive_api_care import Device, DeviceStatus

__all__ = ["Devices", "Jobs"]

_DEVICES = "/v1/users/{user_id}/devices"
_JOBS = "/v1/users/{user_id}/jobs"
_PAGE = 200
_ENDED: Final = ("completed", "failed")
_FIRST_LOOK = 1.0
_RAREST_LOOK = 15.0


class Devices:
    """`thrive.devices`: the device providers a member has connected."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    def list(self, user_id: str) -> AsyncIterator[Device]:
        """The connected providers."""
        return self._calls.pages(Device, user_id, _DEVICES, page_size=_PAGE)

    async def status(self, user_id: str, provider_slug: str) -> DeviceStatus:
        """How a provider's connection and data are."""
        return await self._calls.read(
            DeviceStatus, user_id, f"{_DEVICES}/{{provider_slug}}/status", path={"provider_slug": provider_slug}
        )

    async def refresh(self, user_id: str, *, idempotency_key: str | None = None) -> JobStarted:
        """Have all providers read again."""
        return await self._calls.create(
            JobStarted, user_id, f"{_DEVICES}/actions/refresh", idempotency_key=idempotency_key
        )

    async def disconnect(self, user_id: str, provider_slug: str) -> None:
        """Disconnect a provider; its data is deleted."""
        await self._calls.as_member(
            user_id, "DELETE", f"{_DEVICES}/{{provider_slug}}", path={"provider_slug": provider_slug}
        )


class Jobs:
    """`thrive.jobs`: work that ends after the call that began it."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    async def get(self, user_id: str, job_id: str) -> Job:
        """How far a job is. Raises `NotFound` for one that did not start, or is long gone."""
        return await self._calls.read(Job, user_id, f"{_JOBS}/{{job_id}}", path={"job_id": job_id})

    async def start_initial_plan(self, user_id: str, *, idempotency_key: str | None = None) -> JobStarted:
        """Begin a member's first plan."""
        return await self._calls.create(JobStarted, user_id, f"{_JOBS}/initial-plan", idempotency_key=idempotency_key)

    async def wait(self, user_id: str, job_id: str, *, timeout: float) -> Job:  # noqa: ASYNC109 - of looking, not of a call
        """The job once it is completed or failed, looked at ever more rarely; `TimeoutError` after so many seconds."""
        deadline = time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            job = await self.get(user_id, job_id)
            if job.status in _ENDED:
                return job
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the job goes on")
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _RAREST_LOOK)
