"""An operator's hand on a running worker: pause, resume, skip, look."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aioboto3
import pytest

from consumer import Context, DispatchTable, Retry, Unavailable
from consumer import recovery as recovery_module
from consumer.app import App
from consumer.events import Event, ProgramEvent
from consumer.operating import Operator
from consumer.ops.control import Refused
from consumer.sources.base import Outgoing
from tests.conformance.rig import Rig, effect, effects_table, eventually, program, signed
from tests.emulators.sqs_stub import SqsStub
from tests.faults.harness_azure import events, opened_hub
from tests.servers.azurite import Azurite
from tests.servers.names import fresh_name


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The local queue, which keeps order where messages have a key."""
    return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue"), "POLL_WAIT": "0.2"})


async def _sqs_queue(stub: SqsStub, folder: Path, *, fifo: bool = False) -> Rig:
    attributes = {"FifoQueue": "true"} if fifo else {}
    async with aioboto3.Session().client("sqs", endpoint_url=stub.url) as client:
        name = fresh_name() + (".fifo" if fifo else "")
        url = (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
    source = {"KIND": "sqs", "QUEUE_URL": url, "ENDPOINT_URL": stub.url, "REGION": "us-east-1", "POLL_WAIT": "1"}
    return Rig(folder, source)


@pytest.fixture
async def sqs_rig(tmp_path: Path, aws_environment: None) -> AsyncIterator[Rig]:
    """A queue of the SQS stub."""
    async with SqsStub() as stub:
        yield await _sqs_queue(stub, tmp_path)


@pytest.fixture(params=["local", "fifo"])
async def ordered_rig(
    request: pytest.FixtureRequest, tmp_path: Path, rig: Rig, aws_environment: None
) -> AsyncIterator[Rig]:
    """Queues that keep order: the local one, and a FIFO queue of the SQS stub."""
    if request.param == "local":
        yield rig
        return
    async with SqsStub() as stub:
        yield await _sqs_queue(stub, tmp_path, fifo=True)


async def _do(app: App, command: str, **arguments: str) -> dict[str, Any]:
    named = {} if command == "status" else {"source": "labs"}
    return await Operator(app.worker).execute({"command": command, **named, **arguments})


def _plain() -> DispatchTable:
    table = effects_table()
    table.on(ProgramEvent)(effect)
    return table


class _Gated:
    """Handlers that wait for a gate; `failing` fail instead, once they are through."""

    def __init__(self, *failing: str, **retry: float) -> None:
        self.failing = set(failing)
        self.delays = retry
        self.gate = asyncio.Event()
        self.started: list[str] = []
        self.table = effects_table()
        self.table.on(ProgramEvent)(self.handle)

    async def handle(self, event: Event, context: Context) -> None:
        self.started.append(event.event_id)
        await self.gate.wait()
        if event.event_id in self.failing:
            raise Retry(self.delays.get(event.event_id, 0.5))
        await effect(event, context)


# Pausing


async def test_a_pause_and_its_end(ordered_rig: Rig) -> None:
    """What runs finishes, what has not begun goes back uncounted, nothing comes; then all is handled, once each."""
    rig, gated = ordered_rig, _Gated()
    await rig.publish(Outgoing(signed(program(f"e{n}")), ordering_key="a") for n in range(5))
    async with rig.worker(gated.table) as app:
        intake = app.worker.intakes[0]
        await eventually(lambda: gated.started)
        answer = await _do(app, "pause", reason="a test")
        assert "until this worker ends" in answer["say"]
        assert app.worker.not_ready() == "source labs: paused by an operator: a test"
        assert app.metrics.value("source_paused", source="labs") == 1
        gated.gate.set()
        await eventually(lambda: not intake.held, what="nothing in hand")
        await rig.publish([Outgoing(signed(program("late")), ordering_key="b")])
        await asyncio.sleep(0.6)
        assert rig.effects() == Counter(["e0"])
        assert (await rig.depth()).visible >= 2
        assert app.worker.not_live() is None
        assert (await _do(app, "resume"))["resumed"]
        await eventually(lambda: len(rig.effects()) == 6)
        assert app.worker.not_ready() is None
        assert app.metrics.value("source_paused", source="labs") == 0
    assert set(rig.effects().values()) == {1}
    assert [row[0] for row in rig.rows("SELECT event_id FROM effects ORDER BY id") if row[0] != "late"] == [
        f"e{n}" for n in range(5)
    ]
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


async def test_trouble_during_a_pause(rig: Rig) -> None:
    """The breaker's recovery does not end an operator's pause, nor does an operator's resume end the breaker's."""
    table = effects_table()
    gone = True

    @table.on(ProgramEvent)
    async def handle(event: ProgramEvent, context: Context) -> None:
        if gone:
            raise Unavailable
        await effect(event, context)

    await rig.publish([signed(program("e0"))])
    async with rig.worker(table) as app:
        intake = app.worker.intakes[0]
        intake.breaker.first = intake.breaker.cap = 0.1
        await eventually(lambda: not intake.breaker.closed)
        await _do(app, "pause")
        gone = False
        await asyncio.sleep(1.5)
        assert rig.effects() == Counter()
        assert app.worker.not_ready() == "source labs: paused by an operator"
        gone = True
        assert "it is still paused, Unavailable" in (await _do(app, "resume"))["say"]
        assert not intake.breaker.closed
        assert app.metrics.value("source_paused", source="labs") == 1
        gone = False
        await eventually(lambda: rig.effects() == Counter(["e0"]))
        await eventually(lambda: app.worker.not_ready() is None)
        assert not (await _do(app, "resume"))["resumed"]
    assert rig.reasons() == Counter()


async def test_what_expires_during_a_pause(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's pause lets nothing be deleted by its queue either."""
    monkeypatch.setattr(recovery_module, "_SWEEP_DELAY", 0.2)
    changes = {"SOURCES__LABS__OPTIONS__RETENTION": "3s"}
    async with rig.worker(_plain(), **changes) as app:
        await rig.publish([signed(program("e0"))])
        await eventually(rig.effects)
        await _do(app, "pause")
        await rig.publish(signed(program(f"f{n}")) for n in range(3))
        await eventually(lambda: rig.reasons() == Counter(expiring=3))
        await eventually(lambda: not app.worker.intakes[0].held)
    assert rig.effects() == Counter(["e0"])


async def test_a_paused_worker_is_not_idle(rig: Rig) -> None:
    """A run until idle does not end because nobody lets it work."""
    async with App.opened(rig.load(), table=_plain(), poll_wait=0.2) as app:
        running = asyncio.create_task(app.worker.run(idle_after=0.1))
        await _do(app, "pause")
        await asyncio.wait({running}, timeout=1.0)
        assert not running.done()
        await _do(app, "resume")
        await asyncio.wait_for(running, 10)


# Skipping


async def test_skipping_what_blocks_its_lane(rig: Rig) -> None:
    """The event in front is put aside at its next attempt, and what is behind it in its lane goes on, in order."""
    gated = _Gated("e0")
    gated.gate.set()
    await rig.publish(Outgoing(signed(program(f"e{n}")), ordering_key="a") for n in range(4))
    async with rig.worker(gated.table, SOURCES__LABS__LANE_ON_DEAD_LETTER="park") as app:
        await eventually(lambda: len(gated.started) >= 2)
        status = (await _do(app, "status"))["sources"][0]
        assert (status["lanes_blocked"], status["retrying_count"]) == (1, 1)
        assert status["retrying"][0]["event_id"] == "e0"
        assert status["retrying"][0]["failed_attempts"] >= 1
        answer = await _do(app, "skip", event_id="e0")
        assert answer["held"]
        await eventually(lambda: len(rig.effects()) == 3)
        assert rig.reasons() == Counter(skipped=1)
        status = (await _do(app, "status"))["sources"][0]
        assert (status["lanes_blocked"], status["retrying"], status["to_skip"]) == (0, [], [])
    assert [row[0] for row in rig.rows("SELECT event_id FROM effects ORDER BY id")] == ["e1", "e2", "e3"]
    assert (await rig.depth()).total == 0
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "succeeds"])
async def test_skipping_what_runs(rig: Rig, *, fails: bool) -> None:
    """The attempt under way is not cut short: if it succeeds the event is handled, else there is no other."""
    gated = _Gated(*(["e0"] if fails else []), e0=0.05)
    await rig.publish([signed(program("e0"))])
    async with rig.worker(gated.table) as app:
        await eventually(lambda: gated.started)
        answer = await _do(app, "skip", event_id="e0")
        assert "is in hand" in answer["say"]
        gated.gate.set()
        await eventually(lambda: rig.reasons() if fails else rig.effects())
        await eventually(lambda: not app.worker.intakes[0].held)
        assert (await _do(app, "status"))["sources"][0]["to_skip"] == []
    assert gated.started == ["e0"]
    assert rig.reasons() == (Counter(skipped=1) if fails else Counter())


async def test_skipping_waits_for_the_event(rig: Rig) -> None:
    """One that nobody has seen yet is put aside when it comes, by its own id; one handled before stays handled."""
    gated = _Gated()
    gated.gate.set()
    bodies = {event_id: program(event_id) for event_id in ("done", "later", "other")}
    await rig.publish([signed(bodies["done"])])
    async with rig.worker(gated.table) as app:
        await eventually(lambda: rig.effects() and not app.worker.intakes[0].held)
        for event_id in ("later", "done"):
            answer = await _do(app, "skip", event_id=event_id)
            assert not answer["held"]
            assert "not held" in answer["say"]
        await rig.publish(map(signed, bodies.values()))
        await eventually(lambda: rig.effects() == Counter(["done", "other"]) and rig.reasons())
        await eventually(lambda: not app.worker.intakes[0].held)
        assert (await _do(app, "status"))["sources"][0]["to_skip"] == []
    assert [(one["event_id"], one["reason"]) for one in rig.dead_letters()] == [("later", "skipped")]
    assert gated.started == ["done", "other"]


async def test_skipping_proves_nothing(rig: Rig) -> None:
    """A forged message that bears the id is what it is, and the skip still waits for the real one."""
    async with rig.worker(_plain()) as app:
        await _do(app, "skip", event_id="e0")
        await rig.publish([signed(program("e0"), secret="somebody else's")])
        await eventually(rig.reasons)
        assert rig.reasons() == Counter(bad_signature=1)
        assert (await _do(app, "status"))["sources"][0]["to_skip"] == ["e0"]


async def test_an_event_with_an_endless_id(rig: Rig) -> None:
    """It keeps nobody from looking, and is skipped by its message's id."""
    gated = _Gated("e" * 100_000)
    gated.gate.set()
    await rig.publish([signed(program("e" * 100_000))])
    async with rig.worker(gated.table) as app:
        await eventually(app.worker.intakes[0].retrying.all)
        status = await _do(app, "status")
        (waiting,) = status["sources"][0]["retrying"]
        assert waiting["event_id"] is None
        assert len(json.dumps(status)) < 5_000
        await _do(app, "skip", event_id=waiting["message_id"])
        await eventually(lambda: [line["reason"] for line in rig.dead_letters()] == ["skipped"])


async def test_a_skip_that_cannot_be_kept(rig: Rig) -> None:
    """Without its dead letter the event is not acknowledged; once that can be written it is put aside."""
    async with rig.worker(_plain()) as app:
        intake = app.worker.intakes[0]
        intake.breaker.first = intake.breaker.cap = 0.1
        rig.dead_letter_folder.rmdir()
        rig.dead_letter_folder.write_text("in the way")
        await _do(app, "skip", event_id="e0")
        await rig.publish([signed(program("e0"))])
        await eventually(lambda: not intake.breaker.closed)
        assert (await rig.depth()).total == 1
        rig.dead_letter_folder.unlink()
        await eventually(lambda: rig.reasons() == Counter(skipped=1), within=30)
        await eventually(lambda: not intake.held)
    assert (rig.effects(), (await rig.depth()).total) == (Counter(), 0)


async def test_skipping_on_sqs(sqs_rig: Rig) -> None:
    """An event that waits in the queue, where nobody can reach it, is put aside when it comes next."""
    gated = _Gated("e0", e0=1)
    gated.gate.set()
    await sqs_rig.publish([signed(program("e0"))])
    async with sqs_rig.worker(gated.table) as app:
        await eventually(app.worker.intakes[0].retrying.all)
        await eventually(lambda: not app.worker.intakes[0].held)
        answer = await _do(app, "skip", event_id="e0")
        assert answer["held"]
        assert "comes next, in about" in answer["say"]
        await eventually(lambda: sqs_rig.reasons() == Counter(skipped=1))
        await eventually(lambda: not app.worker.intakes[0].held)
    assert gated.started == ["e0"]
    assert (await sqs_rig.depth()).total == 0


@pytest.mark.parametrize("seconds", [20, 3600], ids=["in memory", "parked"])
async def test_skipping_on_an_event_hub(tmp_path: Path, azurite: Azurite, seconds: float) -> None:
    """An event that waits for its next attempt, here or in the database, comes at once and is put aside."""
    gated = _Gated("a-0", **{"a-0": seconds})
    gated.gate.set()
    async with opened_hub(tmp_path, azurite) as (hub, rig):
        hub.fill("events", events(["a-0", "a-1", "b-0"]), partition="0", key=lambda number: "aab"[number])
        async with rig.worker(gated.table) as app:
            await eventually(lambda: rig.effects() == Counter(["b-0"]) and not app.worker.intakes[0].held)
            if seconds > 60:
                await eventually(lambda: len(rig.rows("SELECT 1 FROM consumer_parked")) == 2)
            answer = await _do(app, "skip", event_id="a-0")
            assert "comes now" in answer["say"]
            await eventually(lambda: rig.effects() == Counter(["b-0", "a-1"]), what="what was behind it")
        assert rig.reasons() == Counter(skipped=1)
        assert rig.rows("SELECT 1 FROM consumer_parked") == []
    assert gated.started.count("a-0") == 1


# What may be asked


_WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "expected the command"),
    ({"command": "stop"}, "expected the command"),
    ({"command": "pause"}, "source: expected a text"),
    ({"command": "pause", "source": "nope"}, "'nope' is not a source of this worker; there is labs"),
    ({"command": "pause", "source": "labs", "reason": "two\nlines"}, "reason: expected"),
    ({"command": "pause", "source": "labs", "reason": 1}, "reason: expected"),
    ({"command": "skip", "source": "labs"}, "event_id: expected"),
    ({"command": "skip", "source": "labs", "event_id": ""}, "event_id: expected"),
    ({"command": "skip", "source": "labs", "event_id": "x" * 600}, "event_id: expected"),
]


async def test_wrong_requests(rig: Rig) -> None:
    """They are refused in one line, and change nothing."""
    async with App.opened(rig.load(), table=_plain()) as app:
        for request, said in _WRONG:
            with pytest.raises(Refused, match=said) as refused:
                await Operator(app.worker).execute(request)
            assert refused.value.wrong
        assert not app.worker.intakes[0].paused.is_set()
        assert app.worker.intakes[0].route.skips.waiting == []


async def test_nothing_of_a_member_is_told(rig: Rig) -> None:
    """Answers hold no user, no body and no lane, which may be a member."""
    gated = _Gated("e0")
    gated.gate.set()
    body = program("e0", user_id="canary-user")
    await rig.publish([Outgoing(signed(body), ordering_key="canary-key")])
    async with rig.worker(gated.table) as app:
        await eventually(app.worker.intakes[0].retrying.all)
        said = [await _do(app, "status"), await _do(app, "skip", event_id="e0"), await _do(app, "pause")]
    assert '"e0"' in json.dumps(said[0])
    assert "canary" not in json.dumps(said)
