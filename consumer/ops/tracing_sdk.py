"""Setting up OpenTelemetry's SDK, as its own environment variables ask for it, and sending the last spans at the end.

The variables are OpenTelemetry's contract (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables),
read by the SDK itself: sampler, limits, batches, headers, resource. Here only that is decided which its programs leave
to a launcher: whether to export at all, and by which exporter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

import structlog
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider, set_tracer_provider

from consumer import __version__
from consumer.failures import describe

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["FLUSH_WITHIN", "Unusable", "asks_for_spans", "exported_spans", "exporters", "make_provider"]

_log = structlog.get_logger("tracing")

FLUSH_WITHIN: Final = 3.0
"""Seconds that the last spans may take at the end, when everything else is done."""
_SERVICE: Final = "health-event-consumer"
_EXPORTERS: Final = "opentelemetry_traces_exporter"
"""The group of entry points that exporters announce themselves in."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP: Final[Mapping[str, str]] = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


class Unusable(Exception):
    """Spans cannot be exported as the environment asks; the text names the variable and what to do."""


@contextlib.asynccontextmanager
async def exported_spans(
    environment: Mapping[str, str] | None = None, *, flush_within: float = FLUSH_WITHIN
) -> AsyncIterator[None]:
    """Meanwhile, export spans if the environment asks for it; then send the last ones, for `flush_within` seconds.

    A provider that is there already, such as `opentelemetry-instrument` or the handlers' module sets, is left alone,
    its end included. What is wrong with the variables is a warning, and the work goes on without spans.
    """
    environment = os.environ if environment is None else environment
    if not asks_for_spans(environment) or not isinstance(get_tracer_provider(), ProxyTracerProvider):
        yield
        return
    try:
        provider = make_provider(environment)
    except Unusable as error:
        _log.warning("tracing_off", detail=str(error))
        yield
        return
    set_tracer_provider(provider)
    try:
        yield
    finally:
        if not await _ended(provider.shutdown, flush_within):
            _log.warning("spans_lost", detail="the collector does not answer", seconds=flush_within)


def asks_for_spans(environment: Mapping[str, str]) -> bool:
    """Whether somebody wants spans: an exporter or a collector's address is given, and the SDK is not disabled."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    chosen = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return chosen != "none" if chosen else any(environment.get(name, "").strip() for name in _ENDPOINTS)


def exporters(environment: Mapping[str, str]) -> list[str]:
    """The exporters asked for, by the names of their entry points. Raises `Unusable` for a protocol there is none of.

    Like OpenTelemetry's own launcher for Python, `otlp` without a protocol means gRPC.
    """
    names = [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
    return [_of_protocol(environment) if name.lower() == "otlp" else name for name in names or ["otlp"]]


def make_provider(environment: Mapping[str, str]) -> TracerProvider:
    """A provider with the exporters asked for. Raises `Unusable`."""
    chosen = exporters(environment)
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - an extra, and slow
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    except ImportError:
        raise Unusable("OTEL_* asks for traces: pip install 'health-event-consumer[otel]'") from None
    given = OTELResourceDetector().detect().attributes
    defaults = {"service.name": _SERVICE, "service.version": __version__}
    # What is passed here would outweigh OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
    resource = Resource.create({name: value for name, value in defaults.items() if name not in given})
    made = [_exporter(name) for name in chosen]
    # Not at exit, where nothing bounds it: `exported_spans` ends it.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in made:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _of_protocol(environment: Mapping[str, str]) -> str:
    for variable in _PROTOCOLS:
        protocol = environment.get(variable, "").strip()
        if protocol:
            if protocol not in _OTLP:
                raise Unusable(f"{variable}: expected {' or '.join(_OTLP)}")
            return _OTLP[protocol]
    return _OTLP["grpc"]


def _exporter(name: str) -> Any:
    found = next(iter(entry_points(group=_EXPORTERS, name=name)), None)
    if found is None:
        raise Unusable(
            f"OTEL_TRACES_EXPORTER: no installed package has the exporter {name!r}; "
            "otlp and console come with pip install 'health-event-consumer[otel]'"
        )
    try:
        # Standard output is for answers.
        return found.load()(**({"out": sys.stderr} if name == "console" else {}))
    except Exception as error:  # noqa: BLE001 - whatever an exporter makes of its variables
        raise Unusable(f"OTEL_*: the exporter {name!r} does not start: {describe(error)['type']}") from None


async def _ended(shutdown: Callable[[], object], within: float) -> bool:
    """Call it in a thread that nobody has to wait for; whether it ended in time."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def run() -> None:
        try:
            shutdown()
        except Exception as error:  # noqa: BLE001 - the work is done; what is left is to say it
            _log.warning("spans_lost", error=describe(error))
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="spans", daemon=True).start()
    try:
        async with asyncio.timeout(within):
            await ended.wait()
    except TimeoutError:
        return False
    return True
