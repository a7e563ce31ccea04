"""Parked events against a model, and what a file keeps of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from consumer.database import Database
from consumer.migrations import migrate
from consumer.parked import ParkedEvents, Parking
from consumer.sources.base import Message

T = TypeVar("T")

NEVER = 86_400.0


def _event(name: str, lane: str | None, position: int, delay: float) -> Parking:
    message = Message(name.encode(), name, None, datetime.now(UTC), receive_count=0)
    return Parking(message=message, lane=lane, position=position, delay=delay)


@dataclass
class _Row:
    """A row as the model has it; each claim is the message that was handed out for it."""

    lane: str | None
    position: int
    due: bool
    claim: Message | None = None
    claims: int = 0


class ParkedAgainstModel(RuleBasedStateMachine):
    """Two workers park, claim and settle events in any order; leases lapse at any moment."""

    held: Bundle[Message] = Bundle("held")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.database = Database(f"sqlite:///{self.folder.name}/parked.db")
        self.run(self.database.open())
        self.run(migrate(self.database))
        self.workers = [ParkedEvents(self.database, "hub", owner=name) for name in ("one", "two")]
        self.rows: dict[str, _Row] = {}
        self.holders: dict[int, ParkedEvents] = {}

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def claimable(self) -> set[str]:
        """The rows that are due and the front of their lane: the claimed one, else the first."""
        lanes: dict[str, list[str]] = {}
        for name, row in self.rows.items():
            lanes.setdefault(row.lane or f"alone {name}", []).append(name)
        fronts = [
            min(names, key=lambda name: (self.rows[name].claim is None, self.rows[name].position))
            for names in lanes.values()
        ]
        return {name for name in fronts if self.rows[name].due}

    def ours(self, message: Message) -> bool:
        row = self.rows.get(message.message_id)
        return row is not None and row.claim is message

    def execute(self, sql: str, name: str) -> None:
        async def change() -> None:
            async with self.database.transaction() as connection:
                await connection.exec_driver_sql(sql, (name,))

        self.run(change())

    @rule(
        worker=st.integers(0, 1),
        events=st.lists(
            st.tuples(st.sampled_from([None, "a", "b"]), st.integers(0, 9), st.booleans()), min_size=1, max_size=4
        ),
    )
    def park(self, worker: int, events: list[tuple[str | None, int, bool]]) -> None:
        """One that is there already stays as it is, and so does the second of a batch."""
        batch = [(f"{lane}-{position}", lane, position, due) for lane, position, due in events]
        parkings = [_event(name, lane, position, 0 if due else NEVER) for name, lane, position, due in batch]
        self.run(self.workers[worker].park(parkings))
        for name, lane, position, due in batch:
            self.rows.setdefault(name, _Row(lane, position, due))

    @rule(target=held, worker=st.integers(0, 1), limit=st.integers(1, 4))
    def claim(self, worker: int, limit: int) -> Any:
        expected = self.claimable()
        messages = self.run(self.workers[worker].claim(limit))
        names = {message.message_id for message in messages}
        assert names <= expected
        assert len(names) == len(messages) == min(limit, len(expected))
        for message in messages:
            self.holders[id(message)] = self.workers[worker]
            row = self.rows[message.message_id]
            row.claim, row.due, row.claims = message, False, row.claims + 1
            assert message.receive_count == row.claims
        return multiple(*messages)

    @rule(message=held)
    def lapse(self, message: Message) -> None:
        """The lease runs out."""
        if self.ours(message):
            self.execute("UPDATE consumer_parked SET due_at = '2000-01-01' WHERE message_id = ?", message.message_id)
            self.rows[message.message_id].due = True

    @rule(message=held)
    def renew(self, message: Message) -> None:
        lost = self.run(self.holders[id(message)].renew([message]))
        assert lost == ([] if self.ours(message) else [message])
        if not lost:
            self.rows[message.message_id].due = False

    @rule(message=held, due=st.booleans())
    def release(self, message: Message, due: bool) -> None:
        lost = self.run(self.holders[id(message)].release([message], 0 if due else NEVER))
        assert lost == ([] if self.ours(message) else [message])
        if not lost:
            row = self.rows[message.message_id]
            row.claim, row.due = None, due

    @rule(message=held)
    def finish(self, message: Message) -> None:
        lost = self.run(self.holders[id(message)].finish([message]))
        assert lost == ([] if self.ours(message) else [message])
        if not lost:
            del self.rows[message.message_id]

    @invariant()
    def the_figures_agree(self) -> None:
        depth = self.run(self.workers[0].depth())
        claimable = self.claimable()
        leased = [name for name, row in self.rows.items() if row.claim is not None and not row.due]
        assert (depth.visible, depth.invisible, depth.total) == (len(claimable), len(leased), len(self.rows))
        seconds = self.run(self.workers[1].next_due())
        assert (seconds is None) == (not self.rows)
        assert (seconds == 0) == bool(claimable)
        lanes = {row.lane for row in self.rows.values()} - {None}
        assert self.run(self.workers[0].lanes({"a", "b", "c"})) == lanes


ParkedAgainstModel.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class TestParkedAgainstModel(ParkedAgainstModel.TestCase):
    """Whatever workers do, an event is claimed by one of them at a time and a lane keeps its order."""


async def test_parked_events_survive_a_restart(tmp_path: Path) -> None:
    """What was parked, and how often it was claimed, is found again by the next process."""
    url = f"sqlite:///{tmp_path}/consumer.db"
    for count in (1, 2):
        database = Database(url)
        await database.open()
        await migrate(database)
        parked = ParkedEvents(database, "hub", owner=f"process {count}")
        await parked.park([_event("first", "a", 1, 0), _event("second", "a", 2, 0)])
        (message,) = await parked.claim(10)
        assert (message.message_id, message.body, message.receive_count) == ("first", b"first", count)
        assert await parked.release([message], 0) == []
        await database.close()
