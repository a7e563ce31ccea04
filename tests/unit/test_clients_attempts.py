"""What is logged of a request that is made again, and what is left of stamina's own lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from consumer.clients.http import Http, HttpOptions
from consumer.clients.thrive_errors import read_error
from consumer.outcomes import Unavailable
from tests.servers.scripted import answering, scripted

SECRET = "s3cr3t-member-4711"


@pytest.fixture(autouse=True)
def _as_by_default() -> Iterator[None]:
    """No waits, stamina's own hooks, structlog as it comes; afterwards as well."""
    structlog.reset_defaults()
    stamina.instrumentation.set_on_retry_hooks(None)
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
    stamina.instrumentation.set_on_retry_hooks(None)
    structlog.reset_defaults()


async def fail(**options: int) -> None:
    """A GET that is answered 503 until it is given up."""
    async with scripted(answering(web.Response(status=503, headers={"retry-after": "2"}))) as server:
        http = Http(server.url, options=HttpOptions(**options), errors=read_error)
        with pytest.raises(Unavailable):
            await http.request("GET", "/v1/{user_id}", path={"user_id": SECRET})
        await http.close()


async def retried() -> None:
    """Somebody else's use of stamina, which needs a second attempt."""
    async for attempt in stamina.retry_context(on=KeyError):
        with attempt:
            if attempt.num == 1:
                raise KeyError


async def test_each_repeat_is_a_line_with_call_cause_and_wait() -> None:
    """Two repeats of three attempts, two lines at info level; the last failure is the caller's to tell."""
    with capture_logs() as lines:
        await fail(attempts=3)
    line = {"event": "request_repeated", "call": "GET /v1/{user_id}", "why": "HTTP 503", "wait": 2, "log_level": "info"}
    assert lines == [line, line]


async def test_others_who_use_stamina_have_its_lines_as_before() -> None:
    """Before and after requests of ours were repeated."""
    with capture_logs() as lines:
        await retried()
        await fail(attempts=2)
        await retried()
    theirs, ours = "stamina.retry_scheduled", "request_repeated"
    assert [line["event"] for line in lines] == [theirs, ours, theirs]


async def test_hooks_of_the_programs_own_still_hear_of_every_repeat() -> None:
    """Only stamina's two ways of logging are kept from our repeats."""
    heard: list[str] = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: heard.append(str(details.caused_by))])
    await fail(attempts=2)
    assert heard == ["GET /v1/{user_id}: HTTP 503"]


async def test_without_logging_set_up_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that uses a client as a library finds nothing of it in its output."""
    await fail(attempts=2)
    assert capsys.readouterr() == ("", "")
