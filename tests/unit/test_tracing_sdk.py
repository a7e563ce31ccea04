"""Whether and how spans are exported: by OpenTelemetry's own variables, and never at the cost of the work."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
from structlog.testing import capture_logs

from consumer import __version__
from consumer.ops import tracing_sdk
from consumer.ops.tracing_sdk import Unusable, asks_for_spans, exported_spans, exporters, make_provider

ENDPOINT = "http://collector:4317"


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "labs"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, False),
        ({"OTEL_TRACES_EXPORTER": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ENDPOINT}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ENDPOINT}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
    ids=["nothing", "a name", "exporter", "none", "endpoint", "endpoint for traces", "metrics", "disabled"],
)
def test_somebody_must_ask_for_spans(environment: dict[str, str], asked: bool) -> None:
    assert asks_for_spans(environment) is asked


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
        (
            {
                "OTEL_TRACES_EXPORTER": "console, otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ["console", "otlp_proto_http"],
        ),
    ],
    ids=["default", "protocol", "two, and a protocol for traces"],
)
def test_exporters_are_chosen_as_opentelemetry_does(environment: dict[str, str], names: list[str]) -> None:
    assert exporters(environment) == names


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkinn"}, "OTEL_TRACES_EXPORTER: no installed package has the exporter 'zipkinn'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL:"),
    ],
    ids=["exporter", "protocol"],
)
async def test_wrong_variables_do_not_stop_the_work(environment: dict[str, str], said: str) -> None:
    """One warning that names the variable; then everything goes on without spans."""
    with capture_logs() as lines:
        async with exported_spans(environment):
            assert isinstance(get_tracer_provider(), ProxyTracerProvider)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("tracing_off", "warning")
    assert line["detail"].startswith(said)


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with capture_logs() as lines:
        async with exported_spans({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}):
            pass
    assert [line["detail"] for line in lines] == ["OTEL_* asks for traces: pip install 'health-event-consumer[otel]'"]


def test_an_exporter_that_does_not_start_shows_by_its_class_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says might repeat a header with a token."""

    class Broken:
        def load(self) -> type[Broken]:
            raise ValueError("token-canary")

    monkeypatch.setattr(tracing_sdk, "entry_points", lambda **_: [Broken()])
    with pytest.raises(Unusable) as caught:
        make_provider({"OTEL_TRACES_EXPORTER": "broken"})
    assert str(caught.value) == "OTEL_*: the exporter 'broken' does not start: ValueError"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "health-event-consumer"),
        ({"OTEL_SERVICE_NAME": "labs"}, "labs"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=labs,team=a"}, "labs"),
    ],
    ids=["default", "by its variable", "among the resource's"],
)
def test_the_service_is_named(variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    provider = make_provider({"OTEL_TRACES_EXPORTER": "console"})
    provider.shutdown()
    found = provider.resource.attributes
    assert (found["service.name"], found["service.version"]) == (name, __version__)


class Stuck(SpanProcessor):
    """Ends when it is let go, like one whose collector does not answer."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def shutdown(self) -> None:
        self.let_go.wait(30)


async def test_a_collector_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last spans get their time and no more, and the event loop goes on meanwhile."""
    stuck = Stuck()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(stuck)
    monkeypatch.setattr(tracing_sdk, "make_provider", lambda _: provider)
    monkeypatch.setattr(tracing_sdk, "set_tracer_provider", lambda _: None)  # once set, it stays for the whole process
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    turning = asyncio.create_task(turn())
    try:
        with capture_logs() as lines:
            async with exported_spans({"OTEL_TRACES_EXPORTER": "otlp"}, flush_within=0.2):
                began = time.monotonic()
        assert time.monotonic() - began < 5
        assert turns > 1
        assert [line["event"] for line in lines] == ["spans_lost"]
    finally:
        stuck.let_go.set()
        turning.cancel()


async def test_an_exporter_that_fails_at_the_end_is_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(SpanProcessor):
        def shutdown(self) -> None:
            raise ValueError("canary")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Failing())
    monkeypatch.setattr(tracing_sdk, "make_provider", lambda _: provider)
    monkeypatch.setattr(tracing_sdk, "set_tracer_provider", lambda _: None)
    with capture_logs() as lines:
        async with exported_spans({"OTEL_TRACES_EXPORTER": "otlp"}):
            pass
    (line,) = lines
    assert (line["event"], line["error"]["type"]) == ("spans_lost", "ValueError")
