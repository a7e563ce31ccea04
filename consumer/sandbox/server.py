"""The sandbox's server: both platforms and its own controls on one port.

Thrive is under `/v1/`, Sahha under `/api/v1/`, the controls under `/sandbox`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from consumer.errors import SettingsError
from consumer.sandbox.answers import answering
from consumer.sandbox.clock import SandboxClock
from consumer.sandbox.control import add_control_routes
from consumer.sandbox.credentials import SahhaCredentials
from consumer.sandbox.faults import FaultRule, Faults
from consumer.sandbox.options import LOOPBACK, SandboxOptions
from consumer.sandbox.parts import PARTS, Parts
from consumer.sandbox.sahha import add_sahha_routes
from consumer.sandbox.thrive import Thrive, add_thrive_routes
from consumer.sandbox.world import World

__all__ = ["Sandbox", "serve_sandbox"]

_LARGEST_BODY: Final = 4 * 1024 * 1024
"""Of a JSON body; documents are read apart."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that runs."""

    url: str
    """Of both platforms: their clients' `base_url`."""
    parts: Parts
    thrive: Thrive
    """Thrive's side: its publisher, traffic and signing secrets."""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def world(self) -> World:
        """The invented members; `world.members` are their ids."""
        return self.parts.world

    @property
    def tenant_key(self) -> str:
        """For Thrive's partner-scoped routes."""
        return self.parts.credentials.tenant_key

    @property
    def thrive_secret(self) -> str:
        """The event-signing secret that new events are signed with."""
        return self.thrive.rotation.current

    @property
    def sahha(self) -> SahhaCredentials:
        """Sahha's credentials and webhook secret."""
        return self.parts.credentials.sahha


@asynccontextmanager
async def serve_sandbox(options: SandboxOptions | None = None) -> AsyncIterator[Sandbox]:
    """Serve while the context lasts.

    Raises `SettingsError` when the address cannot be listened on, or is open to others without `expose`.
    """
    options = options or SandboxOptions()
    if options.host not in LOOPBACK and not options.expose:
        raise SettingsError(
            f"sandbox: {options.host} can be reached from other machines, and a sandbox's keys are toys; --expose "
            "allows it"
        )
    parts = Parts(
        options=options,
        world=World(seed=options.seed, members=options.members, start=options.start),
        clock=SandboxClock(options.speed),
        faults=Faults(_first_faults(options), seed=options.seed),
        credentials=options.credentials,
    )
    app = web.Application(middlewares=[answering(parts)], client_max_size=_LARGEST_BODY)
    app[PARTS] = parts
    thrive = Thrive(parts)
    add_thrive_routes(app, thrive)
    sahha = add_sahha_routes(app, parts)
    add_control_routes(app, thrive, sahha)
    # No access log: paths hold ids of members.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        url = await _listen(runner, options)
        thrive.url = url
        await stack.enter_async_context(thrive.running())
        yield Sandbox(url, parts, thrive)


async def _listen(runner: web.AppRunner, options: SandboxOptions) -> str:
    site = web.TCPSite(runner, options.host, options.port)
    try:
        await site.start()
    except OSError as error:
        raise SettingsError(f"sandbox: cannot listen on {options.host} port {options.port}: {error.strerror}") from None
    port = int(runner.addresses[0][1])
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{port}"


def _first_faults(options: SandboxOptions) -> list[FaultRule]:
    if not options.latency and not options.error_rate:
        return []
    return [FaultRule(latency=options.latency, error_rate=options.error_rate)]
