"""The pipeline: from an opened envelope to a durable outcome, on a real database."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from consumer import Context, DispatchTable, Reject, Retry, ThriveSignature, Unavailable
from consumer.database import Database
from consumer.deliveries import Held, Item
from consumer.errors import ConsumerError, CredentialsRefused, NotConfigured
from consumer.events import DailyDeviceEvent, LabResultEvent, NudgeEvent
from consumer.events.reading import ThriveReader
from consumer.guard import Guard
from consumer.inbox import Inbox, InboxRow
from consumer.opening import open_message
from consumer.ops.metrics import Metrics
from consumer.outcomes import DeadLettered, Duplicate, GivenBack, Handled, Lost, Verdict, WillRetry
from consumer.pipeline import Pipeline
from consumer.route import Route
from consumer.running import Runner
from consumer.sources.base import Message

SIGNATURE = ThriveSignature(secrets=["a secret"])
KINDS = {LabResultEvent: "lab.result.ready", DailyDeviceEvent: "daily.created", NudgeEvent: "coach.nudge.created"}


@dataclass
class Bench:
    """A pipeline on a database, and the events put through it."""

    pipeline: Pipeline
    inbox: Inbox
    database: Database
    table: DispatchTable
    route: Route
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)

    def item(
        self, event_id: str, kind: type[Any] = LabResultEvent, *, body: dict[str, Any] | None = None, **facts: Any
    ) -> Item:
        content = {"event_id": event_id, "event_type": KINDS[kind], **(body or {})}
        message = Message(SIGNATURE.sign(json.dumps(content)), f"m-{event_id}", None, datetime.now(UTC), **facts)
        (item,) = open_message(Held(message, received_at=time.monotonic()), self.route)
        return item

    async def outcome(self, event_id: str, kind: type[Any] = LabResultEvent, **facts: Any) -> Verdict:
        return await self.pipeline.outcome(self.item(event_id, kind, **facts))

    async def together(self, *items: Item) -> list[Verdict]:
        """Submit items at once to a running pipeline; their verdicts, in order."""
        futures = [asyncio.get_running_loop().create_future() for _ in items]
        for item, future in zip(items, futures, strict=True):
            self.pipeline.submit(item, lambda _, verdict, future=future: future.set_result(verdict))
        return await asyncio.wait_for(asyncio.gather(*futures), 20)

    async def rows(self) -> list[str]:
        async with self.database.engine.connect() as connection:
            return sorted((await connection.execute(text("SELECT name FROM effects"))).scalars())

    async def attempts(self) -> int:
        return len(await self.database.read("SELECT failures FROM consumer_attempts WHERE failures > 0"))

    def made_fast(self) -> None:
        """Let every handler share transactions from now on."""
        for kind in self.table.event_types:
            for handler in self.table.handlers_for(kind):
                for _ in range(100):
                    handler.pace.ran(0.0)


@pytest.fixture
def bench(sqlite_database: Database) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(
        table: DispatchTable, *, max_attempts: int = 3, handler_timeout: float = 5.0
    ) -> AsyncIterator[Bench]:
        async with sqlite_database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE effects (name TEXT NOT NULL)"))
        inbox = Inbox(sqlite_database)
        runner = Runner(meter=Metrics())
        pipeline = Pipeline(database=sqlite_database, inbox=inbox, runner=runner, retry_base=0.01, retry_cap=0.1)
        route = Route(
            source="labs",
            provider="thrive",
            namespace="",
            signature=SIGNATURE,
            reader=ThriveReader(),
            table=table,
            guard=Guard(),
            max_attempts=max_attempts,
            handler_timeout=handler_timeout,
        )
        running = asyncio.create_task(pipeline.run())
        try:
            yield Bench(pipeline, inbox, sqlite_database, table, route)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return make


async def write(context: Context, name: str) -> None:
    await context.session.execute(text("INSERT INTO effects VALUES (:name)"), {"name": name})


async def test_an_event_takes_effect_once(bench: Any) -> None:
    """The second delivery of the same event is a duplicate, and leaves no trace."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table) as at:
        assert await at.outcome("e1") == Handled()
        assert await at.outcome("e1") == Duplicate()
        assert await at.rows() == ["e1"]


async def test_another_body_under_the_same_id_is_put_aside(bench: Any) -> None:
    """Neither dropped as a duplicate nor handled."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table) as at:
        assert await at.outcome("e1") == Handled()
        verdict = await at.outcome("e1", body={"extra": 1})
        assert isinstance(verdict, DeadLettered)
        assert verdict.reason == "conflicting_duplicate"
        assert await at.rows() == ["e1"]


async def test_all_handlers_of_an_event_share_its_fate(bench: Any) -> None:
    """What the first wrote is rolled back when the second fails."""
    table = DispatchTable()
    broken = True

    @table.on(LabResultEvent)
    async def first(event: LabResultEvent, context: Context) -> None:
        await write(context, "first")

    @table.on(LabResultEvent)
    async def second(event: LabResultEvent, context: Context) -> None:
        if broken:
            raise ValueError
        await write(context, "second")

    async with bench(table) as at:
        assert isinstance(await at.outcome("e1"), WillRetry)
        assert await at.rows() == []
        broken = False
        assert await at.outcome("e1") == Handled()
        assert await at.rows() == ["first", "second"]
        assert await at.attempts() == 0


async def test_attempts_are_counted_and_end_in_a_dead_letter(bench: Any) -> None:
    """The handler sees 1, 2, 3; then the event is put aside with the place of the failure, without its words."""
    table = DispatchTable()
    seen = []

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        seen.append(context.delivery.attempt)
        raise ValueError("glucose 99")

    async with bench(table) as at:
        verdicts = [await at.outcome("e1") for _ in range(3)]
        assert seen == [1, 2, 3]
        assert isinstance(verdicts[0], WillRetry)
        last = verdicts[2]
        assert isinstance(last, DeadLettered)
        assert last.reason == "attempts_exhausted"
        assert last.error is not None
        assert last.error["type"] == "ValueError"
        assert last.error["at"][-1].endswith(":handle")
        assert "glucose" not in repr(last.error)


async def test_retry_reject_and_unavailable_mean_what_they_say(bench: Any) -> None:
    """Retry counts and takes its delay, Reject ends it, Unavailable counts nothing."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def lab(event: LabResultEvent, context: Context) -> None:
        raise Retry(17)

    @table.on(NudgeEvent)
    async def nudge(event: NudgeEvent, context: Context) -> None:
        raise Reject("no such member")

    @table.on(DailyDeviceEvent)
    async def daily(event: DailyDeviceEvent, context: Context) -> None:
        raise Unavailable(retry_after=30)

    async with bench(table) as at:
        assert await at.outcome("e1") == WillRetry(17)
        assert await at.attempts() == 1
        rejected = await at.outcome("e2", NudgeEvent)
        assert isinstance(rejected, DeadLettered)
        assert (rejected.reason, rejected.detail) == ("rejected", "no such member")
        assert "member" not in repr(rejected)
        given = await at.outcome("e3", DailyDeviceEvent)
        assert isinstance(given, GivenBack)
        assert given.retry_after == 30
        assert await at.attempts() == 1


async def returns_retry(event: LabResultEvent, context: Context) -> Any:
    return Retry(3)


async def exits(event: LabResultEvent, context: Context) -> None:
    sys.exit(0)


async def lets_a_cancellation_escape(event: LabResultEvent, context: Context) -> None:
    raise asyncio.CancelledError


async def takes_too_long(event: LabResultEvent, context: Context) -> None:
    await asyncio.sleep(60)


async def commits(event: LabResultEvent, context: Context) -> None:
    await write(context, "x")
    await context.session.commit()


async def rolls_back_in_sql(event: LabResultEvent, context: Context) -> None:
    await write(context, "x")
    await context.session.execute(text("ROLLBACK"))


async def recurses(event: LabResultEvent, context: Context) -> None:
    await recurses(event, context)


@pytest.mark.parametrize(
    "handler", [returns_retry, exits, lets_a_cancellation_escape, takes_too_long, commits, rolls_back_in_sql, recurses]
)
@pytest.mark.parametrize("fast", [False, True])
async def test_no_way_to_fail_counts_as_done_or_stops_the_worker(bench: Any, handler: Any, fast: bool) -> None:
    """Alone or in a group, each is one failed attempt, and nothing of it stays."""
    table = DispatchTable()
    table.on(LabResultEvent)(handler)

    @table.on(NudgeEvent)
    async def good(event: NudgeEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table, handler_timeout=0.3) as at:
        if fast:
            at.made_fast()
        verdicts = await at.together(at.item("n1", NudgeEvent), at.item("e1"), at.item("n2", NudgeEvent))
        assert verdicts[0] == verdicts[2] == Handled()
        assert isinstance(verdicts[1], WillRetry)
        assert await at.rows() == ["n1", "n2"]
        assert await at.attempts() == 1


async def test_an_event_handled_elsewhere_meanwhile_is_no_dead_letter(bench: Any) -> None:
    """The last attempt here fails after another worker has succeeded: a duplicate, and its attempts are forgotten."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        async with at.inbox.transaction() as other:
            await other.commit([InboxRow(item.key, item.body_hash)])
        raise ValueError

    async with bench(table, max_attempts=1) as at:
        item = at.item("e1")
        assert await at.pipeline.outcome(item) == Duplicate()
        assert await at.attempts() == 0


async def test_a_group_is_not_observable(bench: Any) -> None:
    """Failures in a group touch nobody else, effects are single, and only the run alone counts."""
    table = DispatchTable()
    runs: dict[str, int] = {}

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        runs[event.event_id] = runs.get(event.event_id, 0) + 1
        await write(context, event.event_id)
        if event.event_id.startswith("bad"):
            raise KeyError

    async with bench(table) as at:
        at.made_fast()
        names = [f"bad{n}" if n % 10 == 3 else f"e{n:02}" for n in range(40)]
        verdicts = dict(zip(names, await at.together(*map(at.item, names)), strict=True))
        assert {name for name, verdict in verdicts.items() if isinstance(verdict, WillRetry)} == {
            name for name in names if name.startswith("bad")
        }
        assert await at.rows() == sorted(name for name in names if name.startswith("e"))
        assert await at.attempts() == 4
        assert max(runs.values()) > 1, "nothing was grouped, so this showed nothing"


class WorkClock:
    """A clock on which time passes only with work, so that what is measured does not depend on the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for module in ("pipeline", "running", "waiting"):
            monkeypatch.setattr(f"consumer.{module}.time", self)

    def work(self) -> float:
        self.now += 0.0001
        return self.now

    monotonic = work
    """Asked by the pipeline for each run it begins, which is work too."""

    def perf_counter(self) -> float:
        return self.now


async def test_a_crowd_does_not_make_a_handler_look_slow(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands submitted at once to a handler nobody knows, a hundred or so run alone; the rest share commits."""
    table = DispatchTable()
    crowd: set[Any] = set()
    monkeypatch.setattr("consumer.pipeline._GROUP_SECONDS", 60.0)

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)
        clock.work()

    async with bench(table) as at:
        names = [f"e{n:04}" for n in range(1500)]
        items = [at.item(name) for name in names]
        clock = WorkClock(monkeypatch)
        start_alone = at.pipeline._start_alone

        def counting(item: Item) -> None:
            crowd.add(item)
            start_alone(item)

        at.pipeline._start_alone = counting
        await at.together(*items)
        assert await at.rows() == names
        assert len(crowd) < 300


async def test_the_same_event_twice_in_hand_waits_for_the_first(bench: Any) -> None:
    """Ten deliveries of one event at once: one effect, nine duplicates."""
    table = DispatchTable()
    running = 0

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.01)
        await write(context, event.event_id)
        running -= 1

    async with bench(table) as at:
        verdicts = await at.together(*(at.item("e1") for _ in range(10)))
        assert sorted(type(one).__name__ for one in verdicts) == ["Duplicate"] * 9 + ["Handled"]
        assert await at.rows() == ["e1"]


async def test_a_session_ends_with_its_handler(bench: Any) -> None:
    """A context kept for later cannot write into another event's transaction."""
    table = DispatchTable()
    kept: list[Context] = []

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        kept.append(context)
        await write(context, event.event_id)

    async with bench(table) as at:
        assert await at.outcome("e1") == Handled()
        with pytest.raises(ConsumerError):
            _ = kept[0].session


async def test_concurrency_of_a_handler_is_limited(bench: Any) -> None:
    """max_concurrency holds over everything in hand."""
    table = DispatchTable()
    running = most = 0

    @table.on(LabResultEvent, max_concurrency=2)
    async def handle(event: LabResultEvent, context: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    async with bench(table) as at:
        assert await at.together(*(at.item(f"e{n}") for n in range(20))) == [Handled()] * 20
        assert most == 2


async def test_handlers_without_the_session_share_commits_and_still_count_once(bench: Any) -> None:
    """Twenty slow handlers that only call others: all inbox rows are written, none twice."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        await asyncio.sleep(0.03)

    async with bench(table) as at:
        items = [at.item(f"e{n}") for n in range(20)]
        assert await at.together(*items) == [Handled()] * 20
        assert len(await at.inbox.lookup([item.key for item in items])) == 20


async def test_a_lapsed_lease_starts_no_handler(bench: Any) -> None:
    """Somebody else may have the message by now."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise AssertionError

    async with bench(table) as at:
        assert await at.outcome("e1", lease_until=time.monotonic() - 1) == Lost()


async def test_a_crashing_event_is_put_aside_at_its_third_start(bench: Any) -> None:
    """Received again and again without an outcome: started twice more, then a dead letter."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None: ...

    async with bench(table) as at:
        item = at.item("e1", receive_count=at.route.max_receives + 1)
        for start in (1, 2):
            assert await at.inbox.record_start(item.key) == start
        verdict = await at.pipeline.outcome(item)
        assert isinstance(verdict, DeadLettered)
        assert verdict.reason == "crashed"
        assert await at.outcome("e2", receive_count=at.route.max_receives + 1) == Handled()


async def test_a_failure_recorded_before_does_not_hide_a_crashing_event(bench: Any) -> None:
    """It failed once as others do, and has ended the process ever since."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise ValueError

    async with bench(table, max_attempts=8) as at:
        assert isinstance(await at.outcome("e1"), WillRetry)
        item = at.item("e1", receive_count=at.route.max_receives + 1)
        for _ in range(2):
            await at.inbox.record_start(item.key)
        assert await at.pipeline.outcome(item) == DeadLettered("crashed")


async def test_trouble_that_follows_one_event_while_others_pass_is_its_own(bench: Any) -> None:
    """Unavailable three times, with successes of others between: it counts as failed. Without them, never."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise Unavailable

    @table.on(NudgeEvent)
    async def fine(event: NudgeEvent, context: Context) -> None: ...

    async with bench(table) as at:
        for _ in range(10):
            assert isinstance(await at.outcome("e1"), GivenBack)
        assert await at.attempts() == 0
        for n in range(2):
            assert await at.outcome(f"n{n}", NudgeEvent) == Handled()
            verdict = await at.outcome("e1")
        assert isinstance(verdict, WillRetry)
        assert await at.attempts() == 1


@pytest.mark.parametrize(
    "trouble",
    [
        NotConfigured("CONSUMER_THRIVE__TENANT_KEY is not set"),
        CredentialsRefused("GET /v1/users/{user_id}/labs", status=401, message="tenant t-1 is revoked"),
    ],
)
async def test_credentials_missing_or_refused_are_no_events_fault(bench: Any, trouble: Exception) -> None:
    """No attempt is counted, and what is said names the setting or the call. With others passing, it counts."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise trouble

    @table.on(NudgeEvent)
    async def fine(event: NudgeEvent, context: Context) -> None: ...

    async with bench(table) as at:
        for _ in range(5):
            verdict = await at.outcome("e1")
            assert verdict == GivenBack(type(trouble).__name__)
            assert verdict.detail == str(trouble)
            assert "t-1" not in verdict.detail
        assert await at.attempts() == 0
        verdicts = []
        for n in range(2):
            assert await at.outcome(f"n{n}", NudgeEvent) == Handled()
            verdicts.append(type(await at.outcome("e1")))
        assert verdicts == [GivenBack, WillRetry]
        assert await at.attempts() == 1


async def test_what_another_source_gets_done_blames_nobody(bench: Any) -> None:
    """Trouble with one platform follows its events only, however well those of the other platform go meanwhile."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise Unavailable

    @table.on(NudgeEvent)
    async def fine(event: NudgeEvent, context: Context) -> None: ...

    async with bench(table) as at:
        mine = at.route
        for n in range(5):
            at.route = replace(mine, source="wellness", guard=Guard())
            assert await at.outcome(f"n{n}", NudgeEvent) == Handled()
            at.route = mine
            assert isinstance(await at.outcome("e1"), GivenBack)
        assert await at.attempts() == 0


async def test_only_what_needs_the_same_and_gets_it_blames_an_event(bench: Any) -> None:
    """While a call is answered to nobody, no event that needs it fails, whatever its source gets done without it."""
    table = DispatchTable()
    answers = {"GET /a": 0, "GET /b": 0}
    call = "GET /a"

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise Unavailable(why=f"{call}: HTTP 503", answered=lambda: answers[call])

    @table.on(NudgeEvent)
    async def fine(event: NudgeEvent, context: Context) -> None: ...

    async with bench(table) as at:
        for n in range(5):
            assert await at.outcome(f"n{n}", NudgeEvent) == Handled()
            assert isinstance(await at.outcome("e1"), GivenBack)
        answers["GET /b"] += 1
        call = "GET /b"
        assert isinstance(await at.outcome("e1"), GivenBack), "another call's count says nothing about this one's"
        assert await at.attempts() == 0
        answers["GET /b"] += 1
        assert isinstance(await at.outcome("e1"), GivenBack)
        answers["GET /b"] += 1
        assert isinstance(await at.outcome("e1"), WillRetry)
        assert await at.attempts() == 1


async def test_replay_runs_once_and_counts_nothing(bench: Any) -> None:
    """An event out of attempts may still be replayed."""
    table = DispatchTable()
    broken = True

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        if broken:
            raise ValueError

    async with bench(table, max_attempts=1) as at:
        assert isinstance(await at.outcome("e1"), DeadLettered)
        at.route.counts_attempts = False
        assert isinstance(await at.outcome("e1"), WillRetry)
        broken = False
        assert await at.outcome("e1") == Handled()


async def test_withdrawing_leaves_no_repeat_behind(bench: Any) -> None:
    """An event in hand three times and not begun: all three are taken back, none moves up and runs."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise AssertionError

    async with bench(table) as at:
        item = at.item("e1")
        repeats = [at.item("e1") for _ in range(3)]
        for one in (item, *repeats):
            at.pipeline.submit(one, lambda *_: None)
        assert set(at.pipeline.withdraw("labs")) == {item, *repeats}


async def test_what_comes_after_the_end_goes_back(bench: Any) -> None:
    """A large message that was still being opened when the worker ended is given back, not forgotten."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        raise AssertionError

    async with bench(table) as at:
        item = at.item("e1")
        await asyncio.sleep(0)
    verdicts: list[Verdict] = []
    at.pipeline.submit(item, lambda _, verdict: verdicts.append(verdict))
    assert verdicts == [GivenBack("stopped")]
