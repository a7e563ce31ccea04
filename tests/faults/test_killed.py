"""Workers that are killed, stopped and suspended under load: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter

import pytest

from consumer.sources.base import Outgoing
from tests.conformance.rig import Rig, eventually, program, signed
from tests.faults.harness import Stub, WorkerProcess, sqs_rig

_LOAD = {"HANDLER_SECONDS": "0.02", "HANDLER_FAILING": "0.02", "MAX_ATTEMPTS": "50"}


def _messages(dice: random.Random, count: int) -> tuple[list[str], list[bytes]]:
    """So many events, a third of them twice, in any order."""
    names = [f"e{n}" for n in range(count)]
    messages = [signed(program(one)) for one in names]
    messages += dice.sample(messages, count // 3)
    dice.shuffle(messages)
    return names, messages


async def _until_empty(rig: Rig) -> None:
    with WorkerProcess(rig, "--until-idle", "--idle-after", "0.5s", **_LOAD) as last:
        assert await last.ended(within=60) == 0


async def test_killed_again_and_again(rig: Rig) -> None:
    """SIGKILL and SIGTERM at any moment, under load with duplicates and forgeries: every event has exactly one effect.

    And every forgery one dead letter; a line that a kill doubled has the same id.
    """
    dice = random.Random(1)
    names, messages = _messages(dice, 450)
    forged = [signed(program(f"forged{n}"), secret="guessed") for n in range(10)]
    for raw in forged:
        messages.insert(dice.randrange(600), raw)
    await rig.publish(messages[:300])
    for turn in range(3):
        with WorkerProcess(rig, **_LOAD) as worker:
            await worker.logged("started")
            await asyncio.sleep(dice.uniform(0.0, 0.5))
            await rig.publish(messages[300 + turn * 110 : 410 + turn * 110])
            worker.send(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            assert await worker.ended() in (0, -signal.SIGKILL)
    await _until_empty(rig)
    assert rig.effects() == Counter(names)
    records = {record["id"]: record for record in rig.dead_letters()}.values()
    assert sorted(record["message"].encode() for record in records) == sorted(forged)
    assert {record["reason"] for record in records} == {"bad_signature"}
    assert (await rig.depth()).total == 0
    assert rig.rows("SELECT count(*) FROM consumer_attempts WHERE key IN (SELECT key FROM consumer_inbox)") == [(0,)]


async def test_stopped_again_and_again(rig: Rig) -> None:
    """SIGTERM at any moment exits 0, strands nothing, counts no attempt; the next worker goes on at once."""
    dice = random.Random(3)
    names, messages = _messages(dice, 150)
    await rig.publish(messages)
    load = {"HANDLER_SECONDS": "0.05"}
    for _ in range(2):
        with WorkerProcess(rig, DRAIN_TIMEOUT="1s", **load) as worker:
            await worker.logged("started")
            await asyncio.sleep(dice.uniform(0.0, 0.6))
            worker.send(signal.SIGTERM)
            assert await worker.ended(within=5) == 0
        depth = await rig.depth()
        assert (depth.invisible, depth.delayed) == (0, 0)
        assert depth.visible + sum(rig.effects().values()) >= len(names)
        assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]
    await _until_empty(rig)
    assert rig.effects() == Counter(names)
    assert rig.reasons() == Counter()


async def test_order_outlives_a_kill(local_rig: Rig) -> None:
    """Lanes stay in order however often the worker is killed or told to stop, and although handlers fail."""
    lanes = [f"lane{n}" for n in range(10)]
    await local_rig.publish(
        Outgoing(signed(program(f"{lane}-{n:02}")), ordering_key=lane) for n in range(20) for lane in lanes
    )
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        with WorkerProcess(local_rig, **_LOAD) as worker:
            done = len(local_rig.effects())
            await eventually(lambda done=done: len(local_rig.effects()) > done + 10)
            worker.send(number)
            assert await worker.ended() in (0, -signal.SIGKILL)
    await _until_empty(local_rig)
    order = [row[0] for row in local_rig.rows("SELECT event_id FROM effects ORDER BY id")]
    for lane in lanes:
        assert [one for one in order if one.startswith(f"{lane}-")] == [f"{lane}-{n:02}" for n in range(20)]


async def test_a_poll_under_way_at_sigterm(stub: Stub, stub_rig: Rig) -> None:
    """Long polls that wait at the queue when the worker is told to stop take no message with them."""
    stub.create_queue("patient")
    rig = sqs_rig(stub_rig.folder, stub, "patient")
    with WorkerProcess(rig, SOURCES__LABS__POLL_WAIT="3", MAX_IN_FLIGHT="200") as worker:
        await worker.logged("started")
        await eventually(lambda: stub.calls().get("receivemessage"))
        await asyncio.sleep(0.3)
        worker.send(signal.SIGTERM)
        await worker.logged("draining")
        await rig.publish(signed(program(f"e{n}")) for n in range(20))
        assert await worker.ended(within=10) == 0
    assert stub.counts("patient")["in_flight"] == 0
    assert stub.counts("patient")["ready"] + len(rig.effects()) == 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(local_rig: Rig, number: signal.Signals) -> None:
    """The second SIGTERM or SIGINT does not wait: the exit code is 128 and its number."""
    await local_rig.publish([signed(program("one"))])
    with WorkerProcess(local_rig, HANDLERS="effects:waiting", HANDLER_SECONDS="60", DRAIN_TIMEOUT="20s") as worker:
        await worker.logged("started")
        await asyncio.sleep(0.3)
        worker.send(number)
        await worker.logged("draining")
        started = time.monotonic()
        worker.send(number)
        assert await worker.ended() == 128 + number
        assert time.monotonic() - started < 1
    assert local_rig.effects() == Counter()


async def test_suspended_longer_than_its_leases(rig: Rig) -> None:
    """A worker that stood still beyond its leases while another did its work has no second effect."""
    names = [f"e{n}" for n in range(60)]
    await rig.publish(signed(program(one)) for one in names)
    with WorkerProcess(rig, HANDLERS="effects:waiting", HANDLER_SECONDS="0.8") as sleeper:
        await sleeper.logged("started")
        await asyncio.sleep(0.4)
        sleeper.send(signal.SIGSTOP)
        with WorkerProcess(rig, HANDLER_SECONDS="0.01") as other:
            await other.logged("started")
            await eventually(lambda: len(rig.effects()) >= 10, within=30)
            sleeper.send(signal.SIGCONT)
            await eventually(lambda: len(rig.effects()) == 60, within=30)
            for worker in (sleeper, other):
                worker.send(signal.SIGTERM)
                assert await worker.ended() == 0
    await _until_empty(rig)
    assert rig.effects() == Counter(names)
    assert rig.reasons() == Counter()
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]
