"""Keys of the REST APIs that change in their files are used without a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from consumer import DispatchTable
from consumer.app import App
from consumer.errors import ApiError
from consumer.settings_loading import Loaded, load_settings
from tests.conformance.rig import eventually, nothing_stray


class Platforms:
    """A server that notes by which keys it is called, and refuses them."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.keys.update(value for value in request.headers.values() if "-key" in value)
        body = await request.text()
        if "clientSecret" in body:
            self.keys.add(json.loads(body)["clientSecret"])
        return web.json_response({}, status=403)


@pytest.fixture
async def platforms() -> AsyncIterator[Platforms]:
    found, application = Platforms(), web.Application()
    application.router.add_route("*", "/{path:.*}", found.handle)
    async with TestServer(application) as server:
        found.url = str(server.make_url("/")).rstrip("/")
        yield found


async def test_new_keys_are_used(tmp_path: Path, platforms: Platforms) -> None:
    """The tenant key and the client secret are read again when their files change, and go to the clients."""
    key, secret = tmp_path / "tenant-key", tmp_path / "client-secret"
    key.write_text("old-key")
    secret.write_text("old-secret")
    env = {
        "CONSUMER_SOURCES__LABS__KIND": "local",
        "CONSUMER_SOURCES__LABS__PATH": str(tmp_path / "queue.db"),
        "CONSUMER_DATABASE__URL": f"sqlite:///{tmp_path / 'consumer.db'}",
        "CONSUMER_DEAD_LETTERS__PATH": str(tmp_path / "dead-letters"),
        "CONSUMER_THRIVE__SIGNATURE__SECRETS": "a secret",
        "CONSUMER_THRIVE__BASE_URL": platforms.url,
        "CONSUMER_THRIVE__TENANT_KEY_FILE": str(key),
        "CONSUMER_SAHHA__BASE_URL": platforms.url,
        "CONSUMER_SAHHA__CLIENT_ID": "id",
        "CONSUMER_SAHHA__CLIENT_SECRET_FILE": str(secret),
    }

    def load() -> Loaded:
        return load_settings(env=env, cwd=tmp_path)

    async def call_both(app: App) -> None:
        assert app.platforms.thrive is not None
        assert app.platforms.sahha is not None
        for call in (app.platforms.thrive.token("u1"), app.platforms.sahha.account_token()):
            with pytest.raises(ApiError):
                await call

    with nothing_stray(), capture_logs() as logs:
        async with App.opened(load(), table=DispatchTable(), reload=load, poll_wait=0.1) as app:
            running = asyncio.create_task(app.worker.run())
            try:
                await call_both(app)
                assert platforms.keys == {"old-key", "old-secret"}
                platforms.keys.clear()
                key.write_text("new-key")
                secret.write_text("new-secret\n")
                await eventually(
                    lambda: {name for log in logs for name in log.get("clients", ())} == {"sahha", "thrive"}
                )
                await call_both(app)
            finally:
                app.worker.stop()
                await running
    assert platforms.keys == {"new-key", "new-secret"}
    assert "new-" not in str(logs)
