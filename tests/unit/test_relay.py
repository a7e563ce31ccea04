"""The relay over HTTP: what is accepted is on the queue, byte by byte, and everything else is answered."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer import SahhaSignature
from consumer.errors import SettingsError, SourceRefused, SourceUnavailable
from consumer.relay import Relay
from consumer.relay import http as relay_http
from consumer.relay import server as relay_module
from tests.conformance.rig import eventually
from tests.relay_rig import (
    SCORE,
    SECRET,
    MoodyQueue,
    answer,
    body_of,
    neutral,
    relaying,
    request,
    settings,
    webhook,
)

GOOD = {"X_Signature": "ab", "X_External_Id": "u1", "X_Event_Type": SCORE}


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for senders that are not there."""
    monkeypatch.setattr(relay_module, "_LAST_WORDS", 0.02)
    monkeypatch.setattr(relay_http, "_LINGER", 0.1)


# What is kept


@pytest.mark.parametrize(
    "raw",
    [body_of(7), b' {"externalId" : "u7",\r\n "score": 1.0}\n', b"\x00\xff not JSON at all", b"x" * 200_000],
    ids=["score", "white space", "no text", "large"],
)
async def test_a_webhook_arrives_byte_by_byte(tmp_path: Path, raw: bytes) -> None:
    """Its exact body and its three headers, whatever the letter case of their names, are in the neutral envelope."""
    signature = SahhaSignature(secrets=[SECRET])
    signed = signature.sign(raw, external_id="u7", event_type="NewType")
    headers = {name.upper().replace("-", "_"): value for name, value in signed.items()}
    async with relaying(tmp_path) as running:
        status, _, text = await running.ask(request(raw, start="POST /any/path?x=1 HTTP/1.1", **headers))
        assert (status, text) == (200, "")
        (message,) = await running.messages(1)
    found = neutral(message)
    assert (found.provider, found.body) == ("sahha", raw)
    assert found.headers == {name.lower(): value for name, value in signed.items()}
    assert abs((found.received_at - message.accepted_at).total_seconds()) < 5


async def test_what_was_relayed_opens(tmp_path: Path) -> None:
    """Body and headers off the queue prove who sent them, as those of the request did."""
    async with relaying(tmp_path) as running:
        assert await running.post(3) == 200
        (message,) = await running.messages(1)
    found = neutral(message)
    opened = SahhaSignature(secrets=[SECRET]).open(found.body, found.headers, accepted_at=message.accepted_at)
    assert opened.body == body_of(3)


async def test_a_body_in_chunks(tmp_path: Path) -> None:
    """Is put together; a request that waits for 100 Continue gets it."""
    head = request(b"", **GOOD, Content_Length="", Transfer_Encoding="chunked", Expect="100-continue")
    async with relaying(tmp_path) as running:
        reader, writer = await running.connect()
        writer.write(head)
        assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'3\r\n{"a\r\n')
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(b'4\r\n":1}\r\n0\r\n\r\n')
        assert (await answer(reader))[0] == 200
        (message,) = await running.messages(1)
    assert neutral(message).body == b'{"a":1}'


async def test_ids_that_are_no_ascii(tmp_path: Path) -> None:
    """UTF-8 as it is, other bytes as Latin-1."""
    async with relaying(tmp_path) as running:
        for written in ("J\u00f6rg".encode().decode("latin-1"), "J\u00f6rg"):
            assert (await running.ask(request(b"{}", **{**GOOD, "X_External_Id": written})))[0] == 200
        messages = await running.messages(2)
    assert {neutral(message).headers["x-external-id"] for message in messages} == {"J\u00f6rg"}


async def test_a_profiles_webhooks_do_not_wait_for_one_another(tmp_path: Path) -> None:
    """Sahha promises no order, so no lane holds back what is behind an event that is retried."""
    async with relaying(tmp_path) as running:
        for score in ("1", "2"):
            assert await running.post(1, X_Event_Type=score) == 200
        assert [one.ordering_key for one in await running.messages(2)] == [None, None]


# What is refused


@pytest.mark.parametrize(
    ("raw", "status", "text"),
    [
        (webhook(X_Signature=""), 400, "X-Signature header is missing."),
        (webhook(X_External_Id=""), 400, "X-External-Id header is missing."),
        (webhook(X_Event_Type=""), 400, "X-Event-Type header is missing."),
        (webhook().replace(b"X-External-Id: u0", b"X-External-Id:  "), 400, "X-External-Id header is missing."),
        (webhook(x_signature="cd"), 400, "X-Signature header occurs twice."),
        (webhook(X_External_Id="x" * 5000, X_Event_Type="y" * 5000), 431, "The headers are too long."),
        (request(b"", **GOOD, Content_Length=""), 411, "Content-Length is missing."),
        (request(b"", **GOOD), 400, "The body is empty."),
        (request(b"{}", **GOOD, Content_Encoding="gzip"), 415, "Content-Encoding must be identity."),
        (
            request(b"2\r\n{}\r\n0\r\n\r\n", **GOOD, Content_Length="", Transfer_Encoding="gzip, chunked"),
            415,
            "Transfer-Encoding must be chunked.",
        ),
        (request(b"{}", **GOOD, Content_Length="300000"), 413, "The body is too large."),
        (request(b"", start="GET / HTTP/1.1", Content_Length=""), 405, "Webhooks are POSTed."),
        (webhook().replace(b"/hook", b"/readyz"), 404, "Not here: see CONSUMER_HEALTH__PORT."),
    ],
)
async def test_what_is_no_webhook(tmp_path: Path, raw: bytes, status: int, text: str) -> None:
    """Is answered with the reason, and is not on the queue."""
    async with relaying(tmp_path) as running:
        assert (await running.ask(raw))[::2] == (status, text)
        assert await running.count() == 0


async def test_the_limit_holds_while_a_body_arrives(tmp_path: Path) -> None:
    """In chunks nobody says how long a body is; reading ends at the limit, whatever else comes."""
    head = request(b"", **GOOD, Content_Length="", Transfer_Encoding="chunked")
    async with relaying(tmp_path, RELAY__MAX_BODY_BYTES="1000") as running:
        assert (await running.ask(webhook(Content_Length="1001")))[0] == 413
        assert (await running.ask(head + b"200\r\n" + b"x" * 512 + b"\r\n200\r\n" + b"x" * 512 + b"\r\n"))[0] == 413
        assert (await running.ask(head + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"))[0] == 413
        assert (await running.ask(head + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"))[0] == 200
        assert await running.count() == 1


async def test_a_length_that_is_not_true(tmp_path: Path) -> None:
    """A body that ends before its length is no webhook, nor is one that goes on behind it."""
    async with relaying(tmp_path) as running:
        _, writer = await running.connect()
        writer.write(request(b"{}", **GOOD, Content_Length="10"))
        await writer.drain()
        writer.close()
        await eventually(lambda: running.relay.metrics.total(400) == 1)
        assert await running.count() == 0
        reader, writer = await running.connect()
        writer.write(request(b"{}{}", **GOOD, Content_Length="2"))
        assert (await answer(reader))[0] == 400
        assert await running.count() == 0


async def test_a_broken_chunk(tmp_path: Path) -> None:
    """Is answered 400, or the connection is closed; nothing is on the queue."""
    head = request(b"", **GOOD, Content_Length="", Transfer_Encoding="chunked")
    async with relaying(tmp_path) as running:
        assert (await running.ask(head + b"2\r\n{}\r\nzz\r\n"))[0] == 400
        assert await running.count() == 0


async def test_verifying_at_the_edge(tmp_path: Path) -> None:
    """If it is asked for, a bad signature is 401, headers that do not fit the body are 400, and a new type is kept."""
    new = SahhaSignature(secrets=[SECRET]).sign(b'{"n":1}', external_id="u1", event_type="NewType")
    async with relaying(tmp_path, RELAY__VERIFY="true") as running:
        assert await running.post(1) == 200
        assert (await running.ask(webhook(1, X_Signature="0" * 64)))[::2] == (401, "X-Signature header is wrong.")
        assert await running.post(1, X_Signature="nonsense") == 401
        assert await running.post(1, X_External_Id="u2") == 400
        assert await running.post(1, X_Event_Type="BiomarkerCreatedIntegrationEvent") == 400
        headers = {name.replace("-", "_"): value for name, value in new.items()}
        assert (await running.ask(request(b'{"n":1}', **headers)))[0] == 200
        assert await running.count() == 2


# The queue in trouble


@pytest.mark.parametrize(
    "error", [SourceUnavailable("gone"), SourceRefused("denied"), RuntimeError("a secret"), TimeoutError()]
)
async def test_the_queue_fails(tmp_path: Path, error: Exception) -> None:
    """503 with Retry-After and not ready; with the queue back, the next webhook makes it ready again."""
    async with relaying(tmp_path) as running:
        running.queue.send_error = error
        with capture_logs() as logs:
            status, headers, _ = await running.ask(webhook())
        assert (status, headers["retry-after"]) == (503, "5")
        assert running.relay.not_ready()
        assert "a secret" not in str(logs) + str(running.relay.not_ready())
        running.queue.send_error = None
        assert await running.post() == 200
        assert running.relay.not_ready() is None


async def test_ready_again_without_webhooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ingress sends nothing to what is not ready, so the relay looks itself whether the queue answers."""
    monkeypatch.setattr(relay_module, "_PROBE_EVERY", 0.02)
    async with relaying(tmp_path) as running:
        running.queue.send_error = SourceUnavailable("gone")
        assert await running.post() == 503
        await eventually(lambda: running.relay.not_ready() is None)


async def test_a_slow_queue(tmp_path: Path) -> None:
    """503 after relay.timeout, for those being sent and for those behind them; they may be there all the same."""
    async with relaying(tmp_path, RELAY__TIMEOUT="0.15") as running:
        running.queue.gate.clear()
        first = asyncio.create_task(running.post(1))
        await eventually(lambda: running.queue.sends)
        assert await asyncio.gather(first, running.post(2), running.post(3)) == [503, 503, 503]
        running.queue.gate.set()
        assert await running.post(4) == 200


async def test_the_queue_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens and answers 503, and goes on by itself once the queue is there."""
    monkeypatch.setattr(relay_module, "_FIRST_PAUSE", 0.05)
    async with relaying(tmp_path, open_error=SourceUnavailable("source scores: no answer")) as running:
        assert await running.post() == 503
        assert running.relay.not_ready() == "source scores: no answer"
        assert running.relay.not_started() == "starting: source scores: no answer"
        assert running.relay.not_live() is None
        running.queue.open_error = None
        await eventually(lambda: running.relay.not_ready() is None)
        assert running.relay.not_started() is None
        assert await running.post() == 200
        running.queue.send_error = SourceUnavailable("gone")
        assert await running.post() == 503
        assert running.relay.not_started() is None


async def test_a_send_that_does_not_end(tmp_path: Path) -> None:
    """A queue that does not even let go of a send when that is cancelled turns liveness red; a failing one does not."""
    async with relaying(tmp_path, RELAY__TIMEOUT="0.05") as running:
        running.queue.send_error = SourceUnavailable("gone")
        assert await running.post() == 503
        now, let_go = time.monotonic(), asyncio.Event()
        assert [running.relay.not_live(now + 10 * look) for look in range(20)] == [None] * 20

        async def holds_on(_: object) -> None:
            while not let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await let_go.wait()

        running.queue.send = holds_on
        assert await running.post() == 503
        looks = [running.relay.not_live(now + 200 + 10 * look) for look in range(10)]
        assert looks[:6] == [None] * 6
        assert (looks[9] or "").startswith("source scores: a send does not end")
        let_go.set()
        await eventually(lambda: running.relay.not_live(now + 300) is None)


@pytest.mark.parametrize("error", [SourceRefused("denied"), SettingsError("wrong")])
async def test_the_queue_will_not_have_it(tmp_path: Path, error: Exception) -> None:
    """What only a person can change ends it at the start."""
    with pytest.raises(type(error)):
        async with relaying(tmp_path, open_error=error):
            pass


async def test_a_body_limit_that_does_not_fit(tmp_path: Path) -> None:
    """Is refused at the start, with the largest that fits."""
    with pytest.raises(
        SettingsError, match=r"CONSUMER_RELAY__MAX_BODY_BYTES: expected 780096 or less, since .*1048576"
    ):
        async with relaying(tmp_path, RELAY__MAX_BODY_BYTES="1MiB"):
            pass


def test_a_time_out_longer_than_sahha_waits(tmp_path: Path) -> None:
    """Is refused."""
    with pytest.raises(SettingsError, match=r"RELAY__TIMEOUT.*15s or less"):
        settings(tmp_path, RELAY__TIMEOUT="30s")


# Many at once


async def test_what_arrives_during_a_send_goes_together(tmp_path: Path) -> None:
    """The first goes at once and alone; those behind it, in one transaction."""
    async with relaying(tmp_path) as running:
        running.queue.gate.clear()
        first = asyncio.create_task(running.post(0))
        await eventually(lambda: running.queue.sends)
        rest = [asyncio.create_task(running.post(number)) for number in range(1, 31)]
        await eventually(lambda: "in_hand 31.0" in running.relay.metrics.render().decode())
        await asyncio.sleep(0.05)
        running.queue.gate.set()
        assert set(await asyncio.gather(first, *rest)) == {200}
        assert running.queue.sends == [1, 30]
        assert {neutral(one).body for one in await running.messages(31)} == {body_of(n) for n in range(31)}


async def test_one_failed_send_fails_all_of_it_and_no_other(tmp_path: Path) -> None:
    """Each of its webhooks is answered 503; those of the next send, 200."""
    async with relaying(tmp_path) as running:
        running.queue.gate.clear()
        running.queue.send_error = SourceUnavailable("gone")
        lost = [asyncio.create_task(running.post(number)) for number in range(3)]
        await eventually(lambda: "in_hand 3.0" in running.relay.metrics.render().decode())
        await asyncio.sleep(0.05)
        running.queue.gate.set()
        assert await asyncio.gather(*lost) == [503, 503, 503]
        running.queue.send_error = None
        assert await running.post(4) == 200
        assert await running.count() == 1


async def test_a_message_that_the_queue_refuses_fails_alone(tmp_path: Path) -> None:
    """Those that were sent together with it are accepted, and the relay stays ready."""
    async with relaying(tmp_path) as running:
        running.queue.refused = b"x" * 10
        running.queue.gate.clear()
        first = asyncio.create_task(running.post(0))
        await eventually(lambda: running.queue.sends)
        rest = [
            asyncio.create_task(running.post(1)),
            asyncio.create_task(running.ask(request(b"x" * 10, **GOOD))),
            asyncio.create_task(running.post(2)),
        ]
        await eventually(lambda: "in_hand 4.0" in running.relay.metrics.render().decode())
        await asyncio.sleep(0.05)
        running.queue.gate.set()
        assert await first == 200
        good, bad, other = await asyncio.gather(*rest)
        assert (good, bad[0], other) == (200, 503, 200)
        assert running.relay.not_ready() is None
        assert await running.count() == 3


async def test_too_many_at_once(tmp_path: Path) -> None:
    """Beyond max_concurrency 503 at once, and beyond max_in_flight_bytes; what is in hand is not touched by it."""
    sizes = {"SOURCES__SCORES__MAX_MESSAGE_BYTES": "20000", "SOURCES__SCORES__MAX_IN_FLIGHT_BYTES": "20000"}
    async with relaying(tmp_path, RELAY__MAX_CONCURRENCY="3", **sizes) as running:
        running.queue.gate.clear()
        large = asyncio.create_task(running.ask(request(b"x" * 8000, **GOOD)))
        await eventually(lambda: running.queue.sends)
        other = asyncio.create_task(running.ask(request(b"x" * 8000, **GOOD)))
        await eventually(lambda: "in_hand 2.0" in running.relay.metrics.render().decode())
        assert (await running.ask(request(b"x" * 8000, **GOOD)))[::2] == (503, "Busy.")
        small = asyncio.create_task(running.post(1))
        await eventually(lambda: "in_hand 3.0" in running.relay.metrics.render().decode())
        assert (await running.ask(webhook(2)))[::2] == (503, "Busy.")
        running.queue.gate.set()
        assert ((await large)[0], (await other)[0], await small) == (200, 200, 200)


# Connections


async def test_a_connection_is_used_again(tmp_path: Path) -> None:
    """Also after a refusal, and for requests that are sent before the one ahead is answered."""
    async with relaying(tmp_path) as running:
        reader, writer = await running.connect()
        for raw, status in ((webhook(1), 200), (webhook(2, X_Signature=""), 400), (webhook(3), 200)):
            writer.write(raw)
            assert (await answer(reader))[0] == status
        writer.write(webhook(4) + webhook(5))
        assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
        assert await running.count() == 4


async def test_more_headers_than_anybody_needs(tmp_path: Path) -> None:
    """Are no webhook; as many as ingresses may add are."""
    async with relaying(tmp_path) as running:
        for count, status in ((50, 200), (70, 400)):
            assert await running.post(1, **{f"X_Added_{number}": "x" for number in range(count)}) == status


async def _closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.read()


async def test_headers_that_never_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connection is closed after a while, however busily they trickle; an idle one is kept."""
    monkeypatch.setattr(relay_http, "_HEAD_WITHIN", 0.1)
    monkeypatch.setattr(relay_http, "_SWEEP", 0.05)
    async with relaying(tmp_path) as running:
        idle, to_idle = await running.connect()
        to_idle.write(webhook(1))
        assert (await answer(idle))[0] == 200
        reader, writer = await running.connect()
        writer.write(b"POST /")
        assert await _closed(reader) == b""
        to_idle.write(webhook(2))
        assert (await answer(idle))[0] == 200


async def test_a_body_that_comes_after_its_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no beginning of other headers: the connection is kept."""
    monkeypatch.setattr(relay_http, "_HEAD_WITHIN", 0.05)
    monkeypatch.setattr(relay_http, "_SWEEP", 0.02)
    async with relaying(tmp_path) as running:
        reader, writer = await running.connect()
        writer.write(request(b"{}", **GOOD, Content_Encoding="gzip")[:-2])
        assert (await answer(reader))[0] == 415
        writer.write(b"{}")
        await asyncio.sleep(0.2)
        writer.write(webhook(1))
        assert (await answer(reader))[0] == 200


async def test_a_body_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is answered 408."""
    monkeypatch.setattr(relay_module, "_BODY_WITHIN", 0.1)
    async with relaying(tmp_path) as running:
        assert (await running.ask(request(b"{", **GOOD, Content_Length="10")))[0] == 408


async def test_more_connections_than_there_may_be(tmp_path: Path) -> None:
    """The one that has done nothing for longest makes room; one with a request in hand never does."""
    async with relaying(tmp_path, RELAY__MAX_CONCURRENCY="1") as running:
        running.queue.gate.clear()
        busy, to_busy = await running.connect()
        to_busy.write(webhook(1))
        await eventually(lambda: running.queue.sends)
        idle = [(await running.connect())[0] for _ in range(15)]
        last, to_last = await running.connect()
        assert await _closed(idle[0]) == b""
        running.queue.gate.set()
        assert (await answer(busy))[0] == 200
        to_last.write(webhook(2))
        assert (await answer(last))[0] == 200


async def test_connections_that_are_all_in_use(tmp_path: Path) -> None:
    """One more is dropped, and a place that becomes free can be had."""
    async with relaying(tmp_path, RELAY__MAX_CONCURRENCY="1") as running:
        writers = []
        for _ in range(16):
            _, writer = await running.connect()
            writer.write(b"POST /")
            writers.append(writer)
        await asyncio.sleep(0.05)
        reader, _ = await running.connect()
        with contextlib.suppress(ConnectionError):
            assert await _closed(reader) == b""
        writers[0].close()
        await asyncio.sleep(0.05)
        assert await running.post() == 200


# The end


async def test_what_is_in_hand_is_answered_at_the_end(tmp_path: Path) -> None:
    """No new connection; what is in hand is put on the queue and answered, what comes on old connections is 503."""
    async with relaying(tmp_path) as running:
        late, to_late = await running.connect()
        to_late.write(webhook(1))
        assert (await answer(late))[0] == 200
        running.queue.gate.clear()
        in_hand = asyncio.create_task(running.ask(webhook(2)))
        await eventually(lambda: len(running.queue.sends) == 2)
        running.stop.set()
        await eventually(lambda: running.relay.not_ready() == "draining")
        to_late.write(webhook(3))
        status, headers, _ = await answer(late)
        assert (status, headers["connection"]) == (503, "close")
        with pytest.raises(ConnectionError):
            await running.connect()
        await asyncio.sleep(0.2)
        running.queue.gate.set()
        status, headers, _ = await in_hand
        assert (status, headers["connection"]) == (200, "close")
        await running.serving
        assert await running.count() == 2


async def test_the_end_while_the_queue_is_being_opened(tmp_path: Path) -> None:
    """Is not kept up by a queue that does not answer."""

    class Mute(MoodyQueue):
        async def open(self) -> None:
            await asyncio.sleep(60)

    chosen = settings(tmp_path)
    queue, stop = Mute(chosen.source("scores")), asyncio.Event()
    serving = asyncio.create_task(Relay(chosen, queue).serve(stop, drain_timeout=5))
    await asyncio.sleep(0.02)
    stop.set()
    async with asyncio.timeout(1):
        await serving


async def test_the_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    """What the queue has not accepted by drain_timeout is answered 503."""
    async with relaying(tmp_path, drain_timeout=0.1) as running:
        running.queue.gate.clear()
        in_hand = asyncio.create_task(running.post())
        await eventually(lambda: running.queue.sends)
        running.stop.set()
        assert await in_hand == 503
        await running.serving


# What is said


async def test_nothing_of_a_request_is_logged(tmp_path: Path) -> None:
    """Neither by us nor by aiohttp, of good requests, refused ones or such as are no HTTP; refusals once a minute."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    private: dict[str, Any] = {**GOOD, "X_External_Id": "private-id"}
    try:
        with capture_logs() as logs:
            async with relaying(tmp_path, RELAY__VERIFY="true") as running:
                for _ in range(3):
                    assert (await running.ask(request(b'{"private": 1}', **private)))[0] == 401
                await running.ask(request(b"private", **{**private, "X_Signature": ""}))
                for malformed in (
                    b"private nonsense\r\n\r\n",
                    b"POST /private HTTP/1.1\r\nX-Signature: private\x01\r\n\r\n",
                    b"POST /" + b"private" * 2000 + b" HTTP/1.1\r\n\r\n",
                ):
                    assert (await running.ask(malformed))[::2] == (400, "Malformed.")
                assert running.relay.metrics.total(400) == 4
    finally:
        logging.getLogger().removeHandler(handler)
    assert "private" not in str(logs)
    assert stream.getvalue() == ""
    assert [line["status"] for line in logs if line["event"] == "webhooks_refused"] == [401]


async def test_metrics(tmp_path: Path) -> None:
    """Requests by status, how long accepted ones took, and how many are in hand."""
    async with relaying(tmp_path) as running:
        await running.post(1)
        await running.post(2, X_Signature="")
        text = running.relay.metrics.render().decode()
    assert 'health_consumer_relay_requests_total{status="200"} 1.0' in text
    assert 'health_consumer_relay_requests_total{status="400"} 1.0' in text
    assert "health_consumer_relay_seconds_count 1.0" in text
    assert "health_consumer_relay_in_hand 0.0" in text
