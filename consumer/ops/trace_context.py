"""Where a message came from, as tracing knows it: the context its producer left in the headers. Pure.

The formats are W3C Trace Context (w3.org/TR/trace-context), which Azure's older SDKs put into `Diagnostic-Id`, and the
header of AWS X-Ray (docs.aws.amazon.com, X-Ray developer guide, tracing header), which SQS carries by itself.

Headers are signed by nobody, so a context is only ever linked to. What makes no sense is ignored, and never logged:
OpenTelemetry's own reader of `tracestate` would write the text of a malformed one into the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceFlags, TraceState, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["AWS_TRACE_HEADER", "TRACEPARENT", "creation_context", "is_traceparent", "write_context"]

TRACEPARENT: Final = "traceparent"
AWS_TRACE_HEADER: Final = "AWSTraceHeader"
_TRACESTATE: Final = "tracestate"
_DIAGNOSTIC_ID: Final = "Diagnostic-Id"
_LONGEST: Final = 512
"""Characters of a header that is read at all; W3C asks for that many of `tracestate` to be carried."""
_STATE_MEMBERS: Final = 32
_STATE: Final = re.compile(
    r"([a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
"""One member of `tracestate`, as W3C Trace Context has it in 3.3.1.3."""
_ROOT: Final = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT: Final = re.compile(r"[0-9a-f]{16}")
_NOWHERE: Final = Context()
_w3c = TraceContextTextMapPropagator()


def creation_context(headers: Mapping[str, str]) -> SpanContext | None:
    """The span that made a message, by the first of its headers that says so; None if none does. Raises nothing."""
    if not headers:
        return None
    for name in (TRACEPARENT, _DIAGNOSTIC_ID):
        found = _read_traceparent(headers.get(name, ""))
        if found is not None:
            return _with_state(found, headers.get(_TRACESTATE, ""))
    return _read_xray(headers.get(AWS_TRACE_HEADER, ""))


def is_traceparent(text: str) -> bool:
    """Whether a text is a valid `traceparent` of the version that is current, and nothing more."""
    return len(text) == len("00-") + 32 + 1 + 16 + 1 + 2 and text.isascii() and _read_traceparent(text) is not None


def write_context(context: SpanContext) -> dict[str, str]:
    """The headers by which others find this span."""
    headers = {
        TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}",
    }
    if context.trace_state:
        headers[_TRACESTATE] = context.trace_state.to_header()
    return headers


def _read_traceparent(text: str) -> SpanContext | None:
    if not text or len(text) > _LONGEST:
        return None
    found = get_current_span(_w3c.extract({TRACEPARENT: text}, _NOWHERE)).get_span_context()
    return found if found.is_valid else None


def _with_state(context: SpanContext, text: str) -> SpanContext:
    if not text or len(text) > _LONGEST:
        return context
    members = [_STATE.fullmatch(member.strip(" \t")) for member in text.split(",") if member.strip(" \t")]
    pairs = [(member[1], member[2]) for member in members if member is not None]
    if not pairs or len(pairs) < len(members) or len(pairs) > _STATE_MEMBERS or len(dict(pairs)) < len(pairs):
        return context
    return SpanContext(
        context.trace_id,
        context.span_id,
        is_remote=True,
        trace_flags=context.trace_flags,
        trace_state=TraceState(pairs),
    )


def _read_xray(text: str) -> SpanContext | None:
    """`Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=1`, in any order, with other parts between."""
    if not text or len(text) > _LONGEST:
        return None
    parts = dict(part.strip().partition("=")[::2] for part in text.split(";"))
    root, parent = _ROOT.fullmatch(parts.get("Root", "")), _PARENT.fullmatch(parts.get("Parent", ""))
    if root is None or parent is None:
        return None
    found = SpanContext(
        int(root[1] + root[2], 16),
        int(parent[0], 16),
        is_remote=True,
        trace_flags=TraceFlags(parts.get("Sampled") == "1"),
    )
    return found if found.is_valid else None
