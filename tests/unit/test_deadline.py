"""Calls end before the handler they are made for does, so that a platform that hangs is not the event's failure."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time

import pytest

from consumer import Context, DispatchTable, Reject, Retry, Unavailable
from consumer.clients.http import HttpOptions
from consumer.clients.thrive import ThriveClient
from consumer.deadline import handler_time, time_left
from consumer.events import LabResultEvent
from consumer.testing import TestConsumer, WillRetry, sample
from tests.servers.scripted import Seen, scripted


def test_time_runs_out_shortly_before_the_limit() -> None:
    """Half a second before, or a tenth of a short limit; outside of a handler there is none, and inner ones end."""
    assert time_left() is None
    with handler_time(30):
        assert 29 < (time_left() or 0) <= 29.5
        with handler_time(1):
            assert 0.5 < (time_left() or 0) <= 0.9
        assert (time_left() or 0) > 29
    with handler_time(0):
        assert time_left() == 0
    assert time_left() is None


async def _silence(_: Seen) -> None:
    await asyncio.sleep(30)


async def test_a_hanging_platform_is_no_failed_attempt() -> None:
    """The client gives up within the handler's own limit, whatever its own: own trouble, and no attempt is counted."""
    table = DispatchTable()
    attempts = []

    @table.on(LabResultEvent, timeout=0.4)
    async def fetch(event: LabResultEvent, context: Context) -> None:
        attempts.append(context.delivery.attempt)
        await context.thrive.fetch(event, fresh=True)

    async with (
        scripted(_silence) as server,
        ThriveClient(base_url=server.url, tenant_key="key", options=HttpOptions(timeout=20)) as thrive,
        TestConsumer(table, thrive=thrive) as consumer,
    ):
        event = sample(LabResultEvent)
        started = time.monotonic()
        for _ in range(2):
            assert isinstance(await consumer.send(event), WillRetry)
        assert time.monotonic() - started < 5
    assert attempts == [1, 1]


@pytest.mark.parametrize("said", [Unavailable(3.0, why="GET /x: HTTP 503"), Retry(2.0), Reject("a reason")])
def test_what_handlers_say_can_be_copied(said: Exception) -> None:
    """A library that passes exceptions on, between processes perhaps, loses nothing of them."""
    for other in (copy.copy(said), pickle.loads(pickle.dumps(said))):
        assert type(other) is type(said)
        assert vars(other) == vars(said)
        assert str(other) == str(said)
    assert "a reason" not in str(said)
