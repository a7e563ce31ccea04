"""An Event Hubs emulator in a process of its own, and how tests and benchmarks steer it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.emulators.event_hubs import EventHubsEmulator
from tests.servers.processes import free_port, serving

__all__ = ["EventHubsControl", "event_hubs_process"]

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class EventHubsControl:
    """The control door of an emulator; `event_hubs_control` says what there is to call."""

    def __init__(self, url: str, connection_string: str) -> None:
        self.url = url
        self.connection_string = connection_string

    def call(self, action: str, **options: Any) -> dict[str, Any]:
        """Call the door and wait for the answer. Raises HTTPError (400) for what it does not know."""
        request = urllib.request.Request(f"{self.url}/{action}", json.dumps(options).encode(), method="POST")
        with _DIRECT.open(request, timeout=60) as reply:
            answer: dict[str, Any] = json.load(reply)
        return answer

    async def acall(self, action: str, **options: Any) -> dict[str, Any]:
        """Call the door without holding up the loop."""
        return await asyncio.to_thread(self.call, action, **options)


@contextlib.contextmanager
def event_hubs_process(
    *, hub: str = "events", partitions: int = 4, groups: tuple[str, ...] = ()
) -> Iterator[EventHubsControl]:
    """Run an emulator with one hub as a process and yield its control; it is stopped at the end."""
    port, control = free_port(), free_port()
    command = [sys.executable, "-m", "tests.emulators.event_hubs", "--port", str(port), "--control-port", str(control)]
    command += ["--hub", f"{hub}={partitions}", *(f"--group={group}" for group in groups)]
    with serving(command, f"http://127.0.0.1:{control}/stats") as url:
        yield EventHubsControl(url.removesuffix("/stats"), EventHubsEmulator(port=port).connection_string)
