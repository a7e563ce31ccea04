"""rhea, an AMQP 1.0 library in JavaScript: a second opinion on what speaks AMQP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.servers.node import environment, install, node
from tests.servers.processes import ServerError

__all__ = ["rhea_probe"]

_PROBE = Path(__file__).resolve().parents[1] / "emulators" / "rhea_probe.mjs"
_LIMIT = 30.0


async def rhea_probe(**options: Any) -> dict[str, Any]:
    """Run the probe against an Event Hubs emulator and return what it saw. Raises ServerError if it fails."""
    command = [node(), str(_PROBE), str(await asyncio.to_thread(install, "rhea")), json.dumps(options)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment(), stdout=pipe, stderr=pipe)
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _LIMIT)
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
        raise ServerError(f"rhea did not end within {_LIMIT:g} s: {errors[-2000:].decode(errors='replace')}") from None
    if process.returncode:
        raise ServerError(f"rhea failed: {errors[-2000:].decode(errors='replace')}")
    seen: dict[str, Any] = json.loads(output)
    return seen
