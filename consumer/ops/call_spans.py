"""Spans of requests that handlers make to a platform's API, after OpenTelemetry's conventions for HTTP clients.

They are opened while an event is handled, by the tracer that opened the event's own span. The address is left out, as
it holds ids of members; the path's template stands for it. No context goes along with the request: it would tell
somebody else which requests belong together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as otel
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

__all__ = ["TRACER_KEY", "CallSpan", "calling", "class_name", "fail"]

TRACER_KEY: Final = otel.create_key("health-event-consumer-tracer")
"""Under which OpenTelemetry's context holds the tracer of the event that is handled."""
_REFUSED: Final = 400


class CallSpan:
    """Told how a request went."""

    def answered(self, status: int) -> None:
        """There was an answer, with this status."""

    def failed(self, why: str) -> None:
        """There was none that could be read; `why` is a class name or a few words of our own."""


class _Recorded(CallSpan):
    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= _REFUSED:
            fail(self._span, str(status))

    def failed(self, why: str) -> None:
        fail(self._span, why)


_NONE: Final = CallSpan()


@contextmanager
def calling(call: str, method: str, host: str | None, port: int | None) -> Iterator[CallSpan]:
    """What runs inside is one attempt of a request. `call` is its method and the template of its path."""
    tracer = otel.get_value(TRACER_KEY)
    if not isinstance(tracer, Tracer):
        yield _NONE
        return
    attributes: dict[str, str | int] = {"http.request.method": method}
    template = call.removeprefix(f"{method} ")
    if template.startswith("/"):
        attributes["url.template"] = template
    if host is not None:
        attributes["server.address"] = host
    if port is not None:
        attributes["server.port"] = port
    span = tracer.start_span(call, kind=SpanKind.CLIENT, attributes=attributes)
    try:
        yield _Recorded(span)
    except BaseException as error:
        fail(span, class_name(type(error)))
        raise
    finally:
        span.end()


def fail(span: Span, why: str) -> None:
    """End badly, for a reason that is a class name or one of a few words."""
    span.set_attribute("error.type", why)
    span.set_status(Status(StatusCode.ERROR, why))


def class_name(kind: type[BaseException]) -> str:
    """A class's name, with its module unless it is Python's own."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
