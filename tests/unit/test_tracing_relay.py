"""Traces through the relay: what callers bring is passed on, and each send has a span of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from consumer import SahhaSignature
from consumer.ops.trace_context import creation_context
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import open_spans
from consumer.relay.limits import HEADERS_SHARE, largest_body
from consumer.relay.sending import Sender
from consumer.relay.webhook import to_message
from consumer.sources.base import Outgoing
from tests.relay_rig import SCORE, SECRET, MoodyQueue, body_of, neutral, relaying, settings

PARENT = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
NOW = datetime(2026, 3, 16, 8, tzinfo=UTC)


async def test_the_trace_of_a_webhook_goes_along_with_it(tmp_path: Path) -> None:
    """As the message's own attribute, and in the envelope for queues that have none; what is signed stays as it was."""
    async with relaying(tmp_path) as running:
        assert await running.post(3, traceparent=PARENT) == 200
        (message,) = await running.messages(1)
    found = neutral(message)
    assert message.headers == {"traceparent": PARENT}
    assert creation_context(found.headers) == creation_context({"traceparent": PARENT})
    opened = SahhaSignature(secrets=[SECRET]).open(found.body, found.headers, accepted_at=message.accepted_at)
    assert opened.body == body_of(3)


@pytest.mark.parametrize(
    "header", [PARENT[:-1], f"{PARENT}-more", f"00-{'0' * 32}-{'1' * 16}-01"], ids=["short", "long", "no trace"]
)
async def test_what_is_no_trace_is_left_out(tmp_path: Path, header: str) -> None:
    """The webhook is taken all the same."""
    async with relaying(tmp_path) as running:
        assert await running.post(3, traceparent=header) == 200
        (message,) = await running.messages(1)
    assert "traceparent" not in {**message.headers, **neutral(message).headers}


def test_a_trace_changes_nothing_else() -> None:
    """A webhook that is sent again is part of another trace, and still the same webhook; and its message still fits."""
    headers = {"x-signature": "ab", "x-external-id": "u1", "x-event-type": SCORE}
    without, traced = (to_message(b"{}", headers, NOW, ordered=True, traceparent=trace) for trace in (None, PARENT))
    assert (without.deduplication_id, without.ordering_key) == (traced.deduplication_id, traced.ordering_key)
    longest = {**headers, "x-external-id": "u" * (HEADERS_SHARE - len(SCORE) - len("ab") - 6)}
    largest = to_message(b"\0" * largest_body(100_000), longest, NOW, ordered=True, traceparent=PARENT)
    assert len(largest.body) <= 100_000


async def test_each_send_has_a_span_that_its_messages_carry(tmp_path: Path) -> None:
    """One for all that go together, and one for each when the queue takes them only one by one."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    queue = MoodyQueue(settings(tmp_path).source("scores"))
    await queue.open()
    sender = Sender(
        queue,
        timeout=5.0,
        on_trouble=lambda _: None,
        spans=open_spans([TracedQueue("scores", "local", "scores")], provider=provider),
    )
    headers = {"x-signature": "ab", "x-external-id": "u1", "x-event-type": SCORE}
    made = [to_message(body_of(number), headers, NOW, ordered=False) for number in range(3)]
    queue.refused = body_of(1)
    accepted = await asyncio.gather(*map(sender.put, made))
    found = await queue.receive(10)
    await sender.close()
    await queue.close()
    spans = exporter.get_finished_spans()
    assert accepted == [True, False, True]
    assert [span.name for span in spans] == ["send scores"] * 4
    assert [span.status.is_ok for span in spans] == [False, True, False, True]
    carried = [creation_context(message.headers) for message in found]
    assert [context and context.span_id for context in carried] == [
        span.context.span_id for span in (spans[1], spans[3]) if span.context is not None
    ]


def test_nothing_of_a_message_is_in_its_span() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = open_spans([TracedQueue("scores", "local", "scores")], provider=provider)
    with spans.sending("scores", [Outgoing(b"canary", {"x-external-id": "canary"}, ordering_key="canary")]):
        pass
    assert "canary" not in exporter.get_finished_spans()[0].to_json()
