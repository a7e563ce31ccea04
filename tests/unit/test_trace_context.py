"""Which span made a message, by what its producer left in the headers."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from consumer.ops.trace_context import creation_context, is_traceparent, write_context

TRACE = "5759e988bd862e3fe1be46a994272793"
SPAN = "53995c3f42cd8ad8"
PARENT = f"00-{TRACE}-{SPAN}-01"
XRAY = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled=1"
CONTEXT = SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=True, trace_flags=TraceFlags(1))


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": PARENT},
        {"Diagnostic-Id": PARENT},
        {"AWSTraceHeader": XRAY},
        {"AWSTraceHeader": f"Self=1-67891234-12456789abcdef012345678;{XRAY};Lineage=a:1|b:2"},
        {"AWSTraceHeader": f"Sampled=1; Parent={SPAN}; Root=1-{TRACE[:8]}-{TRACE[8:]}"},
        {"traceparent": "nonsense", "Diagnostic-Id": "|abc.1", "AWSTraceHeader": XRAY},
        {"traceparent": PARENT, "AWSTraceHeader": XRAY.replace("5", "6")},
    ],
    ids=["w3c", "Azure's", "X-Ray", "X-Ray with more", "X-Ray in another order", "the first that makes sense", "order"],
)
def test_the_producers_context_is_found(headers: dict[str, str]) -> None:
    """Whatever the platform calls it; W3C's own header first."""
    assert creation_context(headers) == CONTEXT


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": ""},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
        {"traceparent": PARENT.upper()},
        {"traceparent": PARENT + "-" + "x" * 600},
        {"AWSTraceHeader": f"Root=1-{TRACE[:8]}-{TRACE[8:]}"},
        {"AWSTraceHeader": f"Root=1-{TRACE};Parent={SPAN}"},
        {"AWSTraceHeader": f"Root=1-{'0' * 8}-{'0' * 24};Parent={SPAN}"},
        {"AWSTraceHeader": XRAY + ";" * 600},
        {"Traceparent-Like": PARENT},
    ],
    ids=[
        "none",
        "empty",
        "no trace",
        "no span",
        "version",
        "case",
        "long",
        "no parent",
        "root",
        "zero",
        "long X-Ray",
        "name",
    ],
)
def test_what_makes_no_sense_is_ignored(headers: dict[str, str]) -> None:
    assert creation_context(headers) is None


@pytest.mark.parametrize(("sampled", "flags"), [("1", 1), ("0", 0), ("?", 0)])
def test_xray_says_whether_it_is_sampled(sampled: str, flags: int) -> None:
    found = creation_context({"AWSTraceHeader": XRAY.replace("Sampled=1", f"Sampled={sampled}")})
    assert found is not None
    assert found.trace_flags == flags


@pytest.mark.parametrize(
    ("state", "members"),
    [
        ("dd=s:1, tenant@vendor=a/b", {"dd": "s:1", "tenant@vendor": "a/b"}),
        ("", {}),
        ("canary", {}),
        ("dd=s:1,Canary=x", {}),
        ("dd=1,dd=2", {}),
        (",".join(f"a{n}=1" for n in range(33)), {}),
        ("a=" + "x" * 600, {}),
    ],
    ids=["two", "none", "no pair", "one is wrong", "twice", "too many", "too long"],
)
def test_tracestate_is_kept_whole_or_not_at_all(
    state: str, members: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """A malformed one is not logged either, since it may hold anything."""
    with caplog.at_level(logging.DEBUG):
        found = creation_context({"traceparent": PARENT, "tracestate": state})
    assert found is not None
    assert (found.trace_id, found.span_id) == (CONTEXT.trace_id, CONTEXT.span_id)
    assert dict(found.trace_state) == members
    assert not caplog.records


TEXT = st.text(max_size=80) | st.sampled_from([PARENT, XRAY, XRAY[:40], "a=b,c=d", ";=;==", "Root=1--;Parent="])


@settings(max_examples=50)
@given(headers=st.dictionaries(st.sampled_from(["traceparent", "tracestate", "Diagnostic-Id", "AWSTraceHeader"]), TEXT))
def test_no_header_is_too_strange(headers: dict[str, str]) -> None:
    """Reading never fails, and what is found is valid and can be written."""
    found = creation_context(headers)
    assert found is None or (found.is_valid and creation_context(write_context(found)) == found)


@settings(max_examples=50)
@given(root=st.text("0123456789abcdef", min_size=20, max_size=26), parent=st.text("0123456789abcdefg", max_size=18))
def test_xray_ids_have_their_exact_length(root: str, parent: str) -> None:
    found = creation_context({"AWSTraceHeader": f"Root=1-00000001-{root};Parent={parent}"})
    good = len(root) == 24 and len(parent) == 16 and "g" not in parent and int(parent, 16) != 0
    assert (found is not None) == good


def test_a_context_is_written_as_it_is_read() -> None:
    context = SpanContext(
        CONTEXT.trace_id,
        CONTEXT.span_id,
        is_remote=True,
        trace_flags=TraceFlags(1),
        trace_state=TraceState([("a", "b")]),
    )
    headers = write_context(context)
    assert headers == {"traceparent": PARENT, "tracestate": "a=b"}


@pytest.mark.parametrize(
    ("text", "good"),
    [(PARENT, True), (PARENT + "\n", False), (f" {PARENT}", False), ("", False), (PARENT[:-1] + "é", False)],
    ids=["as it is", "line end", "space", "empty", "not ASCII"],
)
def test_only_an_exact_traceparent_is_passed_on(text: str, good: bool) -> None:
    assert is_traceparent(text) is good
