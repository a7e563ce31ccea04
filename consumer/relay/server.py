"""The relay: Sahha's webhooks in, messages on a queue out, and a 200 only for what the queue has accepted.

Sahha waits 30 seconds for an answer (docs.sahha.ai, connect/webhooks), and what it does with a webhook that was not
accepted is not documented. So nothing is refused that might be an event unless a setting says so, and whatever is in
hand at the end is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiohttp import web

from consumer.errors import BadSignature, SettingsError, SourceRefused, SourceUnavailable, VerificationError
from consumer.failures import describe
from consumer.ops.liveness import Progress
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import open_spans
from consumer.relay.http import HttpServer, answer, read_body
from consumer.relay.limits import body_limit, connection_limit
from consumer.relay.metrics import RelayMetrics
from consumer.relay.sending import END_WITHIN, Sender
from consumer.relay.webhook import Refused, content_length, read_headers, read_trace, to_message
from consumer.settings import Settings, SourceSettings
from consumer.signatures import SahhaSignature
from consumer.sources.base import Outgoing, SendPreparing, Source

__all__ = ["Relay", "relay_source"]

_log = structlog.get_logger("relay")

_NOT_WEBHOOKS: Final = frozenset({"/startupz", "/livez", "/readyz", "/metrics"})
_BODY_WITHIN: Final = 10.0
_RETRY_AFTER: Final = "5"
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 15.0
_PROBE_EVERY: Final = 5.0
_SAY_TROUBLE_EVERY: Final = 10.0
_SAY_REFUSALS_EVERY: Final = 60.0
_SEND_GRACE: Final = 60.0
"""Seconds that a send may go on after its time-out."""
_LAST_WORDS: Final = 0.25
"""Seconds for requests that were on their way when the last one in hand was answered."""


def relay_source(settings: Settings) -> SourceSettings:
    """The settings of the source whose queue is filled: `relay.source`, or the only one of Sahha's.

    Raises SettingsError when there is none, more than one, or it is another provider's.
    """
    name = settings.relay.source
    if name is None:
        names = sorted(name for name, source in settings.sources.items() if source.provider == "sahha")
        if not names:
            raise SettingsError(
                "CONSUMER_RELAY__SOURCE: no source is Sahha's: set CONSUMER_SOURCES__<NAME>__PROVIDER=sahha"
            )
        if len(names) > 1:
            raise SettingsError(f"CONSUMER_RELAY__SOURCE: expected one of {', '.join(names)}")
        name = names[0]
    chosen = settings.source(name)
    if chosen.provider != "sahha":
        raise SettingsError(
            f"CONSUMER_SOURCES__{chosen.name.upper()}__PROVIDER: expected sahha, whose webhooks the relay receives, "
            f"and not {chosen.provider}"
        )
    return chosen


class Relay:
    """Receives webhooks and puts them on the queue of one source.

    `signature` is what webhooks are verified by, None for leaving that to the worker; it may be replaced at any time.
    `open_files` is how many files the process may have open.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        *,
        signature: SahhaSignature | None = None,
        open_files: int = 1024,
    ) -> None:
        self.signature = signature
        self.port: int | None = None
        """Where it listens, once it does."""
        self.max_body_bytes = 0
        """The largest body it takes, known once the queue is open."""
        self._settings = settings.relay
        self._chosen = relay_source(settings)
        self._source = source
        self._most_bytes = self._chosen.max_in_flight_bytes
        # A FIFO queue must have a key. Elsewhere a profile's events would wait for one another, and Sahha promises no
        # order.
        self._ordered = source.kind == "sqs"
        self._opened = False
        self._sender: Sender | None = None
        self._progress = Progress()
        self._progress.watch(
            f"source {source.name}: a send does not end",
            lambda: None if self._sender is None else self._sender.sends.oldest,
            limit=self._settings.timeout + _SEND_GRACE,
        )
        self._in_hand = 0
        self._bytes = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._trouble: str | None = "the queue has not answered yet"
        self._troubled = asyncio.Event()
        self._said_at = -math.inf
        self._said = False
        self._refusals = (-math.inf, 0)
        self.metrics = RelayMetrics(lambda: self._in_hand)
        self._http = HttpServer(
            self._answer,
            host=self._settings.host,
            port=self._settings.port,
            most=connection_limit(self._settings.max_concurrency, open_files),
            on_error=self.metrics.answered,
        )

    # Its life

    async def open(self) -> bool:
        """Open the queue; False if it does not answer for now, and may when this is called again.

        Raises SettingsError and SourceRefused for what will not work until somebody changes something.
        """
        source = self._source
        try:
            if not self._opened:
                await source.open()
                self._opened = True
            if isinstance(source, SendPreparing):
                await source.prepare_sending()
        except SourceUnavailable as error:
            self._say_trouble(str(error))
            return False
        self.max_body_bytes = body_limit(
            self._settings.max_body_bytes,
            largest_message=source.capabilities.largest_message,
            max_message_bytes=self._chosen.max_message_bytes,
            source=source.name,
        )
        spans = open_spans([TracedQueue.of(self._chosen)])
        self._sender = Sender(source, timeout=self._settings.timeout, on_trouble=self._sent, spans=spans)
        self._say_back()
        return True

    async def serve(self, stop: asyncio.Event, *, drain_timeout: float) -> None:
        """Listen until `stop` is set, then answer what is in hand, for `drain_timeout` seconds at most.

        Raises SettingsError if the address cannot be listened on, and what `open` raises.
        """
        stopped = asyncio.create_task(stop.wait())
        try:
            opened = await self._open_unless(stopped)
            if opened is None:
                return
            self.port = await self._http.start()
            _log.info("listening", host=self._settings.host, port=self.port, source=self._source.name, queue=opened)
            try:
                await self._work(stopped, opened=opened)
            finally:
                await self._drain(drain_timeout)
        finally:
            stopped.cancel()

    async def _open_unless(self, stopped: asyncio.Task[Any]) -> bool | None:
        """Open the queue, which may take long over its answer; None if this was stopped meanwhile."""
        opening = asyncio.create_task(self.open())
        try:
            await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return opening.result() if opening.done() else None
        finally:
            if opening.cancel():
                await asyncio.wait({opening}, timeout=END_WITHIN)

    async def _work(self, stopped: asyncio.Task[Any], *, opened: bool) -> None:
        """What goes on beside the webhooks until this is stopped; raises what it raises."""
        background = [asyncio.create_task(self._probe())]
        if not opened:
            background.append(asyncio.create_task(self._open_later()))
        try:
            await asyncio.wait({stopped, *background}, return_when=asyncio.FIRST_COMPLETED)
            while not stopped.done():
                background = [task for task in background if not _ended_well(task)]
                await asyncio.wait({stopped, *background}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in background:
                task.cancel()
            await asyncio.wait(background)

    async def _drain(self, within: float) -> None:
        self._draining = True
        await self._http.refuse_connections()
        _log.info("draining", in_hand=self._in_hand)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                if self._in_hand:
                    await self._empty.wait()
        await asyncio.sleep(_LAST_WORDS)
        if self._sender is not None:
            await self._sender.close()  # whoever still waits is answered 503
        await self._http.close()

    async def _open_later(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            if await self.open():
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    # Its health

    def not_started(self) -> str | None:
        """What it waits for before it can take a first webhook, or None."""
        return f"starting: {self._trouble}" if self._sender is None else None

    def not_live(self, now: float | None = None) -> str | None:
        """Why the process should be restarted, or None: a send that goes on after its time-out."""
        return self._progress.standstill(time.monotonic() if now is None else now)

    def not_ready(self) -> str | None:
        """Why no webhook should be sent here now, or None."""
        return "draining" if self._draining else self._trouble

    def _sent(self, trouble: str | None) -> None:
        if trouble is not None:
            self._say_trouble(trouble)
        elif self._trouble is not None:
            self._say_back()

    def _say_trouble(self, trouble: str) -> None:
        self._trouble = trouble
        self._troubled.set()
        now = time.monotonic()
        if now - self._said_at >= _SAY_TROUBLE_EVERY:
            self._said_at, self._said = now, True
            _log.warning("queue_trouble", detail=trouble)

    def _say_back(self) -> None:
        self._trouble = None
        self._troubled.clear()
        if self._said:
            self._said = False
            _log.info("queue_back", source=self._source.name)

    async def _probe(self) -> None:
        """While sends fail, look whether the queue answers: no ingress sends a webhook to see whether it does."""
        while True:
            await self._troubled.wait()
            await asyncio.sleep(_PROBE_EVERY)
            if self._sender is None or self._trouble is None:
                continue
            try:
                async with asyncio.timeout(self._settings.timeout):
                    await self._source.depth()
            except (SourceUnavailable, TimeoutError):
                continue
            except SourceRefused:
                pass  # who may send need not be allowed to count
            except Exception as error:  # noqa: BLE001 - a source of the user's own must not end this
                _log.warning("queue_probe_failed", error=describe(error))
            # Whether it takes messages again, the next webhook will show.
            self._say_back()

    # Webhooks

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._respond(request)
        except Refused as refused:
            self._note_refusal(refused)
            response = answer(refused.status, refused.text)
        except Exception as error:  # noqa: BLE001 - whatever it is, it was not enqueued, and a 500 may not be repeated
            _log.error("webhook_failed", error=describe(error))
            response = self._unavailable("This failed.")
        self.metrics.answered(response.status)
        if self._draining:
            response.force_close()
        return response

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST":
            return answer(405, "Webhooks are POSTed.", Allow="POST")
        if request.raw_path.partition("?")[0] in _NOT_WEBHOOKS:
            return answer(404, "Not here: see CONSUMER_HEALTH__PORT.")
        if self._draining:
            return self._unavailable("Stopping.")
        if self._sender is None:
            return self._unavailable("The queue is not there.")
        if self._in_hand >= self._settings.max_concurrency:
            return self._unavailable("Busy.")
        self._in_hand += 1
        try:
            return await self._take(request, self._sender)
        finally:
            self._in_hand -= 1
            if self._draining and not self._in_hand:
                self._empty.set()

    async def _take(self, request: web.BaseRequest, sender: Sender) -> web.Response:
        begun = time.monotonic()
        headers = read_headers(request.headers)
        length = content_length(request.headers, self.max_body_bytes)
        size = self.max_body_bytes if length is None else length
        if self._bytes + size > self._most_bytes:
            return self._unavailable("Busy.")
        self._bytes += size
        try:
            accepted = await sender.put(await self._message(request, headers, length))
        finally:
            self._bytes -= size
        if not accepted:
            return self._unavailable("The queue did not accept it.")
        self.metrics.took(time.monotonic() - begun)
        return answer(200)

    async def _message(self, request: web.BaseRequest, headers: Mapping[str, str], length: int | None) -> Outgoing:
        """Read the body and wrap it; apart, so that nothing keeps the body itself while its message waits."""
        body = await read_body(request, length, self.max_body_bytes, _BODY_WITHIN)
        self._verify(body, headers)
        caller = read_trace(request.headers)
        return to_message(body, headers, datetime.now(UTC), ordered=self._ordered, traceparent=caller)

    def _verify(self, body: bytes, headers: Mapping[str, str]) -> None:
        if self.signature is None:
            return
        try:
            self.signature.open_any_age(body, headers)
        except BadSignature:
            raise Refused(401, "X-Signature header is wrong.") from None
        except VerificationError as error:
            raise Refused(400, f"Not a webhook of Sahha's: {error}.") from None

    def _unavailable(self, text: str) -> web.Response:
        return answer(503, text, Retry_After=_RETRY_AFTER)

    def _note_refusal(self, refused: Refused) -> None:
        since, count = self._refusals
        now = time.monotonic()
        if now - since < _SAY_REFUSALS_EVERY:
            self._refusals = (since, count + 1)
            return
        self._refusals = (now, 0)
        _log.warning("webhooks_refused", status=refused.status, reason=refused.text, others=count)


def _ended_well(task: asyncio.Task[None]) -> bool:
    """Whether a task is done; raises what it raised."""
    if task.done():
        task.result()
        return True
    return False
