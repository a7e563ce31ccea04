"""The sandbox's Sahha: its REST API under `/api/v1/`, its webhooks, and their controls under `/sandbox/`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from consumer.sandbox.commands import listed_controls
from consumer.sandbox.parts import Parts
from consumer.sandbox.sahha_access import Access
from consumer.sandbox.sahha_accounts import Accounts
from consumer.sandbox.sahha_control import CONTROLS, SahhaControl, describe_quirks
from consumer.sandbox.sahha_records import Records
from consumer.sandbox.sahha_results import Results
from consumer.sandbox.sahha_webhooks import Webhooks

__all__ = ["Sahha", "add_sahha_routes"]


class Sahha:
    """Sahha's side of a sandbox."""

    def __init__(self, parts: Parts) -> None:
        self.access = Access(parts)
        self.webhooks = Webhooks(parts, self.access.profiles)

    @property
    def profiles(self) -> list[str]:
        """The external ids of all profiles: the members' ids, one sample profile's, and those registered since."""
        return self.access.profiles.ids()

    def describe(self, url: str) -> dict[str, Any]:
        """What there is, for `GET /sandbox` of the sandbox at `url`; no secrets."""
        credentials = self.access.parts.credentials.sahha
        return {
            "client_id": credentials.client_id,
            "app_id": credentials.app_id,
            "profiles": self.profiles,
            "api": describe_quirks(self.access),
            "webhooks": self.webhooks.describe(),
            "control": listed_controls(CONTROLS, url),
        }


def add_sahha_routes(app: web.Application, parts: Parts) -> Sahha:
    """Add Sahha's routes; webhooks are sent from the application's start-up to its clean-up."""
    sahha = Sahha(parts)
    Accounts(sahha.access).add_to(app.router)
    Results(sahha.access).add_to(app.router)
    Records(sahha.access, sahha.webhooks.publish).add_to(app.router)
    SahhaControl(sahha.access, sahha.webhooks).add_to(app.router)

    async def send_webhooks(app: web.Application) -> AsyncIterator[None]:
        del app
        async with sahha.webhooks.running():
            yield

    app.cleanup_ctx.append(send_webhooks)
    return sahha
