"""What the relay decides without a network: batches, sizes, headers."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from multidict import CIMultiDict

from consumer.envelope import unwrap_neutral
from consumer.errors import SettingsError
from consumer.relay.batches import Batches
from consumer.relay.limits import HEADERS_SHARE, body_limit, connection_limit, headers_size, largest_body
from consumer.relay.webhook import HEADERS, Refused, content_length, read_headers, to_message
from consumer.sources.storage_queue_messages import LONGEST_MESSAGE, entry

NOW = datetime(2026, 3, 16, 8, 0, 0, 123456, tzinfo=UTC)


# Batches


def taken(batches: Batches[int]) -> list[int | None]:
    return [waiting.item for waiting in batches.take()]


def test_the_first_goes_at_once() -> None:
    """An idle queue gets what there is; nothing waits for company."""
    batches: Batches[int] = Batches(most=10, sends=1, patience=5)
    assert taken(batches) == []
    batches.add(1, now=0)
    assert taken(batches) == [1]


def test_what_comes_meanwhile_goes_together() -> None:
    """In the order it came, as many at once as may be, when a place is free."""
    batches: Batches[int] = Batches(most=3, sends=2, patience=5)
    batches.add(0, now=0)
    first = batches.take()
    batches.add(1, now=0)
    assert taken(batches) == [1]
    for item in range(2, 7):
        batches.add(item, now=1)
    assert taken(batches) == []
    batches.sent(first)
    assert taken(batches) == [2, 3, 4]
    assert taken(batches) == []


def test_nobody_waits_too_long() -> None:
    """What is overdue is given up once, wherever it is, and not sent any more if it was not yet."""
    batches: Batches[int] = Batches(most=1, sends=1, patience=5)
    for item in range(3):
        batches.add(item, now=item)
    sending = batches.take()
    assert batches.due == 5
    assert batches.overdue(4.9) == []
    assert batches.overdue(6) == [0, 1]
    assert batches.due == 7
    batches.sent(sending)
    assert taken(batches) == [2]
    assert batches.overdue(6) == []


def test_what_was_sent_is_not_overdue() -> None:
    """And nothing is due."""
    batches: Batches[int] = Batches(most=2, sends=1, patience=5)
    batches.add(1, now=0)
    batches.sent(batches.take())
    assert batches.due == math.inf
    assert batches.overdue(100) == []


@examples(max_examples=50)
@given(
    st.lists(st.one_of(st.just("add"), st.just("take"), st.just("sent"), st.just("wait")), max_size=60),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_each_is_sent_or_given_up(steps: list[str], most: int, sends: int) -> None:
    """Whatever happens in whatever order: nothing is sent twice, nothing is lost, no group is too large."""
    batches: Batches[int] = Batches(most=most, sends=sends, patience=3)
    under_way, sent, given_up, added, now = [], [], [], 0, 0.0
    for step in steps:
        now += 0.5
        if step == "add":
            batches.add(added, now)
            added += 1
        elif step == "take":
            group = batches.take()
            assert len(group) <= most
            if group:
                sent += [waiting.item for waiting in group]
                under_way.append(group)
            assert len(under_way) <= sends
        elif step == "sent" and under_way:
            batches.sent(under_way.pop(0))
        elif step == "wait":
            given_up += batches.overdue(now)
    for group in under_way:
        batches.sent(group)
    while group := batches.take():
        sent += [waiting.item for waiting in group]
        batches.sent(group)
    assert len(set(sent)) == len(sent)
    assert len(set(given_up)) == len(given_up)
    assert set(sent) | set(given_up) == set(range(added))


# Sizes


_VALUES = st.text(
    st.one_of(st.sampled_from('"\\\t/\u00e9\u20ac\U0001f600'), st.characters(min_codepoint=32, max_codepoint=126)),
    min_size=1,
    max_size=3000,
)


@examples(max_examples=50)
@given(st.tuples(_VALUES, _VALUES, _VALUES), st.integers(9_000, 300_000))
def test_the_largest_webhook_fits(values: tuple[str, str, str], limit: int) -> None:
    """Body and headers as large as they may be make a message within the limit."""
    headers = {name.lower(): value for name, value in zip(HEADERS, values, strict=True)}
    size = largest_body(limit)
    if headers_size(headers) > HEADERS_SHARE:
        return
    body = b"\xff" * size
    message = to_message(body, headers, NOW, ordered=True)
    assert len(message.body) <= limit
    found = unwrap_neutral(message.body)
    assert found is not None
    assert (found.body, found.headers) == (body, headers)


def test_headers_and_body_at_their_largest() -> None:
    """Both at once fit, and there is not much to spare."""
    headers = dict.fromkeys((name.lower() for name in HEADERS), '"' * 1363)
    headers["x-signature"] += "a" * (HEADERS_SHARE - headers_size(headers))
    assert headers_size(headers) == HEADERS_SHARE
    for limit in range(65_536, 65_540):
        message = to_message(b"x" * largest_body(limit), headers, NOW, ordered=True)
        assert limit - 256 < len(message.body) <= limit


def test_the_largest_webhook_fits_a_storage_queue() -> None:
    """Which carries the envelope as it is: it is text that needs no base64 of its own."""
    headers = {name.lower(): '"' * 1000 for name in HEADERS}
    message = to_message(b"x" * largest_body(LONGEST_MESSAGE), headers, NOW, ordered=False)
    assert entry(message, name="scores")["content"].encode() == message.body


def test_the_share_of_headers_is_exact() -> None:
    """As JSON writes them, quotes and backslashes escaped."""
    assert headers_size({"x": '"' * 4096}) == 2 * 4096 + 2
    assert headers_size({"x": "\u20ac" * 3000}) == 3 * 3000 + 2


def test_body_limits() -> None:
    """What the queue takes and what the worker reads both bound it; unset it is 256 KiB at most."""
    limit = dict(largest_message=None, max_message_bytes=1 << 20, source="scores")  # noqa: C408
    assert body_limit(None, **limit) == 256 * 1024  # type: ignore[arg-type]
    assert body_limit(300_000, **limit) == 300_000  # type: ignore[arg-type]
    fits = largest_body(65_536)
    assert body_limit(None, largest_message=65_536, max_message_bytes=1 << 20, source="scores") == fits
    with pytest.raises(SettingsError, match=f"MAX_BODY_BYTES: expected {fits} or less, since the queue of source scor"):
        body_limit(fits + 1, largest_message=65_536, max_message_bytes=1 << 20, source="scores")
    with pytest.raises(SettingsError, match=r"sources\.scores\.max_message_bytes is 60000"):
        body_limit(60_000, largest_message=65_536, max_message_bytes=60_000, source="scores")
    with pytest.raises(SettingsError, match="an empty webhook may need"):
        body_limit(None, largest_message=None, max_message_bytes=8_000, source="scores")


def test_connections() -> None:
    """Twice what may be in hand, less than the process may open, and never none."""
    assert connection_limit(500, 1 << 20) == 1000
    assert connection_limit(500, 1024) == 960
    assert connection_limit(1, 20) == 16


# Headers


def given_headers(**changes: str) -> CIMultiDict[str]:
    values = {"X-Signature": "ab", "X-External-Id": "u1", "X-Event-Type": "T", "Content-Length": "2"}
    return CIMultiDict({**values, **{name.replace("_", "-"): value for name, value in changes.items()}})


@pytest.mark.parametrize("value", ["a\x7fb", "\ufffe", "\x01", "a\uffff"])
def test_what_is_no_text(value: str) -> None:
    """Some queues refuse it, so it is refused here; the text of the refusal does not repeat it."""
    with pytest.raises(Refused, match=r"^X-Event-Type header is not text\.$"):
        read_headers(given_headers(X_Event_Type=value))


def test_headers_are_kept_as_they_were_received() -> None:
    """White space inside, commas, a prefix, UTF-8."""
    found = read_headers(given_headers(X_External_Id="a, b\tc \u20ac", X_Signature="sha256=AB"))
    assert found == {"x-signature": "sha256=AB", "x-external-id": "a, b\tc \u20ac", "x-event-type": "T"}


@pytest.mark.parametrize("length", ["-1", "+1", "1_0", "9" * 30, "0x2", "\u0662\u0662\u0662"])
def test_odd_lengths(length: str) -> None:
    """None of them is a length to read."""
    with pytest.raises(Refused) as refused:
        content_length(given_headers(Content_Length=length), 100)
    assert refused.value.status == 413


def test_encodings() -> None:
    """Identity is none."""
    assert content_length(given_headers(Content_Encoding="Identity"), 100) == 2
    with pytest.raises(Refused):
        content_length(given_headers(Content_Encoding="identity, gzip"), 100)


def test_a_forged_copy_does_not_stand_in_for_the_real_one() -> None:
    """The same webhook again has the same deduplication id; with another signature, id, type or body it has not."""
    headers = read_headers(given_headers())
    ids = {
        to_message(body, {**headers, **changes}, NOW, ordered=True).deduplication_id
        for body, changes in [
            (b"{}", {}),
            (b"{}", {"x-signature": "cd"}),
            (b"{}", {"x-external-id": "u2"}),
            (b"{}", {"x-event-type": "U"}),
            (b"{ }", {}),
        ]
    }
    assert len(ids) == 5
    again = to_message(b"{}", headers, datetime.now(UTC), ordered=True)
    assert again.deduplication_id in ids
    assert to_message(b"{}", headers, NOW, ordered=False).ordering_key is None
