"""Handlers that kill, block or ignore the process they run in."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter

import pytest

from consumer.app import build_source
from tests.conformance.rig import Rig, eventually, program, signed
from tests.faults.harness import WorkerProcess


async def test_an_event_that_kills_the_worker(local_rig: Rig) -> None:
    """An event whose handler ends the process is found out and put aside as `crashed`; its neighbours are handled."""
    await local_rig.publish(signed(program(one)) for one in ["e0", "kill", "e1"])
    source = build_source(local_rig.load().settings.source("labs"))
    await source.open()
    for _ in range(6):  # more receives than the guard allows without a failed attempt
        await source.release(await source.receive(10), 0)
    await source.close()
    ends = []
    for _ in range(8):
        with WorkerProcess(local_rig, "--until-idle", HANDLERS="hard:killing", MAX_ATTEMPTS="1") as worker:
            ends.append(await worker.ended())
        if ends[-1] == 0:
            break
    assert ends[-1] == 0
    assert set(ends[:-1]) == {9}
    assert len(ends) <= 4
    assert local_rig.effects() == Counter(["e0", "e1"])
    assert [(one["event_id"], one["reason"]) for one in local_rig.dead_letters()] == [("kill", "crashed")]


async def test_a_second_signal_while_a_handler_blocks(local_rig: Rig) -> None:
    """A handler that never gives the loop its turn cannot keep a second signal from ending the process at once."""
    await local_rig.publish([signed(program("one"))])
    with WorkerProcess(local_rig, HANDLERS="hard:blocking") as worker:
        await worker.logged("handler_blocks")
        worker.send(signal.SIGTERM)
        await asyncio.sleep(0.2)
        worker.send(signal.SIGTERM)
        assert await worker.ended(within=5) == 128 + signal.SIGTERM


@pytest.mark.thorough
async def test_a_handler_that_will_not_end(local_rig: Rig) -> None:
    """A handler that swallows its cancellation delays the end by its grace, not for ever."""
    await local_rig.publish([signed(program("one"))])
    with WorkerProcess(local_rig, HANDLERS="hard:stubborn", DRAIN_TIMEOUT="1s") as worker:
        await worker.logged("handler_holds_on")
        started = time.monotonic()
        worker.send(signal.SIGTERM)
        code = await worker.ended(within=25)
        assert time.monotonic() - started < 20
        assert code in (0, 1)
    assert local_rig.effects() == Counter()


async def test_the_same_on_uvloop(local_rig: Rig) -> None:
    """On uvloop the worker consumes and leaves as on asyncio's own loop."""
    await local_rig.publish(signed(program(f"e{n}")) for n in range(50))
    with WorkerProcess(local_rig, UVLOOP="true", HANDLER_SECONDS="0.01") as worker:
        await eventually(lambda: len(local_rig.effects()) == 50)
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert set(local_rig.effects().values()) == {1}
    with contextlib.suppress(FileNotFoundError):
        assert local_rig.dead_letters() == []
