"""Parked events on SQLite and on PostgreSQL alike, and workers that meet on a server."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from consumer.database import Database
from consumer.errors import DatabaseConflict, DatabaseUnavailable
from consumer.parked import ParkedEvents, Parking, parked_sources
from consumer.sources.base import Depth, Message

HOUR = 3600.0


@pytest.fixture
def parked(database: Database) -> ParkedEvents:
    """The first worker's view of the source "hub"."""
    return ParkedEvents(database, "hub", owner="one")


def _event(name: str, lane: str | None = None, position: int = 0, delay: float = 0.0, body: bytes = b"body") -> Parking:
    message = Message(body, name, None, datetime.now(UTC), receive_count=0)
    return Parking(message=message, lane=lane, position=position, delay=delay)


def _names(messages: list[Message]) -> list[str]:
    return [message.message_id for message in messages]


async def _due(database: Database, name: str, seconds_ago: int) -> None:
    """Make the event due that long ago: its lease, if it has one, has lapsed."""
    moment = {
        "sqlite": f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-{seconds_ago} seconds')",
        "postgresql": f"now() - interval '{seconds_ago} seconds'",
    }
    async with database.transaction() as connection:
        statement = f"UPDATE consumer_parked SET due_at = {moment[database.dialect]} WHERE message_id = '{name}'"
        assert (await connection.exec_driver_sql(statement)).rowcount == 1


async def test_a_message_comes_back_as_it_was(parked: ParkedEvents) -> None:
    """Every byte and every fact of a parked message is kept, whatever characters a sender put into it."""
    odd = "caf\u00e9 \\ \" \x00 \ud800 \U0001f600 '"
    accepted_at = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=timezone(timedelta(hours=5)))
    message = Message(
        body=bytes(range(256)) * 4096,
        message_id=odd,
        receipt=None,
        accepted_at=accepted_at,
        receive_count=3,
        expires_at=accepted_at,
        ordering_key=odd,
        headers={"x-signature": odd, "": ""},
    )
    await parked.park([Parking(message=message, lane=odd, position=2**62, delay=0)])
    assert await parked.lanes([odd, "other"]) == {odd}
    before = time.monotonic()
    (back,) = await parked.claim(1)
    assert (back.body, back.message_id, back.ordering_key, back.headers) == (message.body, odd, odd, message.headers)
    assert (back.accepted_at, back.expires_at, back.receive_count) == (accepted_at, None, 4)
    assert before + 60 <= back.lease_until <= time.monotonic() + 60
    assert await parked.finish([back]) == []
    assert (await parked.next_due(), await parked.lanes([odd]), await parked.depth()) == (None, set(), Depth(0))


async def test_the_oldest_due_first(database: Database, parked: ParkedEvents) -> None:
    """Events without a lane are claimed in the order in which they came due, and not before."""
    await parked.park([_event("later", delay=HOUR), *(_event(name) for name in "abc")])
    for seconds_ago, name in enumerate("bca", start=1):
        await _due(database, name, seconds_ago)
    assert _names(await parked.claim(2)) == ["a", "c"]
    assert _names(await parked.claim(2)) == ["b"]
    assert await parked.claim(2) == []
    assert await parked.claim(0) == []


async def test_an_event_that_is_not_to_wait(database: Database, parked: ParkedEvents) -> None:
    """One that waits for its time is due at once; not one behind another, claimed, of another source, or unknown."""
    await parked.park([_event("alone", delay=HOUR), _event("front", "a", 1, HOUR), _event("behind", "a", 2, HOUR)])
    assert not await parked.hasten("behind")
    assert not await parked.hasten("unknown")
    assert not await ParkedEvents(database, "another", owner="two").hasten("alone")
    assert await parked.claim(10) == []
    assert await parked.hasten("front")
    assert _names(await parked.claim(10)) == ["front"]
    assert not await parked.hasten("front")
    assert await parked.hasten("alone")
    assert _names(await parked.claim(10)) == ["alone"]


async def test_a_lane_runs_one_at_a_time_in_order(parked: ParkedEvents) -> None:
    """The next event of a lane is handed out only when the one before it is gone, however they were parked."""
    await parked.park([_event(f"a{position}", "a", position) for position in (3, 1, 2)])
    await parked.park([_event("b9", "b", 9), _event("a0", "a", 0)])
    seen = []
    while batch := await parked.claim(10):
        assert await parked.claim(10) == []
        seen += _names(batch)
        assert await parked.finish(batch) == []
    assert seen[:2] in (["a0", "b9"], ["b9", "a0"])
    assert seen[2:] == ["a1", "a2", "a3"]


async def test_a_waiting_event_holds_up_its_lane_alone(parked: ParkedEvents) -> None:
    """What follows an event that is not due, or leased, is not due either; other lanes go on."""
    await parked.park([_event("a1", "a", 1, HOUR), _event("a2", "a", 2), _event("b1", "b", 1)])
    assert await parked.depth() == Depth(visible=1, delayed=2)
    batch = await parked.claim(10)
    assert _names(batch) == ["b1"]
    assert await parked.depth() == Depth(visible=0, invisible=1, delayed=2)
    seconds = await parked.next_due()
    assert seconds is not None
    assert 50 < seconds <= 60
    await parked.finish(batch)
    seconds = await parked.next_due()
    assert seconds is not None
    assert 3590 < seconds <= 3600


async def test_an_event_parked_late_waits_for_the_one_that_runs(parked: ParkedEvents) -> None:
    """An earlier event of a lane goes before a later one that waits, and after one that is claimed."""
    await parked.park([_event("a5", "a", 5)])
    running = await parked.claim(10)
    await parked.park([_event("a3", "a", 3)])
    assert await parked.claim(10) == []
    assert await parked.release(running, 0) == []
    first = await parked.claim(10)
    assert _names(first) == ["a3"]
    await parked.finish(first)
    assert _names(await parked.claim(10)) == ["a5"]


async def test_parking_the_same_event_again_changes_nothing(parked: ParkedEvents) -> None:
    """A partition's old owner and its new one may both park an event: it is there once, as it was first."""
    await parked.park([_event("a1", "a", 1, HOUR), _event("a1", "a", 1, body=b"again")])
    await parked.park([_event("a1", "b", 7, body=b"again"), _event("a2", "a", 2)])
    assert await parked.depth() == Depth(visible=0, delayed=2)
    assert await parked.lanes(["a", "b"]) == {"a"}


async def test_a_lapsed_lease_is_taken_over(database: Database, parked: ParkedEvents) -> None:
    """Once another worker has claimed the event, its old holder can neither renew, release nor finish it."""
    other = ParkedEvents(database, "hub", owner="two")
    await parked.park([_event("a1", "a", 1), _event("a2", "a", 2), _event("kept")])
    held = {message.message_id: message for message in await parked.claim(10)}
    await _due(database, "a1", 1)
    (taken,) = await other.claim(10)
    assert (taken.message_id, taken.receive_count) == ("a1", 2)
    both = [held["a1"], held["kept"]]
    until = held["a1"].lease_until
    assert await parked.renew(both) == [held["a1"]]
    assert held["a1"].lease_until == until < held["kept"].lease_until
    assert await parked.release(both, 0) == [held["a1"]]
    assert await parked.finish(both) == both
    assert await other.finish([taken]) == []
    assert sorted(_names(await other.claim(10))) == ["a2", "kept"]


async def test_the_same_worker_knows_its_own_claims_apart(database: Database, parked: ParkedEvents) -> None:
    """A worker that claims again what it had let lapse cannot settle it with the old receipt."""
    await parked.park([_event("a1", "a", 1)])
    (old,) = await parked.claim(1)
    await _due(database, "a1", 1)
    assert await parked.renew([old]) == []  # nobody has taken it
    await _due(database, "a1", 1)
    (new,) = await parked.claim(1)
    assert await parked.finish([old]) == [old]
    assert await parked.finish([old, new]) == [old]


async def test_sources_do_not_meet(database: Database, parked: ParkedEvents) -> None:
    """A source sees its own events alone; all of them are counted, for those whose source is gone."""
    assert await parked_sources(database) == {}
    other = ParkedEvents(database, "other", owner="one")
    await parked.park([_event("same", "a", 1)])
    await other.park([_event("same", "a", 1), _event("x", "b", 1)])
    assert await parked_sources(database) == {"hub": 1, "other": 2}
    assert len(await parked.claim(10)) == 1
    assert len(await other.claim(10)) == 2
    assert await parked.lanes(["a", "b"]) == {"a"}


async def test_the_lanes_that_begin_so(database: Database, parked: ParkedEvents) -> None:
    """The lanes of one partition are found by how their names begin, letter by letter, and of this source alone."""
    lanes = ["1/a_%", "1/\u00e9\x00", "10/a", "1", "A/a"]
    await parked.park([_event(f"{lane}{position}", lane, position) for lane in lanes for position in (1, 2)])
    await parked.park([_event("1/alone")])
    await ParkedEvents(database, "other", owner="one").park([_event("a", "1/other", 1)])
    assert await parked.lanes_under("1/") == {"1/a_%", "1/\u00e9\x00"}
    assert await parked.lanes_under("a/") == set()


async def test_nothing_is_parked_by_half(parked: ParkedEvents) -> None:
    """A batch of many statements is parked whole, and none of it is seen when the last one fails."""
    events = [_event(str(number), "a", number) for number in range(1_000)]
    with pytest.raises((DatabaseConflict, DatabaseUnavailable)):
        await parked.park([*events, _event("last", "a", 5_000, delay=1e300)])
    assert await parked.next_due() is None
    await parked.park(events)
    assert await parked.depth() == Depth(visible=1, delayed=999)


async def test_empty_calls(parked: ParkedEvents) -> None:
    """Nothing to do is done at once."""
    await parked.park([])
    assert await parked.lanes([]) == set()
    assert [await parked.renew([]), await parked.release([], 0), await parked.finish([])] == [[], [], []]


async def test_a_database_that_is_gone(postgres_url: str) -> None:
    """Whatever is asked of a database without the tables is `DatabaseUnavailable`, and shows no body."""
    database = Database(postgres_url)
    parked = ParkedEvents(database, "hub", owner="one")
    calls = (parked.park([_event("a", body=b"secret")]), parked.claim(1), parked.lanes(["a"]), parked.next_due())
    for call in (*calls, parked.depth(), parked_sources(database)):
        with pytest.raises(DatabaseUnavailable, match="42P01") as caught:
            await call
        assert "secret" not in repr(caught.value)
    await database.close()


async def test_two_claimers_never_get_the_same_event(postgres_database: Database, postgres_url: str) -> None:
    """Workers that claim, release and finish at once: no event is in two hands, and every lane keeps its order."""
    lanes = [f"lane {number}" for number in range(6)]
    events = [_event(f"{lane}/{position}", lane, position) for position in range(15) for lane in lanes]
    events += [_event(f"alone/{number}") for number in range(60)]
    await ParkedEvents(postgres_database, "hub", owner="parker").park(events)
    in_hand: set[str] = set()
    done: list[str] = []
    second = Database(postgres_url)

    async def work(parked: ParkedEvents, chance: random.Random) -> None:
        while await parked.next_due() is not None:
            batch = await parked.claim(chance.randint(1, 8))
            names = set(_names(batch))
            assert not names & in_hand
            in_hand.update(names)
            await asyncio.sleep(0)
            back = [message for message in batch if chance.random() < 0.2]
            gone = [message for message in batch if message not in back]
            in_hand.difference_update(names)
            done.extend(_names(gone))
            assert await parked.finish(gone) == []
            assert await parked.release(back, 0) == []

    workers = [
        work(ParkedEvents(database, "hub", owner=str(number)), random.Random(number))
        for number, database in enumerate([postgres_database, second] * 2)
    ]
    await asyncio.wait_for(asyncio.gather(*workers), 30)
    await second.close()
    assert sorted(done) == sorted(event.message.message_id for event in events)
    for lane in lanes:
        assert [name for name in done if name.startswith(f"{lane}/")] == [f"{lane}/{n}" for n in range(15)]


async def test_nobody_is_left_behind_an_event_that_is_gone(postgres_database: Database) -> None:
    """An event parked behind another just as that one is finished becomes due all the same."""
    parked = ParkedEvents(postgres_database, "hub", owner="one")
    await parked.park([_event("a0", "a", 0)])
    for position in range(1, 60):
        (front,) = await parked.claim(10)
        settled, _ = await asyncio.gather(parked.finish([front]), parked.park([_event(f"a{position}", "a", position)]))
        assert settled == []
    assert _names(await parked.claim(10)) == ["a59"]


async def test_workers_that_park_the_same_events_at_once(postgres_database: Database) -> None:
    """Two owners of a partition that park its events in any order neither deadlock nor park one twice."""
    events = [_event(f"a{position}", f"lane {position % 7}", position) for position in range(200)]
    workers = [ParkedEvents(postgres_database, "hub", owner=name) for name in "abcd"]
    shuffled = [random.Random(number).sample(events, len(events)) for number in range(len(workers))]
    await asyncio.gather(*(worker.park(order) for worker, order in zip(workers, shuffled, strict=True)))
    assert await workers[0].depth() == Depth(visible=7, delayed=193)
