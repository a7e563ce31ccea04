"""What the sandbox's two platforms share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import structlog
from aiohttp import web

from consumer.sandbox.clock import SandboxClock
from consumer.sandbox.credentials import Credentials
from consumer.sandbox.faults import Faults
from consumer.sandbox.options import SandboxOptions
from consumer.sandbox.world import World

__all__ = ["PARTS", "Parts"]


@dataclass(slots=True)
class Parts:
    """Handed to each platform's routes and background work.

    `world.members` are the user ids, which are Sahha's external ids too; `world.draw(name)` is a seeded `Random` of
    its own for each name, `world.draw_anew(name)` another one at each start. `clock.now()` goes into bodies,
    `clock.elapsed()` and `clock.sleep()` are for waiting.
    `log` gets ids, counts and names of events, nothing else.
    """

    options: SandboxOptions
    world: World
    clock: SandboxClock
    faults: Faults
    credentials: Credentials
    log: Any = field(default_factory=lambda: structlog.get_logger("sandbox"))


PARTS: web.AppKey[Parts] = web.AppKey("parts", Parts)
