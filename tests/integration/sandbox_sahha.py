"""The sandbox's Sahha alone, served for a test, and a receiver of its webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from consumer.sandbox.answers import answering
from consumer.sandbox.clock import SandboxClock
from consumer.sandbox.faults import Faults
from consumer.sandbox.options import SandboxOptions
from consumer.sandbox.parts import Parts
from consumer.sandbox.sahha import Sahha, add_sahha_routes
from consumer.sandbox.world import World


@dataclass
class Served:
    """A running one, and calls to it."""

    client: Any
    sahha: Sahha
    parts: Parts

    @property
    def members(self) -> list[str]:
        return self.parts.world.members

    async def account(self) -> dict[str, str]:
        """The header of an account."""
        keys = self.parts.credentials.sahha
        body = {"clientId": keys.client_id, "clientSecret": keys.client_secret}
        reply = await self.client.post("/api/v1/oauth/account/token", json=body)
        assert reply.status == 200
        return {"Authorization": f"account {(await reply.json())['accountToken']}"}

    async def profile(self, external_id: str, **more: Any) -> dict[str, str]:
        """The header of a profile."""
        body = {"externalId": external_id, **more}
        reply = await self.client.post("/api/v1/oauth/profile/token", json=body, headers=await self.account())
        assert reply.status == 200, await reply.text()
        return {"Authorization": f"profile {(await reply.json())['profileToken']}"}

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> ClientResponse:
        headers = await self.account() if headers is None else headers
        return await self.client.get(f"/api/v1/{path}", headers=headers, params=query)

    async def control(self, path: str, body: dict[str, Any], status: int = 200) -> Any:
        reply = await self.client.post(f"/sandbox/{path}", json=body)
        assert reply.status == status, await reply.text()
        return await reply.json()


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    """Sahha's routes and controls, and nothing of Thrive's."""
    chosen = SandboxOptions(**options)
    parts = Parts(
        options=chosen,
        world=World(seed=chosen.seed, members=chosen.members),
        clock=SandboxClock(chosen.speed),
        faults=Faults(),
        credentials=chosen.credentials,
    )
    app = web.Application(middlewares=[answering(parts)])
    sahha = add_sahha_routes(app, parts)
    async with TestClient(TestServer(app)) as client:
        yield Served(client, sahha, parts)


@dataclass
class Receiver:
    """Takes webhooks and keeps them. `answers` are the statuses to come; after them it is 200."""

    url: str = ""
    got: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 200
        self.got.append((await request.read(), dict(request.headers)))
        async with self.arrived:
            self.arrived.notify_all()
        return web.Response(status=status)

    async def wait_for(self, count: int) -> list[tuple[bytes, dict[str, str]]]:
        """What came, as soon as it is so many."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.got) >= count)
        return self.got


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    taker = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", taker.take)
    async with TestServer(app) as server:
        taker.url = str(server.make_url("/hook"))
        yield taker
