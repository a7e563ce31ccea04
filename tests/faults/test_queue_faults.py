"""A queue that throttles, breaks, hangs, lies or is gone: all is handled once it is back, and none lost."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from tests.conformance.rig import Rig, eventually, program, signed
from tests.faults.harness import Stub, WorkerProcess

_CHAOS = (
    {"kind": "throttle", "probability": 0.15},
    {"kind": "internal", "probability": 0.05},
    {"kind": "unavailable", "probability": 0.05},
    {"kind": "reset", "probability": 0.05},
    {"kind": "reset_after", "probability": 0.1},
    {"kind": "cut", "probability": 0.05},
    {"kind": "latency", "probability": 0.2, "seconds": 0.3},
    {"kind": "partial", "action": "DeleteMessageBatch", "probability": 0.3, "entries": [0, 3, 5]},
    {"kind": "partial", "action": "ChangeMessageVisibilityBatch", "probability": 0.3, "entries": [1, 2]},
    {"kind": "hang", "action": "DeleteMessageBatch", "count": 1},
    {"kind": "hang", "action": "ReceiveMessage", "count": 1},
)


async def test_everything_at_once(stub: Stub, stub_rig: Rig) -> None:
    """Throttling, broken connections, hangs, lost replies, late and partial ones: every event has one effect."""
    names = [f"e{n}" for n in range(100)]
    messages = [signed(program(one)) for one in names]
    await stub_rig.publish([*messages, *messages[:50]])
    with WorkerProcess(stub_rig, HANDLER_SECONDS="0.05", HANDLER_FAILING="0.1", MAX_ATTEMPTS="50") as worker:
        await worker.logged("started")
        for fault in _CHAOS:
            stub.fault(**fault)
        await eventually(lambda: len(stub_rig.effects()) == len(names), within=60)
        stub.heal()
        await eventually(lambda: sum(stub.counts("labs")[part] for part in ("ready", "in_flight")) == 0, within=40)
        assert worker.process.poll() is None
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert stub_rig.effects() == Counter(names)
    assert stub_rig.reasons() == Counter()
    assert worker.events("stray_failure") == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no_queue", "the queue does not exist"),
        pytest.param("expired", "credentials have expired", marks=pytest.mark.thorough),
        pytest.param("denied", "access denied", marks=pytest.mark.thorough),
    ],
)
async def test_refused_while_running(stub: Stub, stub_rig: Rig, fault: str, words: str) -> None:
    """A queue that is deleted, or credentials that end: said once, not ready, no crash, and well again by itself."""
    await stub_rig.publish(signed(program(f"e{n}")) for n in range(10))
    with WorkerProcess(stub_rig, HEALTH__ENABLED="true", HEALTH__PORT="0") as worker:
        await eventually(lambda: len(stub_rig.effects()) == 10)
        assert await worker.ready() == (200, "ok\n")
        stub.fault(fault)
        told = await worker.logged("source_unreachable")
        assert words in told["detail"]
        status, text = await worker.ready()
        assert (status, words in text) == (503, True)
        calls = sum(stub.calls().values())
        await asyncio.sleep(2)
        assert sum(stub.calls().values()) - calls < 10
        assert len(worker.events("source_unreachable")) == 1
        stub.heal()
        await stub_rig.publish([signed(program("later"))])
        await eventually(lambda: stub_rig.effects()["later"], within=30)
        assert await worker.ready() == (200, "ok\n")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert worker.events("stray_failure") == []


async def test_stopped_while_the_queue_is_gone(stub: Stub, stub_rig: Rig) -> None:
    """A stop does not wait for a queue that refuses: exit 0 within the drain."""
    await stub_rig.publish(signed(program(f"e{n}")) for n in range(10))
    with WorkerProcess(stub_rig, HANDLERS="effects:waiting", HANDLER_SECONDS="0.5", DRAIN_TIMEOUT="3s") as worker:
        await eventually(lambda: stub.counts("labs")["in_flight"] == 10)
        stub.fault("no_queue")
        worker.send(signal.SIGTERM)
        assert await worker.ended(within=8) == 0
