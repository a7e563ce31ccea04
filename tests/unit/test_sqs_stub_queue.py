"""The stub's queue, as a state machine: what SQS promises holds whatever is done to it, in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.emulators.sqs_stub_messages import State, Stored
from tests.emulators.sqs_stub_queue import Queue, StubError

VISIBILITY = 30.0


class _Machine(RuleBasedStateMachine):
    """A model of leases beside a queue; `fifo` chooses which kind."""

    fifo = False

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.queue = Queue("q.fifo" if self.fifo else "q", now=self.now)
        self.leases: dict[str, tuple[str, float]] = {}
        self.sent: list[Stored] = []
        self.deleted: set[str] = set()

    @rule(group=st.sampled_from("ab"), delay=st.sampled_from([0, 0, 5]))
    def send(self, group: str, delay: int) -> None:
        number = str(len(self.sent))
        chosen = {"group": group, "deduplication_id": number} if self.fifo else {"delay": delay}
        self.sent.append(self.queue.send(number, now=self.now, **chosen))

    @rule(limit=st.integers(1, 10))
    def receive(self, limit: int) -> None:
        given = self.queue.receive(limit, now=self.now, visibility=VISIBILITY)
        assert len(given) <= limit
        held_groups = {self._group(name) for name in self._held()}
        for message in given:
            assert message.id not in self._held(), "handed out twice"
            assert message.id not in self.deleted, "handed out after its deletion"
            if self.fifo:
                assert message.group not in held_groups, "a group that is held was opened"
                assert message.sequence == self._first(message, given), "out of order"
            self.leases[message.id] = (message.handle, self.now + VISIBILITY)
        if not given and not self.fifo:
            assert not [m for m in self.sent if m.state is State.READY], "messages were there"

    @precondition(lambda self: bool(self.leases))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.leases)))
        handle, until = self.leases.pop(name)
        try:
            self.queue.delete(handle, now=self.now)
        except StubError as error:
            assert self.fifo and until <= self.now and error.code == "InvalidParameterValue"  # noqa: PT017, PT018
        if until > self.now:
            self.deleted.add(name)
        assert (name in self.queue.messages) == (name not in self.deleted)

    @precondition(lambda self: bool(self.leases))
    @rule(data=st.data(), timeout=st.sampled_from([0, 10, 60]))
    def change(self, data: st.DataObject, timeout: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.leases)))
        handle, until = self.leases[name]
        try:
            self.queue.change_visibility(handle, timeout, now=self.now)
        except StubError as error:
            assert until <= self.now and error.code == "MessageNotInflight"  # noqa: PT017, PT018
            return
        assert until > self.now
        self.leases[name] = (handle, self.now + timeout)

    @rule(seconds=st.sampled_from([1.0, 7.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.queue.advance(self.now)

    @invariant()
    def counts_are_true(self) -> None:
        counted = [0, 0, 0, 0]
        for message in self.queue.messages.values():
            counted[message.state] += 1
        assert self.queue.counts[:3] == counted[:3]
        assert len(self.queue.messages) == len(self.sent) - len(self.deleted)
        held = {m.id for m in self.queue.messages.values() if m.state is State.IN_FLIGHT and m.visible_at > self.now}
        assert held == set(self._held())

    def _held(self) -> dict[str, float]:
        return {name: until for name, (_, until) in self.leases.items() if until > self.now}

    def _group(self, name: str) -> str | None:
        return next(message.group for message in self.sent if message.id == name)

    def _first(self, message: Stored, given: list[Stored]) -> int:
        earlier = {other.id for other in given[: given.index(message)]}
        open_ones = [
            other.sequence
            for other in self.sent
            if other.group == message.group and other.id not in self.deleted and other.id not in earlier
        ]
        return min(open_ones)


class _FifoMachine(_Machine):
    fifo = True


TestStandardQueue = _Machine.TestCase
TestFifoQueue = _FifoMachine.TestCase
TestStandardQueue.settings = TestFifoQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
