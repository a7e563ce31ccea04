"""Metrics: what is counted, under which bounded labels, and that the documentation lists them as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer import NotConfigured, Reject, Retry, Unavailable
from consumer.dead_letters.record import DeadLetter
from consumer.errors import CredentialsRefused, DatabaseUnavailable, DeadLetterError, SourceUnavailable
from consumer.events import LabResultEvent
from consumer.ops.backlog import Backlog
from consumer.ops.measured_store import MeasuredStore
from consumer.ops.metrics import Metrics
from consumer.ops.metrics_page import tables
from consumer.ops.registry import MetricRegistry
from consumer.ops.source_metrics import PAUSE_REASONS, pause_reason
from consumer.outcomes import REASONS, DeadLettered, Duplicate, GivenBack, Handled, WillRetry
from consumer.settings import SourceSettings
from consumer.sources.base import Depth
from consumer.sources.local import LocalSource

DOCS = Path(__file__).parents[2] / "docs"
NOW = datetime.now(UTC)


class Queue(LocalSource):
    """A queue that says what it is told to say about its depth: a figure, an error, or nothing for ever."""

    def __init__(self, folder: Path, says: Depth | Exception | None) -> None:
        super().__init__(SourceSettings(name="labs", kind="local", path=folder / "queue"))
        self.says = says

    async def depth(self) -> Depth:
        if self.says is None:
            await asyncio.Event().wait()
        if isinstance(self.says, Depth):
            return self.says
        assert self.says is not None
        raise self.says

    def waiting_since(self) -> datetime | None:
        return NOW


def test_the_documentation_lists_every_metric() -> None:
    """As `python -m consumer.ops.metrics_page` prints them."""
    text = (DOCS / "observability.md").read_text()
    between = text.split("<!-- metrics: made by `python -m consumer.ops.metrics_page` -->")[1]
    assert between.split("<!-- end of metrics -->")[0].strip() == tables()


def test_names_end_with_their_unit() -> None:
    """Counters in `_total`; histograms, ages and times in seconds."""
    for one in Metrics().listed:
        assert one.name.endswith("_total") == (one.kind == "counter"), one.name
        assert one.kind != "histogram" or one.name.endswith("_seconds"), one.name
        assert one.meaning.endswith("."), one.name
    assert len({one.name for one in Metrics().listed}) == len(Metrics().listed)


def test_what_is_read_at_a_scrape() -> None:
    """Each value there is; none where there is nothing to say."""
    registry = MetricRegistry("worker")
    depth = registry.read("gauge", "depth", "How deep.", ["source"])
    values: dict[str, float | None] = {"labs": 3.0, "scores": None}
    depth.add_value(["labs"], lambda: values["labs"])
    depth.add_value(["scores"], lambda: values["scores"])
    assert registry.value("depth", source="labs") == 3
    assert registry.value("depth", source="scores") is None
    values["scores"] = 0.0
    assert registry.value("depth", source="scores") == 0


def test_what_cannot_be_read_is_left_out() -> None:
    """A source of the user's own that raises, or tells nonsense, costs its value alone, and one line of the log."""
    registry = MetricRegistry("worker")
    depth = registry.read("gauge", "depth", "How deep.", ["source"])

    def broken() -> float:
        raise ValueError("canary")

    depth.add_value(["broken"], broken)
    depth.add_value(["nonsense"], lambda: "canary")  # type: ignore[arg-type,return-value]
    depth.add_value(["labs"], lambda: 3.0)
    with capture_logs() as lines:
        pages = [registry.render() for _ in range(3)]
    assert all(b'health_consumer_depth{source="labs"} 3.0' in page for page in pages)
    assert not any(b"nonsense" in page or b"broken" in page for page in pages)
    assert [(line["event"], line["metric"]) for line in lines] == [("metric_unknown", "health_consumer_depth")]
    assert "canary" not in str(lines)


def test_outcomes() -> None:
    """Every verdict has its counter; a dead letter's reason is known before the first one."""
    metrics = Metrics()
    source = metrics.source("labs")
    assert all(metrics.value("dead_letters_total", source="labs", reason=reason) == 0 for reason in REASONS)
    accepted = NOW - timedelta(minutes=2)
    for verdict in (Handled(), Duplicate(), WillRetry(1.0), DeadLettered("rejected"), GivenBack("stopped")):
        source.outcome(verdict, LabResultEvent, accepted)
    event = "LabResultEvent"
    assert metrics.value("handled_total", source="labs", event=event) == 1
    assert metrics.value("duplicates_total", source="labs") == 1
    assert metrics.value("retried_total", source="labs", event=event) == 1
    assert metrics.value("dead_letters_total", source="labs", reason="rejected") == 1
    assert metrics.value("given_back_total", source="labs") == 1
    assert metrics.value("accepted_to_handled_seconds_bucket", source="labs", le="60.0") == 0
    assert metrics.value("accepted_to_handled_seconds_bucket", source="labs", le="300.0") == 1


def test_an_event_from_a_clock_that_is_ahead_took_no_time() -> None:
    """Not a negative one, by which sums would shrink."""
    metrics = Metrics()
    metrics.source("labs").outcome(Handled(), LabResultEvent, NOW + timedelta(minutes=2))
    assert metrics.value("accepted_to_handled_seconds_sum", source="labs") == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Retry(), "retry"),
        (Reject("private"), "reject"),
        (Unavailable(), "unavailable"),
        (NotConfigured("private"), "unavailable"),
        (TimeoutError(), "timeout"),
        (ValueError("private"), "error"),
        (SystemExit(1), "error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_handlers_raise(error: BaseException, kind: str) -> None:
    """Counted by the kind of failure, not by its class or text."""
    metrics = Metrics()
    metrics.handler_failed("handlers.labs", error)
    assert metrics.value("handler_failures_total", handler="handlers.labs", kind=kind) == 1
    assert b"private" not in metrics.render()


def test_requests_to_a_platform() -> None:
    """By class of status; a request without an answer has none."""
    metrics = Metrics()
    requested = metrics.platform("thrive")
    for status in (200, 204, 404, 503, None):
        requested("GET /v1/users/{user_id}", status, 0.2)
    counts = {
        outcome: metrics.value(
            "client_requests_total", provider="thrive", call="GET /v1/users/{user_id}", outcome=outcome
        )
        for outcome in ("2xx", "4xx", "5xx", "no_answer")
    }
    assert counts == {"2xx": 2, "4xx": 1, "5xx": 1, "no_answer": 1}
    assert metrics.value("client_request_seconds_count", provider="thrive") == 5


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("signatures", "signatures"),
        ("handlers", "handlers"),
        ("too many events in a row failed in handlers", "handlers"),
        (DatabaseUnavailable.__name__, "database"),
        (DeadLetterError.__name__, "dead_letters"),
        (Unavailable.__name__, "unavailable"),
        (CredentialsRefused.__name__, "credentials"),
        (NotConfigured.__name__, "credentials"),
        ("internal error", "other"),
        ("ValueError", "other"),
    ],
)
def test_why_a_source_is_paused(why: str, reason: str) -> None:
    """Any class may be the cause; the label has a few values."""
    assert pause_reason(why) == reason
    assert reason in PAUSE_REASONS


async def test_a_queue_that_does_not_answer(tmp_path: Path) -> None:
    """Nobody waits for it, it is counted and said once; the others are known."""
    metrics = Metrics()
    says = {
        "fine": Depth(7, 2, 1),
        "mute": None,
        "gone": SourceUnavailable("source gone: no"),
        "odd": KeyError("private"),
    }
    queues = {name: Queue(tmp_path, what) for name, what in says.items()}
    backlog = Backlog(queues, {name: metrics.source(name) for name in queues}, limit=0.05)
    with capture_logs() as logs:
        await backlog.look()
        await backlog.look()
    assert {name: metrics.value("backlog_errors_total", source=name) for name in queues} == {
        "fine": 0,
        "mute": 2,
        "gone": 2,
        "odd": 2,
    }
    said = {log["source"]: log["detail"] for log in logs if log["event"] == "backlog_unknown"}
    assert len(logs) == 3
    assert said == {"mute": "no answer in time", "gone": "source gone: no", "odd": "KeyError"}


async def test_the_loop_goes_on(tmp_path: Path) -> None:
    """Whatever a look met, there is another one."""
    metrics = Metrics()
    backlog = Backlog({"labs": Queue(tmp_path, ValueError())}, {"labs": metrics.source("labs")}, every=0.01)
    running = asyncio.create_task(backlog.run())
    async with asyncio.timeout(5):
        while (metrics.value("backlog_errors_total", source="labs") or 0) < 3:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


class Store:
    """A store of dead letters that refuses as often as it is told to."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.closed = False

    async def append(self, records: Sequence[DeadLetter]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise DeadLetterError("disk full")

    async def probe(self) -> None:
        raise DeadLetterError("probed")

    async def close(self) -> None:
        self.closed = True


async def test_a_store_that_is_measured() -> None:
    """Batches that were kept are timed, the others counted; all else is the store's."""
    metrics, inner = Metrics(), Store(1)
    store = MeasuredStore(inner, metrics)
    with pytest.raises(DeadLetterError, match="disk full"):
        await store.append([])
    await store.append([])
    with pytest.raises(DeadLetterError, match="probed"):
        await store.probe()
    await store.close()
    assert inner.closed
    assert metrics.value("dead_letter_write_failures_total") == 1
    assert metrics.value("dead_letter_write_seconds_count") == 1
