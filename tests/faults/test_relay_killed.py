"""Relays that are killed and stopped under load: whatever was answered 200 is on the queue, byte by byte."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.harness_relay import RelayProcess, fire
from tests.relay_rig import body_of

_CONNECTIONS = 16


async def _under_load(process: RelayProcess, answered: dict[int, int], number: signal.Signals, after: float) -> int:
    port = await process.port()
    firing = [asyncio.create_task(fire(port, first, _CONNECTIONS, answered)) for first in range(_CONNECTIONS)]
    await asyncio.sleep(after)
    process.send(number)
    code = await process.ended()
    async with asyncio.timeout(10):
        await asyncio.gather(*firing)
    return code


@pytest.mark.parametrize("seed", [4, pytest.param(5, marks=pytest.mark.thorough)])
async def test_killed_under_load(tmp_path: Path, seed: int) -> None:
    """SIGKILL at any moment: every webhook that was answered 200 is on the queue exactly as it was sent."""
    answered: dict[int, int] = {}
    with RelayProcess(tmp_path) as process:
        after = random.Random(seed).uniform(0.2, 0.6)
        assert await _under_load(process, answered, signal.SIGKILL, after) == -signal.SIGKILL
        assert len(answered) > _CONNECTIONS
        assert set(answered.values()) == {200}
        kept = Counter(process.bodies())
    assert {body_of(number) for number in answered} <= set(kept)
    assert max(kept.values()) == 1
    # What was under way at the end may be there too, one for each connection.
    assert len(kept) <= len(answered) + _CONNECTIONS


async def test_stopped_under_load(tmp_path: Path) -> None:
    """SIGTERM: every request is answered or its connection refused; 200s are on the queue, no others; exit code 0."""
    answered: dict[int, int] = {}
    with RelayProcess(tmp_path) as process:
        assert await _under_load(process, answered, signal.SIGTERM, 0.4) == 0
        kept = Counter(process.bodies())
        assert "Traceback" not in process.text
        assert process.events("stray_failure") == []
    assert set(answered.values()) <= {200, 503}
    assert kept == Counter(body_of(number) for number, status in answered.items() if status == 200)
