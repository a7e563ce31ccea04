"""The sandbox of both platforms, as its counterparts are tested against."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from consumer.sandbox.server import Sandbox

__all__ = ["Answer", "Caller", "caller", "sandbox", "until"]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A quiet one on a free port: no traffic of its own, waiting passes 600 times as fast."""
    from consumer.sandbox.options import SandboxOptions
    from consumer.sandbox.server import serve_sandbox

    async with serve_sandbox(SandboxOptions(seed=1)) as running:
        yield running


@pytest.fixture
async def caller(sandbox: Sandbox) -> AsyncIterator[Caller]:
    """Calls it without a client of ours."""
    async with aiohttp.ClientSession(sandbox.url) as session:
        yield Caller(session, sandbox)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def data(self) -> Any:
        """What Thrive answers under `data`."""
        return self.json["data"]

    @property
    def code(self) -> str:
        """Of Thrive's error."""
        return str(self.json["error"]["code"])


@dataclass(slots=True)
class Caller:
    """Requests to a sandbox, with either of Thrive's credentials or none."""

    session: aiohttp.ClientSession
    sandbox: Sandbox
    tokens: dict[str, str] = field(default_factory=dict)

    async def raw(self, method: str, path: str, **how: Any) -> Answer:
        """Without a credential."""
        async with self.session.request(method, path, **how) as response:
            return Answer(response.status, response.headers, await response.text())

    async def partner(self, method: str, path: str, *, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        """With the tenant key."""
        return await self.raw(
            method, path, headers={"taih-tenant-key": self.sandbox.tenant_key, **(headers or {})}, **how
        )

    async def member(
        self, method: str, path: str, user_id: str | None = None, *, headers: dict[str, str] | None = None, **how: Any
    ) -> Answer:
        """With the token of a member (the first one unless given), below their own path."""
        user_id = user_id or self.sandbox.world.members[0]
        bearer = {"authorization": f"Bearer {await self.token(user_id)}", **(headers or {})}
        return await self.raw(method, f"/v1/users/{user_id}{path}", headers=bearer, **how)

    async def token(self, user_id: str) -> str:
        """A member's token, minted once."""
        if user_id not in self.tokens:
            answer = await self.partner("POST", "/v1/auth/token", json={"user_id": user_id})
            self.tokens[user_id] = answer.data["access_token"]
        return self.tokens[user_id]

    async def control(self, path: str, **body: Any) -> Answer:
        """A control of the sandbox's."""
        return await self.raw("POST", f"/sandbox{path}", json=body)


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)
