"""Lanes: order within a key."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.lanes import Lanes


class LanesMachine(RuleBasedStateMachine):
    """At most one delivery of a lane runs, in the order of arrival, and no delivery is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[int] = Lanes()
        self.count = 0
        self.running: dict[str, int] = {}
        self.waiting: defaultdict[str, list[int]] = defaultdict(list)

    @rule(lane=st.sampled_from("abc"))
    def arrive(self, lane: str) -> None:
        self.count += 1
        if self.lanes.enter(lane, self.count):
            assert lane not in self.running
            self.running[lane] = self.count
        else:
            self.waiting[lane].append(self.count)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[lane]
        following = self.lanes.advance(lane)
        if self.waiting[lane]:
            assert following == self.waiting[lane].pop(0)
            self.running[lane] = following
        else:
            assert following is None

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[lane]
        assert self.lanes.block(lane) == self.waiting.pop(lane, [])

    @rule()
    def give_back(self) -> None:
        assert sorted(self.lanes.clear()) == sorted(one for all_of in self.waiting.values() for one in all_of)
        self.waiting.clear()

    @invariant()
    def lanes_exist_while_something_runs(self) -> None:
        assert len(self.lanes) == len(self.running)


TestLanes = LanesMachine.TestCase
