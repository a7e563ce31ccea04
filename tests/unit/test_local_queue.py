"""The embedded queue file against a model of what it promises, whatever the order of calls."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from consumer.sources.base import Depth, Message, Outgoing
from consumer.sources.local_queue import QueueFile

LEASE = 10.0
SECONDS = st.sampled_from([0.0, 1.0, 4.0, 10.0, 25.0])
HANDLES = st.integers(0, 1)


@dataclass
class Kept:
    body: bytes
    lane: str | None
    visible_at: float
    receives: int = 0
    held: bool = False


class QueueAgainstModel(RuleBasedStateMachine):
    """Two handles on one file, as two processes have them, and a list that says what must come of each call."""

    received: Bundle[Message] = Bundle("received")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "queue.db"
        self.handles = [QueueFile(self.path), QueueFile(self.path)]
        self.now = 1000.0
        self.sent = 0
        self.kept: dict[bytes, Kept] = {}

    def teardown(self) -> None:
        for handle in self.handles:
            handle.close()
        self.folder.cleanup()

    def visible(self, kept: Kept) -> bool:
        return kept.visible_at <= self.now

    def lane(self, name: str | None) -> list[Kept]:
        return [kept for kept in self.kept.values() if kept.lane == name]

    def ready(self) -> set[bytes]:
        """What may be handed out now: of each lane that holds nothing, all up to the first that is not due."""
        ready = {kept.body for kept in self.lane(None) if self.visible(kept)}
        for name in {kept.lane for kept in self.kept.values()} - {None}:
            lane = self.lane(name)
            if any(kept.held and not self.visible(kept) for kept in lane):
                continue
            for kept in lane:
                if not self.visible(kept):
                    break
                ready.add(kept.body)
        return ready

    def holds(self, message: Message) -> Kept | None:
        kept = self.kept.get(message.body)
        return kept if kept is not None and kept.held and kept.receives == message.receive_count else None

    @initialize()
    def begin(self) -> None:
        self.send(0, [(None, 0.0), ("a", 0.0), ("a", 0.0), ("b", 0.0)])

    @rule(
        handle=HANDLES,
        batch=st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), SECONDS), min_size=1, max_size=5),
    )
    def send(self, handle: int, batch: list[tuple[str | None, float]]) -> None:
        outgoing = []
        for lane, delay in batch:
            self.sent += 1
            body = b"%d" % self.sent
            outgoing.append(Outgoing(body, ordering_key=lane, delay=delay))
            self.kept[body] = Kept(body, lane, self.now + delay)
        self.handles[handle].send(outgoing, now=self.now)

    @rule(target=received, handle=HANDLES, limit=st.integers(1, 6))
    def receive(self, handle: int, limit: int) -> object:
        ready = self.ready()
        messages = self.handles[handle].take(limit, now=self.now, lease=LEASE, lease_until=self.now)
        bodies = [message.body for message in messages]
        assert len(bodies) == len(set(bodies)) <= limit
        assert set(bodies) <= ready
        assert bool(bodies) == bool(ready)
        for name in {message.ordering_key for message in messages} - {None}:
            taken = [message.body for message in messages if message.ordering_key == name]
            assert taken == [kept.body for kept in self.lane(name)][: len(taken)]
        for message in messages:
            kept = self.kept[message.body]
            kept.visible_at, kept.receives, kept.held = self.now + LEASE, kept.receives + 1, True
            assert message.receive_count == kept.receives
        return multiple(*messages)

    @rule(handle=HANDLES, message=received)
    def acknowledge(self, handle: int, message: Message) -> None:
        kept = self.holds(message)
        assert self.handles[handle].acknowledge([message.receipt]) == [kept is not None]
        if kept is not None:
            del self.kept[kept.body]

    @rule(handle=HANDLES, message=received)
    def extend(self, handle: int, message: Message) -> None:
        kept = self.holds(message)
        assert self.handles[handle].extend([message.receipt], now=self.now, lease=LEASE) == [kept is not None]
        if kept is not None:
            kept.visible_at = self.now + LEASE

    @rule(handle=HANDLES, message=received, delay=SECONDS)
    def release(self, handle: int, message: Message, delay: float) -> None:
        kept = self.holds(message)
        assert self.handles[handle].release([message.receipt], now=self.now, delay=delay) == [kept is not None]
        if kept is not None:
            kept.visible_at, kept.held = self.now + delay, False

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(handle=HANDLES)
    def restart(self, handle: int) -> None:
        self.handles[handle].close()
        self.handles[handle] = QueueFile(self.path)

    @invariant()
    def depth_is_exact(self) -> None:
        kept = self.kept.values()
        assert self.handles[0].depth(now=self.now) == Depth(
            visible=sum(self.visible(one) for one in kept),
            invisible=sum(one.held and not self.visible(one) for one in kept),
            delayed=sum(not one.held and not self.visible(one) for one in kept),
        )

    @invariant()
    def next_due_tells_whether_a_receive_finds_something(self) -> None:
        assert (self.handles[1].next_due() <= self.now) == bool(self.ready())


TestQueueAgainstModel = QueueAgainstModel.TestCase
TestQueueAgainstModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
