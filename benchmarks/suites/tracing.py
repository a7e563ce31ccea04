"""What spans cost: nothing worth naming while nobody collects them, and how much with an SDK that keeps every one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from benchmarks.material import new_route, signed_lab_results
from benchmarks.measuring import Plan, Result, interleaved
from consumer import Context, DispatchTable
from consumer.database import Database
from consumer.deliveries import Held, Item
from consumer.events import LabResultEvent
from consumer.inbox import Inbox
from consumer.migrations import migrate
from consumer.opening import open_message
from consumer.ops.metrics import Metrics
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import NO_SPANS, Spans, open_spans
from consumer.outcomes import Handled, Verdict
from consumer.pipeline import Pipeline
from consumer.running import Runner
from consumer.sources.base import Message

__all__ = ["run"]

_EVENTS = 4_000
_CALLS = 5
"""How many times more rounds the short turns have."""
_IN_HAND = 200
_SHARE = 0.05
_HEADERS = {"traceparent": "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"}
_QUEUE = TracedQueue("labs", "aws_sqs", "labs")


class _Swallowing(SpanExporter):
    """An exporter that sends nothing: what a collector costs is its own affair."""

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        """All is well."""
        return SpanExportResult.SUCCESS


def run(plan: Plan) -> list[Result]:
    """The calls around one event, alone; then events a second with the inbox in SQLite, without and with an SDK."""
    providers = {"all": TracerProvider(shutdown_on_exit=False), "some": _sampling()}
    kept = {"nobody": NO_SPANS}
    for name, provider in providers.items():
        provider.add_span_processor(BatchSpanProcessor(_Swallowing()))
        kept[name] = open_spans([_QUEUE], provider=provider)
    count = plan.size(_EVENTS)
    calls = interleaved({name: partial(_calls, spans, count) for name, spans in kept.items()}, plan.rounds * _CALLS)
    rates = interleaved({name: partial(_drain, spans, count) for name, spans in kept.items()}, plan.rounds)
    for provider in providers.values():
        provider.shutdown()
    return [
        Result(what="spans of one event, nobody collects", ours=calls["nobody"], unit="us", most=3.0),
        Result(what="spans of one event, an SDK keeps all", ours=calls["all"], unit="us"),
        Result(what="spans of one event, an SDK keeps 1 in 20", ours=calls["some"], unit="us"),
        _against(rates, "all", "an SDK keeps all spans"),
        _against(rates, "some", "an SDK keeps 1 in 20 spans"),
    ]


def _against(rates: Mapping[str, float], name: str, what: str) -> Result:
    return Result(
        what=f"handle and commit, {what}",
        ours=rates[name],
        reference=rates["nobody"],
        unit="events/s",
        against="the same, nobody collects",
    )


def _sampling() -> TracerProvider:
    return TracerProvider(sampler=ParentBased(TraceIdRatioBased(_SHARE)), shutdown_on_exit=False)


async def _nothing(event: LabResultEvent, context: Context) -> None:
    """The handler of nothing at all."""


def _items(count: int) -> list[Item]:
    table = DispatchTable()
    table.on(LabResultEvent)(_nothing)
    route, now = new_route(table), datetime.now(UTC)
    messages = (Message(body.encode(), "id", None, now, headers=_HEADERS) for body in signed_lab_results(count))
    return [item for message in messages for item in open_message(Held(message, received_at=0.0), route)]


def _calls(spans: Spans, count: int) -> float:
    """Microseconds an event, for what a run in a group asks of spans."""
    items, verdict = _items(count), Handled()
    begun = time.perf_counter()
    for item in items:
        with spans.handling(item):
            pass
        spans.concluded(item, verdict)
    return (time.perf_counter() - begun) / count * 1e6


def _drain(spans: Spans, count: int) -> float:
    """Events a second through the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_handle(Path(folder) / "bench.db", spans, _items(count)))


async def _handle(file: Path, spans: Spans, items: Iterable[Item]) -> float:
    database = Database(f"sqlite:///{file}")
    await database.open()
    try:
        await migrate(database)
        runner = Runner(meter=Metrics(), spans=spans)
        pipeline = Pipeline(database=database, inbox=Inbox(database), runner=runner)
        running = asyncio.create_task(pipeline.run())
        room, count = asyncio.Semaphore(_IN_HAND), 0

        def done(_: Item, verdict: Verdict) -> None:
            assert verdict == Handled()
            room.release()

        begun = time.perf_counter()
        for item in items:
            await room.acquire()
            pipeline.submit(item, done)
            count += 1
        for _ in range(_IN_HAND):
            await room.acquire()
        seconds = time.perf_counter() - begun
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return count / seconds
    finally:
        await database.close()
