"""Spans of what is received, processed, settled, sent and called, after OpenTelemetry's conventions for messaging.

Only the API is needed, which does nothing by itself. Whether anybody collects spans is decided once, in `open_spans`;
if nobody does, everything here is `Spans`, whose methods do nothing.

Names are from the semantic conventions, 1.44 (opentelemetry.io/docs/specs/semconv/messaging, status: development). What
is said of an event are its id, type and outcome; of an exception, its class. `record_exception` is used nowhere, since
it writes down texts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Token
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel
from opentelemetry.trace import (
    Link,
    NoOpTracer,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Tracer,
    TracerProvider,
    get_tracer_provider,
    set_span_in_context,
)

from consumer import __version__
from consumer.ops.call_spans import TRACER_KEY, class_name, fail
from consumer.ops.trace_context import creation_context, write_context
from consumer.ops.trace_queues import TracedQueue
from consumer.outcomes import DeadLettered, Duplicate, GivenBack, Handled, Lost, Verdict, WillRetry

if TYPE_CHECKING:
    from consumer.deliveries import Held, Item
    from consumer.sources.base import Message, Outgoing

__all__ = ["NO_SPANS", "Processing", "Settling", "Spans", "open_spans"]

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
_MOST_LINKS: Final = 128
"""What an SDK keeps of a span's links unless told otherwise."""
_LONGEST: Final = 200
"""Characters of what comes from outside: an event's type may be as long as its message."""
_ROOT: Final = otel.Context()
_ROOM: Final = 512
"""Bytes that a message must have to spare for a context to go with it."""
_RAISED: Final = frozenset({"attempts_exhausted", "rejected"})
"""The reasons of dead letters that come from what a handler raised."""
_OUTCOMES: Final[Mapping[type[Verdict], str]] = {
    Handled: "handled",
    Duplicate: "duplicate",
    WillRetry: "retry",
    DeadLettered: "dead_letter",
    GivenBack: "given_back",
    Lost: "lost",
}

_Attributes = dict[str, str | int]


class Processing:
    """The span of one event on its way through the handlers, and what will be said of it at the end."""

    __slots__ = ("ended_at", "error", "span")

    def __init__(self, span: Span, ended_at: int) -> None:
        self.span = span
        self.ended_at = ended_at
        """When the handlers were last left, in nanoseconds since 1970."""
        self.error: str | None = None
        """The class of what was raised last."""


class Settling:
    """Told how a settling call went."""

    def failed(self, count: int, kind: str) -> None:
        """The queue did not settle so many of the messages."""


class Spans:
    """The places where spans begin and end; this class opens none."""

    def handling(self, _item: Item) -> AbstractContextManager[object]:
        """What runs inside are the event's handlers: its `process` span is current, and begun if need be."""
        return _NOTHING

    def judging(self, _item: Item) -> AbstractContextManager[object]:
        """What runs inside belongs to the event, but not to its handlers' time."""
        return _NOTHING

    def concluded(self, _item: Item, _verdict: Verdict) -> None:
        """What becomes of an event is known: its `process` span ends, as of when its handlers did."""

    def refused(self, _item: Item, _verdict: Verdict) -> None:
        """An event opened to an outcome without any handler."""

    def received(self, _source: str, _messages: Sequence[Message], _seconds: float) -> None:
        """A receive brought messages, after so many seconds."""

    def not_received(self, _source: str, _error: BaseException, _seconds: float) -> None:
        """A receive failed, after so many seconds."""

    def settling(self, _source: str, _operation: str, _batch: Sequence[Held]) -> AbstractContextManager[Settling]:
        """What runs inside is one call that settles the batch; `_operation` is `ack` or `nack`."""
        return _SETTLING

    def sending(
        self, _source: str, messages: Sequence[Outgoing], *, largest: int | None = None
    ) -> AbstractContextManager[Sequence[Outgoing]]:
        """What runs inside is one call that sends what this gives: the messages, with the context of the span.

        `largest` is how many bytes the queue takes of a message, None if that is not known.
        """
        del largest
        return nullcontext(messages)


NO_SPANS: Final = Spans()
_NOTHING: Final = nullcontext()
_SETTLING: Final = nullcontext(Settling())


def open_spans(queues: Iterable[TracedQueue], *, provider: TracerProvider | None = None) -> Spans:
    """Spans of these sources, by `provider` or else by the process's own; `NO_SPANS` if that collects none."""
    chosen = get_tracer_provider() if provider is None else provider
    if isinstance(chosen, ProxyTracerProvider | NoOpTracerProvider):
        return NO_SPANS
    tracer = chosen.get_tracer("health-event-consumer", __version__, _SCHEMA)
    if isinstance(tracer, NoOpTracer):
        return NO_SPANS  # an SDK that OTEL_SDK_DISABLED turned off
    return _RecordedSpans(tracer, {queue.source: queue for queue in queues})


class _RecordedSpans(Spans):
    """The same by a tracer; `queues` are the sources' by name."""

    def __init__(self, tracer: Tracer, queues: Mapping[str, TracedQueue]) -> None:
        self._tracer = tracer
        self._queues = {name: queue.attributes() for name, queue in queues.items()}
        self._partitioned = {name for name, queue in queues.items() if queue.partitioned}

    # Events

    def handling(self, item: Item) -> AbstractContextManager[object]:
        if item.span is None:
            item.span = self._begin(item)
        return _Handling(self._tracer, item.span)

    def judging(self, item: Item) -> AbstractContextManager[object]:
        return _NOTHING if item.span is None else _Current(self._tracer, item.span.span)

    def concluded(self, item: Item, verdict: Verdict) -> None:
        processing = item.span
        if processing is None:
            if isinstance(verdict, GivenBack | Lost):
                return  # it was never begun
            processing = self._begin(item)
        item.span = None
        span = processing.span
        span.set_attributes(_outcome(verdict))
        error = _error(verdict, processing.error)
        if error is not None:
            fail(span, error)
        span.end(processing.ended_at)
        held = item.held
        if len(held.spans) < _MOST_LINKS:
            held.spans = (*held.spans, span.get_span_context())

    def refused(self, item: Item, verdict: Verdict) -> None:
        if item.proven:  # else a flood of forged messages would be one of spans
            self.concluded(item, verdict)

    def _begin(self, item: Item) -> Processing:
        held, now = item.held, time.time_ns()
        source, message = item.route.source, held.message
        attributes = self._attributes(source, "process", "process")
        attributes["messaging.message.id"] = message.message_id[:_LONGEST]
        attributes["messaging.message.body.size"] = held.size
        if source in self._partitioned:
            attributes["messaging.destination.partition.id"] = message.message_id.partition("-")[0][:_LONGEST]
        attributes["health_consumer.provider"] = item.route.provider
        attributes["health_consumer.attempt"] = item.attempt
        if item.event_id is not None:
            attributes["health_consumer.event_id"] = item.event_id[:_LONGEST]
        if item.event_type is not None:
            attributes["health_consumer.event_type"] = item.event_type[:_LONGEST]
        # A root of its own: the producer's trace may have ended days ago, and its sampling is not ours.
        span = self._tracer.start_span(
            _name("process", attributes),
            _ROOT,
            SpanKind.CONSUMER,
            attributes,
            _links([creation_context(item.headers)]),
            now,
        )
        return Processing(span, now)

    # Calls to the queue

    def received(self, source: str, messages: Sequence[Message], seconds: float) -> None:
        if not messages:
            return
        links = _links(creation_context(message.headers) for message in messages[:_MOST_LINKS])
        self._receive(source, len(messages), links, seconds).end()

    def not_received(self, source: str, error: BaseException, seconds: float) -> None:
        span = self._receive(source, None, [], seconds)
        fail(span, _class_name(error))
        span.end()

    def _receive(self, source: str, count: int | None, links: Sequence[Link], seconds: float) -> Span:
        attributes = self._attributes(source, "receive", "receive")
        if count is not None:
            attributes["messaging.batch.message_count"] = count
        began = time.time_ns() - int(seconds * 1e9)
        return self._tracer.start_span(_name("receive", attributes), _ROOT, SpanKind.CLIENT, attributes, links, began)

    def settling(self, source: str, operation: str, batch: Sequence[Held]) -> AbstractContextManager[Settling]:
        attributes = self._attributes(source, operation, "settle")
        attributes["messaging.batch.message_count"] = len(batch)
        processed = [context for held in batch for context in held.spans]
        span = self._tracer.start_span(
            _name(operation, attributes), _ROOT, SpanKind.CLIENT, attributes, _links(processed[:_MOST_LINKS])
        )
        return self._ended(span)

    @contextmanager
    def _ended(self, span: Span) -> Iterator[Settling]:
        try:
            with _Current(self._tracer, span):
                yield _SettlingSpan(span)
        except BaseException as error:
            fail(span, _class_name(error))
            raise
        finally:
            span.end()

    @contextmanager
    def sending(
        self, source: str, messages: Sequence[Outgoing], *, largest: int | None = None
    ) -> Iterator[Sequence[Outgoing]]:
        attributes = self._attributes(source, "send", "send")
        if len(messages) > 1:
            attributes["messaging.batch.message_count"] = len(messages)
        contexts = [creation_context(message.headers) for message in messages]
        span = self._tracer.start_span(
            _name("send", attributes), _ROOT, SpanKind.PRODUCER, attributes, _links(contexts[:_MOST_LINKS])
        )
        headers = write_context(span.get_span_context())
        carried = [
            # A context that somebody has put there already is the one that made the message.
            message if context is not None or _full(message, largest) else _with(message, headers)
            for message, context in zip(messages, contexts, strict=True)
        ]
        try:
            with _Current(self._tracer, span):
                yield carried
        except BaseException as error:
            fail(span, _class_name(error))
            raise
        finally:
            span.end()

    def _attributes(self, source: str, operation: str, kind: str) -> _Attributes:
        queue = self._queues.get(source) or TracedQueue(source, "unknown", source).attributes()
        return {**queue, "messaging.operation.name": operation, "messaging.operation.type": kind}


class _SettlingSpan(Settling):
    def __init__(self, span: Span) -> None:
        self._span = span

    def failed(self, count: int, kind: str) -> None:
        self._span.set_attribute("health_consumer.not_settled", count)
        fail(self._span, kind)


class _Current:
    """Makes a span the current one, and nothing of what is raised inside is written down."""

    __slots__ = ("_span", "_token", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    def __enter__(self) -> None:
        self._token: Token[otel.Context] = otel.attach(
            otel.set_value(TRACER_KEY, self._tracer, set_span_in_context(self._span))
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        otel.detach(self._token)


class _Handling(_Current):
    """The same, and notes when and how the handlers ended."""

    __slots__ = ("_processing",)

    def __init__(self, tracer: Tracer, processing: Processing) -> None:
        super().__init__(tracer, processing.span)
        self._processing = processing

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        otel.detach(self._token)
        self._processing.ended_at = time.time_ns()
        if error is not None:
            self._processing.error = _class_name(getattr(error, "error", error))


def _name(operation: str, attributes: Mapping[str, str | int]) -> str:
    return f"{operation} {attributes['messaging.destination.name']}"


def _links(contexts: Iterable[SpanContext | None]) -> list[Link]:
    return [Link(context) for context in contexts if context is not None]


def _full(message: Outgoing, largest: int | None) -> bool:
    return largest is not None and len(message.body) + _ROOM > largest


def _with(message: Outgoing, headers: Mapping[str, str]) -> Outgoing:
    return replace(message, headers={**message.headers, **headers})


def _outcome(verdict: Verdict) -> dict[str, str]:
    said = {"health_consumer.outcome": _OUTCOMES[type(verdict)]}
    if isinstance(verdict, DeadLettered):
        said["health_consumer.reason"] = verdict.reason
    elif isinstance(verdict, GivenBack):
        said["health_consumer.reason"] = verdict.why[:_LONGEST]
    return said


def _error(verdict: Verdict, raised: str | None) -> str | None:
    """What `error.type` says: the class of what was raised, a dead letter's reason, or why there was no outcome."""
    if isinstance(verdict, WillRetry):
        return raised or "_OTHER"
    if isinstance(verdict, DeadLettered):
        return raised if raised and verdict.reason in _RAISED else verdict.reason
    if isinstance(verdict, GivenBack):
        return raised or verdict.why[:_LONGEST]
    return "lease_lost" if isinstance(verdict, Lost) else None


def _class_name(error: BaseException) -> str:
    """The class of what a handler raised, if that is what `error` brings, else of `error` itself."""
    raised = getattr(error, "error", None)
    kind = type(raised if isinstance(raised, BaseException) else error)
    return class_name(kind)
