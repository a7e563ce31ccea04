"""Parked events of a member: erased from the database, unless a worker holds them; the lanes of others go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from consumer.database import Database
from consumer.dispatch import DispatchTable
from consumer.forgetting import ParkedForgotten, forget_parked
from consumer.inbox import Inbox, event_key
from consumer.member import Member
from consumer.parked import ParkedEvents, Parking
from consumer.providers import build_readers, build_route
from consumer.route import Route
from consumer.settings_loading import load_settings
from consumer.signatures import ThriveSignature
from consumer.sources.base import Message
from consumer.whose import Ownership

SECRET = "a secret for tests"
NOW = datetime.now(UTC)
LATER = 3600.0


@pytest.fixture
def route() -> Route:
    """How the source's messages are opened."""
    table = DispatchTable()
    given = {"sources.hub.kind": "local", "sources.hub.path": "queue", "thrive.signature.secrets": [SECRET]}
    settings = load_settings(env={}, overrides=given).settings
    return build_route(settings.source("hub"), settings, table, build_readers(settings, table))


@pytest.fixture
def parked(database: Database) -> ParkedEvents:
    """What is parked, as a worker sees it."""
    return ParkedEvents(database, "hub", owner="worker")


def signed(user_id: str, name: str) -> bytes:
    """An envelope, older than any signature may be."""
    body = json.dumps({"event_id": name, "event_type": "lab.result.ready", "user_id": user_id})
    return ThriveSignature(secrets=[SECRET]).sign(body, signed_at=NOW - timedelta(days=30))


def event(
    number: int, body: bytes, *, lane: str | None = None, delay: float = LATER, key: str | None = None
) -> Parking:
    """An event to park."""
    message = Message(body, f"0-{number}", None, NOW, receive_count=0, ordering_key=key)
    return Parking(message=message, lane=lane, position=number, delay=delay)


async def forget(
    parked: ParkedEvents, inbox: Inbox, route: Route | None, user_id: str = "u1", *, dry_run: bool = False
) -> ParkedForgotten:
    return await forget_parked(parked, inbox, route, Ownership(Member(user_id)), dry_run=dry_run)


async def left(parked: ParkedEvents) -> Sequence[str]:
    """The ids of what is parked."""
    return [kept.message.message_id async for page in parked.pages(rows=2) for kept in page]


async def test_only_the_members_go(parked: ParkedEvents, inbox: Inbox, route: Route) -> None:
    """Also those that no secret opens any more; what is noted of their attempts goes along, others' stays."""
    events = [
        event(1, signed("u1", "e1")),
        event(2, signed("u2", "e2")),
        event(3, b'{"body": {"user_id": "u1"}}'),
        event(4, b'{"user_id": "u1", "half'),
        event(5, b"{}", key="u1"),
        event(6, b'{"user_id": "u12"}'),
    ]
    await parked.park(events)
    keys = [event_key("", "thrive", name) for name in ("e1", "e2")]
    await inbox.record_failures(keys)
    assert await forget(parked, inbox, route, dry_run=True) == ParkedForgotten(erased=4)
    assert len(await left(parked)) == 6
    assert await forget(parked, inbox, route) == ParkedForgotten(erased=4)
    assert await left(parked) == ["0-2", "0-6"]
    assert list(await inbox.lookup(keys)) == [keys[1]]
    assert await forget(parked, inbox, route) == ParkedForgotten()


async def test_a_source_that_is_gone_is_searched(parked: ParkedEvents, inbox: Inbox) -> None:
    """Without its settings nobody can verify; the id is looked for in the bytes."""
    await parked.park([event(1, signed("u1", "e1")), event(2, signed("u2", "e2"))])
    assert await forget(parked, inbox, None) == ParkedForgotten(erased=1)
    assert await left(parked) == ["0-2"]


async def test_what_a_worker_holds_is_left_to_it(parked: ParkedEvents, inbox: Inbox, route: Route) -> None:
    """Its handler may be writing this moment; once it is given back, it goes."""
    await parked.park([event(1, signed("u1", "e1"), delay=0.0)])
    (claimed,) = await parked.claim(5)
    assert await forget(parked, inbox, route) == ParkedForgotten(held=1)
    assert await parked.release([claimed], LATER) == []
    assert await forget(parked, inbox, route) == ParkedForgotten(erased=1)


async def test_what_was_claimed_after_it_was_looked_at_stays(parked: ParkedEvents) -> None:
    """Even if it was given back meanwhile: it is looked at again."""
    await parked.park([event(1, signed("u1", "e1"), delay=0.0)])
    seen = [kept.message async for page in parked.pages() for kept in page]
    (claimed,) = await parked.claim(5)
    await parked.release([claimed], 0.0)
    assert await parked.erase(seen) == 0
    assert await left(parked) == ["0-1"]


async def test_an_array_is_erased_only_if_all_of_it_is_theirs(parked: ParkedEvents, inbox: Inbox, route: Route) -> None:
    """A signed message cannot be taken apart, and others' events must not be lost."""
    one, two = signed("u1", "e1"), signed("u2", "e2")
    await parked.park([event(1, b"[" + one + b"," + two + b"]"), event(2, b"[" + one + b"," + one + b"]")])
    assert await forget(parked, inbox, route) == ParkedForgotten(erased=1, shared=1)
    assert await left(parked) == ["0-1"]


async def test_the_next_of_the_lane_advances(parked: ParkedEvents, inbox: Inbox, route: Route) -> None:
    """Those behind an erased event are not held up for ever."""
    lane = [event(number, signed(user, f"e{number}"), lane="a", delay=0.0) for number, user in enumerate(["u1", "u2"])]
    await parked.park(lane)
    assert await forget(parked, inbox, route) == ParkedForgotten(erased=1)
    assert [message.message_id for message in await parked.claim(5)] == ["0-1"]


async def test_another_sources_events_are_not_touched(database: Database, inbox: Inbox, route: Route) -> None:
    """Each source is looked through on its own, with its own secrets."""
    other = ParkedEvents(database, "other", owner="worker")
    await other.park([event(1, signed("u1", "e1"))])
    hub = ParkedEvents(database, "hub", owner="worker")
    assert await forget(hub, inbox, route) == ParkedForgotten()
    assert await left(other) == ["0-1"]
    assert await forget(other, inbox, replace(route, source="other")) == ParkedForgotten(erased=1)
