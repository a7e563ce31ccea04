"""Spans: what they are called, what they say, how they hang together, and what they never hold."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanContext, SpanKind, StatusCode, get_current_span
from sqlalchemy import text
from sqlalchemy.event import listen

from consumer import Context, DispatchTable, Reject, Retry, ThriveSignature, Unavailable
from consumer.clients.http import Http, HttpOptions, api_error
from consumer.database import Database
from consumer.deliveries import Held, Item
from consumer.errors import ApiError, SourceUnavailable
from consumer.events import LabResultEvent
from consumer.events.reading import ThriveReader
from consumer.guard import Guard
from consumer.inbox import Inbox
from consumer.opening import open_message
from consumer.ops.logs import configure_logging
from consumer.ops.metrics import Metrics
from consumer.ops.trace_context import creation_context
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import NO_SPANS, Spans, open_spans
from consumer.outcomes import Verdict
from consumer.permits import Permits
from consumer.pipeline import Pipeline
from consumer.receiving import Receiver
from consumer.route import Route
from consumer.running import Runner
from consumer.settings_loading import load_settings
from consumer.settlement import Settlement
from consumer.sources.base import Capabilities, Message, Outgoing, SettleFailure
from tests.servers.scripted import answering, scripted

CANARY = "canary-7.31"
SIGNATURE = ThriveSignature(secrets=["a secret"])
QUEUE = TracedQueue("labs", "aws_sqs", "lab-results", host="sqs.eu-west-1.amazonaws.com")
PRODUCER = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"


class Collected:
    """A provider of the real SDK, and the spans that ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans: Spans = open_spans([QUEUE], provider=self.provider)
        self.tracer = self.provider.get_tracer("a partner's")

    def all(self, name: str | None = None) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if name is None or span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.all(name)
        return found

    def text(self) -> str:
        return "".join(span.to_json() for span in self.all())


@pytest.fixture
def collected() -> Iterator[Collected]:
    made = Collected()
    yield made
    made.provider.shutdown()


def said(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def contexts(span: ReadableSpan) -> list[SpanContext]:
    return [link.context for link in span.links]


def context_of(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context


@dataclass
class Bench:
    """A pipeline whose events are traced."""

    pipeline: Pipeline
    route: Route

    def item(self, event_id: str, headers: Mapping[str, str] | None = None) -> Item:
        content = {"event_id": event_id, "event_type": "lab.result.ready", "user_id": CANARY, "note": CANARY}
        raw = SIGNATURE.sign(json.dumps(content))
        message = Message(raw, f"m-{event_id}", None, datetime.now(UTC), headers=headers or {})
        (item,) = open_message(Held(message, received_at=time.monotonic()), self.route)
        return item

    async def together(self, *items: Item) -> list[Verdict]:
        futures = [asyncio.get_running_loop().create_future() for _ in items]
        for item, future in zip(items, futures, strict=True):
            self.pipeline.submit(item, lambda _, verdict, future=future: future.set_result(verdict))
        return await asyncio.wait_for(asyncio.gather(*futures), 20)


Make = Callable[[DispatchTable, Spans], AbstractAsyncContextManager[Bench]]


@pytest.fixture
def bench(sqlite_database: Database) -> Make:
    @asynccontextmanager
    async def make(table: DispatchTable, spans: Spans) -> AsyncIterator[Bench]:
        async with sqlite_database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE effects (name TEXT NOT NULL)"))
        runner = Runner(meter=Metrics(), spans=spans)
        pipeline = Pipeline(
            database=sqlite_database, inbox=Inbox(sqlite_database), runner=runner, retry_base=0.01, retry_cap=0.1
        )
        route = Route(
            source="labs",
            provider="thrive",
            namespace="",
            signature=SIGNATURE,
            reader=ThriveReader(),
            table=table,
            guard=Guard(),
            max_attempts=2,
            handler_timeout=5.0,
        )
        running = asyncio.create_task(pipeline.run())
        try:
            yield Bench(pipeline, route)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return make


def table_of(handler: Callable[[LabResultEvent, Context], Any]) -> DispatchTable:
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        await handler(event, context)

    return table


async def write(context: Context, name: str) -> None:
    await context.session.execute(text("INSERT INTO effects VALUES (:name)"), {"name": name})


# Events


async def test_an_event_has_one_span_that_links_to_its_producer(bench: Make, collected: Collected) -> None:
    """A root of its own, with the conventions' names and the outcome."""

    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table_of(handle), collected.spans) as running:
        item = running.item("e1", {"traceparent": PRODUCER})
        await running.pipeline.outcome(item)
    span = collected.one("process lab-results")
    assert (span.kind, span.parent, span.status.status_code) == (SpanKind.CONSUMER, None, StatusCode.UNSET)
    assert contexts(span) == [creation_context({"traceparent": PRODUCER})]
    assert context_of(span).trace_id != contexts(span)[0].trace_id
    assert said(span) == {
        "messaging.system": "aws_sqs",
        "messaging.destination.name": "lab-results",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": "m-e1",
        "messaging.message.body.size": item.held.size,
        "server.address": "sqs.eu-west-1.amazonaws.com",
        "health_consumer.source": "labs",
        "health_consumer.provider": "thrive",
        "health_consumer.attempt": 1,
        "health_consumer.event_id": "e1",
        "health_consumer.event_type": "lab.result.ready",
        "health_consumer.outcome": "handled",
    }


async def test_what_handlers_trace_and_log_is_part_of_the_events_span(
    bench: Make, collected: Collected, capsys: pytest.CaptureFixture[str]
) -> None:
    """Spans of their own nest; lines of `context.log`, of structlog and of logging carry both ids."""

    async def handle(event: LabResultEvent, context: Context) -> None:
        with collected.tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)
            context.log.info("by context")
        logging.getLogger("mine").warning("by logging")

    configure_logging(form="json")
    try:
        async with bench(table_of(handle), collected.spans) as running:
            await running.pipeline.outcome(running.item("e1"))
        structlog.get_logger("worker").info("afterwards")
    finally:
        structlog.reset_defaults()
    outer, inner = collected.one("process lab-results"), collected.one("inner")
    assert inner.parent == context_of(outer)
    lines = {line["event"]: line for line in map(json.loads, capsys.readouterr().err.splitlines())}
    for event, span in (("by context", inner), ("by logging", outer)):
        assert lines[event]["trace_id"] == f"{context_of(outer).trace_id:032x}"
        assert lines[event]["span_id"] == f"{context_of(span).span_id:016x}"
    assert "trace_id" not in lines["afterwards"]


async def test_events_that_share_a_transaction_have_spans_of_their_own(bench: Make, collected: Collected) -> None:
    """Which last as long as their own handlers did, one after the other."""

    async def handle(event: LabResultEvent, context: Context) -> None:
        with collected.tracer.start_as_current_span(f"inner {event.event_id}"):
            await write(context, event.event_id)

    table = table_of(handle)
    for handler in table.handlers_for(LabResultEvent):
        for _ in range(100):
            handler.pace.ran(0.0)
    async with bench(table, collected.spans) as running:
        await running.together(*(running.item(f"e{n}") for n in range(3)))
    outer = {said(span)["health_consumer.event_id"]: span for span in collected.all("process lab-results")}
    assert sorted(outer) == ["e0", "e1", "e2"]
    assert len({context_of(span).trace_id for span in outer.values()}) == 3
    for name, span in outer.items():
        assert collected.one(f"inner {name}").parent == context_of(span)
        assert said(span)["health_consumer.outcome"] == "handled"
    ended, began = outer["e0"].end_time, outer["e1"].start_time
    assert ended is not None
    assert began is not None
    assert ended <= began


async def test_a_group_that_is_discarded_leaves_one_span_for_each_event(bench: Make, collected: Collected) -> None:
    """How often the handlers ran, alone or together, is no concern of the outcome."""
    runs: list[str] = []

    async def handle(event: LabResultEvent, context: Context) -> None:
        runs.append(event.event_id)
        await write(context, event.event_id)
        if event.event_id == "e2":
            raise Retry

    table = table_of(handle)
    for handler in table.handlers_for(LabResultEvent):
        for _ in range(100):
            handler.pace.ran(0.0)
    async with bench(table, collected.spans) as running:
        await running.together(*(running.item(f"e{n}") for n in range(3)))
    assert runs.count("e0") == 2
    found = {
        said(span)["health_consumer.event_id"]: said(span)["health_consumer.outcome"]
        for span in collected.all("process lab-results")
    }
    assert found == {"e0": "handled", "e1": "handled", "e2": "retry"}
    assert len(collected.all("process lab-results")) == 3


async def test_handlers_that_touch_no_database_end_their_span_when_they_return(
    bench: Make, collected: Collected
) -> None:
    """Although the inbox row is written later."""
    done: list[int] = []

    async def handle(_: LabResultEvent, __: Context) -> None:
        done.append(time.time_ns())

    async with bench(table_of(handle), collected.spans) as running:
        await running.together(running.item("e1"))
        settled = time.time_ns()
    ended = collected.one("process lab-results").end_time
    assert ended is not None
    assert done[0] <= ended < settled


async def test_a_duplicate_is_seen_too(bench: Make, collected: Collected) -> None:
    """Its producer's trace leads to it, although no handler runs."""

    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table_of(handle), collected.spans) as running:
        await running.pipeline.outcome(running.item("e1"))
        await running.pipeline.outcome(running.item("e1", {"traceparent": PRODUCER}))
    first, second = collected.all("process lab-results")
    assert [said(span)["health_consumer.outcome"] for span in (first, second)] == ["handled", "duplicate"]
    assert second.status.status_code == StatusCode.UNSET
    assert len(second.links) == 1


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [
        (ValueError(CANARY), ("retry", None), "ValueError"),
        (Retry(5), ("retry", None), "consumer.outcomes.Retry"),
        (Reject(CANARY), ("dead_letter", "rejected"), "consumer.outcomes.Reject"),
        (Unavailable(why="GET /x: HTTP 503"), ("given_back", "Unavailable"), "consumer.outcomes.Unavailable"),
        (KeyboardInterrupt(CANARY), ("retry", None), "KeyboardInterrupt"),
    ],
    ids=["error", "Retry", "Reject", "Unavailable", "the end of a program"],
)
async def test_what_a_handler_raises_shows_by_its_class_alone(
    bench: Make, collected: Collected, error: BaseException, outcome: tuple[str, str | None], kind: str
) -> None:
    """With the outcome it led to; nothing of its text, of the event or of the member is in any span."""

    async def handle(_: LabResultEvent, __: Context) -> None:
        raise error

    async with bench(table_of(handle), collected.spans) as running:
        await running.pipeline.outcome(running.item("e1", {"traceparent": PRODUCER, "tracestate": CANARY}))
    span = collected.one("process lab-results")
    assert (said(span)["health_consumer.outcome"], said(span).get("health_consumer.reason")) == outcome
    assert said(span)["error.type"] == kind
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, kind, ())
    assert CANARY not in collected.text()


async def test_the_last_attempt_says_that_it_was(bench: Make, collected: Collected) -> None:
    """One span for each attempt, by its number; the line that says it failed carries its ids."""
    ids: list[str] = []

    async def handle(_: LabResultEvent, __: Context) -> None:
        raise ValueError(CANARY)

    def note(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "handler_failed":
            ids.append(f"{get_current_span().get_span_context().span_id:016x}")
        raise structlog.DropEvent

    structlog.configure(processors=[note])
    try:
        async with bench(table_of(handle), collected.spans) as running:
            for _ in range(2):
                await running.pipeline.outcome(running.item("e1"))
    finally:
        structlog.reset_defaults()
    spans = collected.all("process lab-results")
    assert [said(span)["health_consumer.attempt"] for span in spans] == [1, 2]
    assert said(spans[1])["health_consumer.reason"] == "attempts_exhausted"
    assert said(spans[1])["error.type"] == "ValueError"
    assert ids == [f"{context_of(span).span_id:016x}" for span in spans]


async def test_what_a_stop_cuts_off_still_ends_its_span(bench: Make, collected: Collected) -> None:
    """Given back, and saying so."""
    started = asyncio.Event()

    async def handle(_: LabResultEvent, __: Context) -> None:
        started.set()
        await asyncio.sleep(60)

    verdicts: list[Verdict] = []
    async with bench(table_of(handle), collected.spans) as running:
        running.pipeline.submit(running.item("e1"), lambda _, verdict: verdicts.append(verdict))
        running.pipeline.submit(running.item("e1"), lambda _, verdict: verdicts.append(verdict))
        await started.wait()
    assert len(verdicts) == 2
    span = collected.one("process lab-results")
    assert said(span)["health_consumer.outcome"] == "given_back"
    assert said(span)["error.type"] == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "together"])
async def test_what_the_database_is_asked_is_part_of_the_events_span(
    bench: Make, collected: Collected, sqlite_database: Database, grouped: bool
) -> None:
    """So that an instrumentation of SQLAlchemy nests: what handlers execute, and what is only sent at the end."""
    table = table_of(lambda event, context: write(context, event.event_id))
    for handler in table.handlers_for(LabResultEvent):
        for _ in range(100 if grouped else 0):
            handler.pace.ran(0.0)
    asked: list[int] = []

    def executing(*arguments: Any) -> None:
        if "INSERT INTO effects" in arguments[2]:
            asked.append(get_current_span().get_span_context().span_id)

    async with bench(table, collected.spans) as running:
        listen(sqlite_database.engine.sync_engine, "before_cursor_execute", executing)
        await running.together(running.item("e1"), running.item("e2"))
    assert sorted(asked) == sorted(context_of(span).span_id for span in collected.all("process lab-results"))
    assert len(set(asked)) == 2


async def test_a_lost_lease_is_seen(bench: Make, collected: Collected) -> None:
    """Somebody else has the event by now."""
    started = asyncio.Event()

    async def handle(_: LabResultEvent, __: Context) -> None:
        started.set()
        await asyncio.sleep(60)

    async with bench(table_of(handle), collected.spans) as running:
        item = running.item("e1")
        waiting = asyncio.create_task(running.together(item))
        await started.wait()
        item.held.lost = True
        for task in item.held.tasks:
            task.cancel()
        await waiting
    span = collected.one("process lab-results")
    assert (said(span)["health_consumer.outcome"], said(span)["error.type"]) == ("lost", "lease_lost")


async def test_only_what_is_signed_has_a_span(bench: Make, collected: Collected) -> None:
    """One of a type that nobody handles says so; a forged message leaves none, nor would a flood of them."""
    async with bench(DispatchTable(), collected.spans) as running:
        item = running.item("e1", {"traceparent": PRODUCER})
        forged = Message(SIGNATURE.sign("{}").replace(b"{}", b"[]"), "m2", None, datetime.now(UTC))
        (bad,) = open_message(Held(forged, received_at=0.0), running.route)
    for one in (item, bad):
        assert one.verdict is not None
        collected.spans.refused(one, one.verdict)
    (span,) = collected.all()
    assert said(span)["health_consumer.reason"] == said(span)["error.type"] == "unhandled"
    assert len(span.links) == 1


async def test_a_long_name_is_cut(bench: Make, collected: Collected) -> None:
    """What comes from outside takes no more room in a span than a name does."""

    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table_of(handle), collected.spans) as running:
        await running.pipeline.outcome(running.item("e" * 5000))
    assert len(said(collected.one("process lab-results"))["health_consumer.event_id"]) == 200


# Calls to the queue


class ScriptedQueue:
    """A queue that answers as told."""

    name = "labs"
    kind = "scripted"
    capabilities = Capabilities(receive_batch=10, settle_batch=10, max_delay=100.0, poll_wait=1.0)

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    async def _answer(self) -> Any:
        answer = self._answers.pop(0) if self._answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def receive(self, limit: int) -> list[Message]:
        return await self._answer()

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        return [SettleFailure(messages[0], kind, CANARY) for kind in await self._answer()]

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        return await self._answer()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        await self._answer()


class Taker:
    """Takes what is received, and does nothing with it."""

    def admit(self, messages: Sequence[Message]) -> None: ...

    def refuse(self, messages: Sequence[Message], delay: float = 0.0) -> None: ...

    def arrived(self, count: int) -> None: ...


def message(number: int, **headers: str) -> Message:
    return Message(b"{}", f"m{number}", None, datetime.now(UTC), headers=headers)


async def received(collected: Collected, answer: Any) -> None:
    permits = Permits(count=10, size=10_000_000, largest=1000)
    queue: Any = ScriptedQueue(answer)
    await Receiver(queue, permits, Taker(), may_receive=lambda: True, spans=collected.spans).once(10)


async def test_a_receive_says_how_many_came_and_who_made_them(collected: Collected) -> None:
    await received(collected, [message(1, traceparent=PRODUCER), message(2)])
    span = collected.one("receive lab-results")
    assert (span.kind, span.parent) == (SpanKind.CLIENT, None)
    assert contexts(span) == [creation_context({"traceparent": PRODUCER})]
    assert said(span)["messaging.batch.message_count"] == 2
    assert said(span)["messaging.operation.type"] == "receive"


async def test_an_empty_receive_leaves_no_span(collected: Collected) -> None:
    """A worker that waits all night would fill the collector with them."""
    await received(collected, [])
    assert not collected.all()


async def test_a_failed_receive_is_seen(collected: Collected) -> None:
    await received(collected, SourceUnavailable(CANARY))
    span = collected.one("receive lab-results")
    assert said(span)["error.type"] == "consumer.errors.SourceUnavailable"
    assert span.status.status_code == StatusCode.ERROR
    assert CANARY not in collected.text()


@contextmanager
def settlement(collected: Collected, *answers: Any) -> Iterator[Settlement]:
    queue: Any = ScriptedQueue(*answers)
    nothing: Callable[[Held], None] = lambda _: None  # noqa: E731 - a name for what is done
    yield Settlement(queue, visibility_timeout=60.0, settled=nothing, lost=nothing, spans=collected.spans)


async def test_settling_links_to_what_was_processed(bench: Make, collected: Collected) -> None:
    """One span for each call, with the number of messages; `ack` and `nack` are told apart."""

    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table_of(handle), collected.spans) as running:
        items = [running.item(f"e{n}") for n in range(3)]
        for item in items:
            await running.pipeline.outcome(item)
    with settlement(collected) as settling:
        settling.ack(items[0].held)
        settling.ack(items[1].held)
        settling.release(items[2].held, 0.0)
        await settling.settled()
    processed = [context_of(span) for span in collected.all("process lab-results")]
    acked, nacked = collected.one("ack lab-results"), collected.one("nack lab-results")
    assert (acked.kind, acked.parent) == (SpanKind.CLIENT, None)
    assert (contexts(acked), contexts(nacked)) == (processed[:2], processed[2:])
    assert said(acked)["messaging.batch.message_count"] == 2
    assert (said(acked)["messaging.operation.name"], said(acked)["messaging.operation.type"]) == ("ack", "settle")


@pytest.mark.parametrize(
    ("answer", "kind", "count"),
    [(SourceUnavailable(CANARY), "consumer.errors.SourceUnavailable", None), (["refused"], "refused", 1)],
    ids=["the call", "one message"],
)
async def test_what_the_queue_did_not_settle_is_seen(
    collected: Collected, answer: Any, kind: str, count: int | None
) -> None:
    with settlement(collected, answer) as settling:
        settling.ack(Held(message(1), received_at=0.0))
        await settling.settled()
    span = collected.all("ack lab-results")[0]
    assert (said(span)["error.type"], said(span).get("health_consumer.not_settled")) == (kind, count)
    assert CANARY not in collected.text()


async def test_what_is_sent_carries_the_context_of_its_send(collected: Collected) -> None:
    """But not where somebody has put another one, and not where there is no room for it."""
    made = [Outgoing(b"1", {"a": "b"}), Outgoing(b"2", {"traceparent": PRODUCER}), Outgoing(b"3" * 1000)]
    with collected.spans.sending("labs", made, largest=1000) as carried:
        pass
    span = collected.one("send lab-results")
    assert span.kind == SpanKind.PRODUCER
    assert said(span)["messaging.batch.message_count"] == 3
    assert contexts(span) == [creation_context({"traceparent": PRODUCER})]
    first, *others = carried
    found = creation_context(first.headers)
    assert found is not None
    assert (found.trace_id, found.span_id) == (context_of(span).trace_id, context_of(span).span_id)
    assert first.headers["a"] == "b"
    assert others == made[1:]


async def test_a_failed_send_is_seen(collected: Collected) -> None:
    with pytest.raises(SourceUnavailable), collected.spans.sending("labs", [Outgoing(b"1")]):
        raise SourceUnavailable(CANARY)
    span = collected.one("send lab-results")
    assert said(span)["error.type"] == "consumer.errors.SourceUnavailable"
    assert "messaging.batch.message_count" not in said(span)
    assert CANARY not in collected.text()


# Calls to a platform


def refused(call: str, status: int, _: Mapping[str, str], __: bytes) -> ApiError:
    return api_error(call, status=status)


async def test_a_handlers_request_has_a_span_without_its_address(bench: Make, collected: Collected) -> None:
    """Method, template and status; a refusal counts as an error, and no context goes along with the request."""
    async with scripted(answering(web.json_response({}), web.Response(status=404))) as server:
        http = Http(server.url, options=HttpOptions(), errors=refused)

        async def handle(_: LabResultEvent, __: Context) -> None:
            for _ in range(2):
                await http.request("GET", "/v1/users/{user_id}", path={"user_id": CANARY}, query=[("since", CANARY)])

        async with bench(table_of(handle), collected.spans) as running:
            await running.pipeline.outcome(running.item("e1"))
        await http.close()
        assert not [name for seen in server.requests for name in seen.headers if name.lower().startswith("trace")]
    good, bad = collected.all("GET /v1/users/{user_id}")
    assert good.kind == SpanKind.CLIENT
    assert good.parent == context_of(collected.one("process lab-results"))
    assert said(good)["url.template"] == "/v1/users/{user_id}"
    assert (said(good)["http.request.method"], said(good)["http.response.status_code"]) == ("GET", 200)
    assert (said(bad)["http.response.status_code"], said(bad)["error.type"]) == (404, "404")
    assert good.status.status_code == StatusCode.UNSET
    assert bad.status.status_code == StatusCode.ERROR
    assert CANARY not in collected.text()


# Whether anybody collects


async def test_without_a_provider_no_span_is_made(bench: Make) -> None:
    """Neither by us nor around what handlers do, and messages are sent as they are."""
    seen: list[bool] = []

    async def handle(_: LabResultEvent, __: Context) -> None:
        seen.append(get_current_span().get_span_context().is_valid)

    assert open_spans([QUEUE], provider=NoOpTracerProvider()) is NO_SPANS
    assert open_spans([QUEUE]) is NO_SPANS
    async with bench(table_of(handle), NO_SPANS) as running:
        item = running.item("e1", {"traceparent": PRODUCER})
        await running.pipeline.outcome(item)
    assert (seen, item.span, item.held.spans) == ([False], None, ())
    made = [Outgoing(b"1")]
    with NO_SPANS.sending("labs", made) as carried:
        assert carried is made


def test_a_disabled_sdk_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_spans([QUEUE], provider=TracerProvider(shutdown_on_exit=False)) is NO_SPANS


AZURE = {
    "connection_string": "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=canary-key",
    "event_hub": "labs-hub",
    "consumer_group": "readers",
    "namespace": "ns",
    "checkpoints.connection_string": "AccountName=acc;AccountKey=Y2FuYXJ5",
    "checkpoints.container": "checkpoints",
}


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        (
            "sqs",
            {"queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/labs.fifo"},
            TracedQueue("labs", "aws_sqs", "labs.fifo", host="sqs.eu-west-1.amazonaws.com"),
        ),
        (
            "sqs",
            {"queue_url": "http://sqs:4566/000/labs", "endpoint_url": "http://localhost:4566"},
            TracedQueue("labs", "aws_sqs", "labs", host="localhost", port=4566),
        ),
        (
            "event_hubs",
            AZURE,
            TracedQueue(
                "labs", "eventhubs", "labs-hub", group="readers", host="ns.servicebus.windows.net", partitioned=True
            ),
        ),
        (
            "storage_queue",
            {"account_url": "https://acc.queue.core.windows.net", "queue": "labs-queue"},
            TracedQueue("labs", "azure_storage_queue", "labs-queue", host="acc.queue.core.windows.net"),
        ),
        ("local", {"path": "queue.db"}, TracedQueue("labs", "local", "labs")),
        ("mine.sources:Rabbit", {}, TracedQueue("labs", "mine.sources:Rabbit", "labs")),
    ],
    ids=["sqs", "sqs elsewhere", "event_hubs", "storage_queue", "local", "a class"],
)
def test_a_queue_is_named_as_its_cloud_does(
    kind: str, more: dict[str, str], expected: TracedQueue, tmp_path: Any
) -> None:
    """From the settings alone, and without anything of the credentials."""
    given = {f"sources.labs.{key}": value for key, value in {"kind": kind, **more}.items()}
    given["thrive.signature.secrets"] = "a secret"
    loaded = load_settings(env={}, cwd=tmp_path, overrides=given)
    found = TracedQueue.of(loaded.settings.source("labs"))
    assert found == expected
    assert "canary" not in repr(found.attributes())


async def test_a_partition_is_named(bench: Make) -> None:
    """A message of an event hub says by its id where it was."""
    collected = Collected()
    spans = open_spans(
        [TracedQueue("labs", "eventhubs", "hub", group="$Default", partitioned=True)], provider=collected.provider
    )

    async def handle(event: LabResultEvent, context: Context) -> None:
        await write(context, event.event_id)

    async with bench(table_of(handle), spans) as running:
        item = running.item("e1")
        item.held.message.message_id = "3-17-1700000000000"
        await running.pipeline.outcome(item)
    span = collected.one("process hub")
    assert said(span)["messaging.destination.partition.id"] == "3"
    assert said(span)["messaging.consumer.group.name"] == "$Default"
