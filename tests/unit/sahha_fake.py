"""A server that makes Sahha's tokens, answers everything else as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from consumer.clients.sahha import SahhaClient
from tests.servers.scripted import Scripted, Seen, scripted

__all__ = ["ID", "Fake", "client", "reads", "sahha", "says", "silent"]

ID = "member/48 ü"

TOKENS: dict[str, dict[str, Any]] = {
    "/api/v1/oauth/account/token": {"accountToken": "acc.1", "expiresIn": 86400, "tokenType": "account"},
    "/api/v1/oauth/profile/token": {"profileToken": "pro.1", "expiresIn": 86400, "tokenType": "profile"},
}


@dataclass
class Fake:
    """What was asked of a server that makes tokens, beside the tokens."""

    url: str
    server: Scripted
    calls: list[Seen] = field(default_factory=list)

    @property
    def call(self) -> Seen:
        assert len(self.calls) == 1
        return self.calls[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.call.target).query, keep_blank_values=True)

    @property
    def body(self) -> Any:
        return json.loads(self.call.body)


@asynccontextmanager
async def sahha(answer: Callable[[Seen], web.Response]) -> AsyncIterator[Fake]:
    calls: list[Seen] = []

    def answered(seen: Seen) -> web.Response:
        token = TOKENS.get(seen.target)
        if token is not None:
            return web.json_response(token)
        calls.append(seen)
        return answer(seen)

    async with scripted(answered) as server:
        yield Fake(server.url, server, calls)


def says(value: Any, status: int = 200) -> Callable[[Seen], web.Response]:
    return lambda _: web.json_response(value, status=status)


def silent(status: int) -> Callable[[Seen], web.Response]:
    return lambda _: web.Response(status=status)


def reads(value: Any) -> Callable[[Seen], web.Response]:
    """The value to who reads, nothing to who writes."""
    return lambda seen: web.json_response(value) if seen.method == "GET" else web.Response()


def client(url: str, **changes: Any) -> SahhaClient:
    given: dict[str, Any] = {"client_id": "id", "client_secret": "secret", "app_id": "app", "app_secret": "app-secret"}
    return SahhaClient(base_url=url, **{**given, **changes})
