"""What a Storage Queue's text means in bytes, and how bytes are put into text so that they come back the same."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from consumer.errors import SourceRefused
from consumer.sources.base import Message, Outgoing
from consumer.sources.storage_queue_check import oldest
from consumer.sources.storage_queue_messages import (
    LONGEST_DELAY,
    LONGEST_MESSAGE,
    Receipt,
    body_of,
    entry,
    fits,
    to_message,
)
from consumer.sources.storage_queue_pages import RawMessage, read_page

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENVELOPE = b'{"signed_at": "2026-03-16T08:00:00Z", "signature": "ab", "body": "{}"}'


def encoded(body: bytes) -> str:
    return base64.b64encode(body).decode()


@pytest.mark.parametrize(
    "body",
    [
        ENVELOPE,
        b"[" + ENVELOPE + b"]",
        b" \r\n\t" + ENVELOPE + b"\r\n",
        b"\xef\xbb\xbf" + ENVELOPE,
        b'{"not utf-8": "\xff"}',
        b"two\r\nlines",
        b" white space ",
        b"\x00",
    ],
)
def test_base64_of_what_is_json_or_needs_it_is_decoded(body: bytes) -> None:
    """Base64 of a JSON object or array, or of text that XML would change or refuse, is what it holds."""
    assert body_of(encoded(body)) == body


def test_white_space_around_base64_of_json_is_nothing() -> None:
    """A sender's line feed after the base64 of an event does not hide the event."""
    assert body_of(f"{encoded(ENVELOPE)}\n") == ENVELOPE


@pytest.mark.parametrize(
    "text",
    [
        ENVELOPE.decode(),
        "late",
        "deadbeef",
        encoded(b"plain words"),
        encoded(b"\xff\xfe binary"),
        encoded(b"two\r\nlines") + "\n",
        "AAB=",
        encoded(ENVELOPE)[:-1] + "*",
        encoded(ENVELOPE)[:-3],
        encoded(ENVELOPE).replace("I", "-"),
        "",
        "\u00e9\u4e2d",
        '"a JSON string"',
    ],
)
def test_anything_else_stays_as_it_is(text: str) -> None:
    """What is not base64 of such content is not touched, whatever it may be."""
    assert body_of(text) == text.encode()


def test_a_lone_surrogate_is_bytes_too() -> None:
    """Text that is no text becomes bytes that are no UTF-8, and no error."""
    assert body_of("\ud800") == b"\xed\xa0\x80"


@given(st.text())
@example("A000")
@example("QTAwMA==")
def test_what_is_sent_comes_back(text: str) -> None:
    """Any text arrives byte for byte, through XML as Python writes and any parser reads it."""
    body = text.encode(errors="replace")
    sent = entry(Outgoing(body), name="labs")["content"]
    element = ET.Element("MessageText")
    element.text = sent
    carried = ET.fromstring(ET.tostring(element, encoding="utf-8")).text or ""
    assert carried == sent == sent.strip()
    assert body_of(carried) == body


@given(st.from_regex(r"\s?([A-Za-z0-9+/]{4}){1,2}\s?|[A-Za-z0-9+/]{2}==", fullmatch=True))
@example("AAAA")
@example("AAB=")
@example(encoded(b"two\r\nlines"))
def test_junk_that_looks_like_base64_is_not_lost(text: str) -> None:
    """Junk that is not an event stays the bytes it is, or is at least the same text again when it is sent on."""
    body = body_of(text)
    assume(body.strip()[:1] not in {b"{", b"["})
    assert text.encode() == body or text == entry(Outgoing(body), name="labs")["content"]


def test_json_travels_readable() -> None:
    """An envelope is sent as it is, so that other readers and people see it."""
    assert entry(Outgoing(ENVELOPE), name="labs") == {"content": ENVELOPE.decode(), "visibility_timeout": None}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Outgoing(b"\xff\xfe"), "not UTF-8"),
        (Outgoing(b"x" * (LONGEST_MESSAGE + 1)), "64 KiB"),
        (Outgoing(b"\r" * (LONGEST_MESSAGE * 3 // 4 + 1)), "64 KiB"),
        (Outgoing(b"x", delay=LONGEST_DELAY + 1), "7 days"),
    ],
)
def test_what_the_queue_cannot_carry_is_refused(message: Outgoing, words: str) -> None:
    """Bytes that are no text, a message that is too large and a delay that is too long are refused in one line."""
    with pytest.raises(SourceRefused, match=f"^source labs: [^\n]*{words}"):
        entry(message, name="labs")


@pytest.mark.parametrize(
    ("body", "fit"),
    [
        (ENVELOPE, True),
        (b"x" * LONGEST_MESSAGE, True),
        (b"x" * (LONGEST_MESSAGE + 1), False),
        (b"\r" + b"x" * (LONGEST_MESSAGE * 3 // 4 - 1), True),
        (b"\r" + b"x" * (LONGEST_MESSAGE * 3 // 4), False),
        (b'{"\xff": 1}', True),
        (b"\xed\xa0\x80", False),
    ],
)
def test_what_fits(body: bytes, fit: bool) -> None:
    """It can be told beforehand what the queue carries, base64 that some text needs included."""
    assert fits(body) is fit


def test_delays_are_whole_seconds() -> None:
    """A delay is rounded up: never sooner than asked for."""
    assert entry(Outgoing(b"x", delay=1.2), name="labs")["visibility_timeout"] == 2


def raw(**changes: object) -> RawMessage:
    values = {
        "id": "one",
        "pop_receipt": "receipt",
        "inserted_on": NOW,
        "expires_on": NOW + timedelta(days=7),
        "dequeue_count": 3,
        "content": encoded(ENVELOPE),
    }
    return RawMessage(**{**values, **changes})  # type: ignore[arg-type]


def test_facts_of_a_message() -> None:
    """The queue's id, times, count and receipt are kept with the decoded body."""
    message = to_message(raw(), lease_until=7.0)
    assert (message.body, message.message_id, message.receive_count) == (ENVELOPE, "one", 3)
    assert message.receipt == Receipt("one", "receipt")
    assert (message.accepted_at, message.expires_at) == (NOW, NOW + timedelta(days=7))
    assert (message.lease_until, message.ordering_key, dict(message.headers)) == (7.0, None, {})


def test_a_message_that_never_expires() -> None:
    """The year 9999 is how the service says never."""
    assert to_message(raw(expires_on=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)), lease_until=0).expires_at is None


def page(*texts: str) -> str:
    items = "".join(
        "<QueueMessage><MessageId>m</MessageId><InsertionTime>Sun, 01 Mar 2026 12:00:00 GMT</InsertionTime>"
        "<ExpirationTime>Sun, 08 Mar 2026 12:00:00 GMT</ExpirationTime><PopReceipt>r</PopReceipt>"
        f"<TimeNextVisible>Sun, 01 Mar 2026 12:00:30 GMT</TimeNextVisible><DequeueCount>3</DequeueCount>"
        f"<MessageText>{text}</MessageText></QueueMessage>"
        for text in texts
    )
    return f'\ufeff<?xml version="1.0" encoding="utf-8"?><QueueMessagesList>{items}</QueueMessagesList>'


def test_a_page_no_parser_takes() -> None:
    """Characters that XML forbids, raw or as references, are read as what they are; the other messages too."""
    found = read_page(page(encoded(ENVELOPE), "a\x01b\ufffe", "&#x1f;&#0;&#65534;&#xD800;", "&lt;&#x41;&amp;#x1;&#xD;"))
    assert found is not None
    assert [one.content for one in found] == [encoded(ENVELOPE), "a\x01b\ufffe", "\x1f\0\ufffe\ud800", "<A&#x1;\r"]
    assert found[0] == raw(id="m", pop_receipt="r")


@pytest.mark.parametrize(
    ("others", "meant"),
    [
        ("\U000f0001\U000f0002", "\U000f0001\U000f0002"),
        ("\U0010ffff\U0010fffe", "\U0010ffff\U0010fffe"),
        ("&#x10FFFF;&#x0010fffe;&#01114109;", "\U0010ffff\U0010fffe\U0010fffd"),
    ],
)
def test_a_page_no_parser_takes_changes_nothing_else(others: str, meant: str) -> None:
    """Rare characters, raw or as references, stay what they are beside forbidden ones: a signature may depend on it."""
    found = read_page(page("\x01\x02\ufffe", others))
    assert found is not None
    assert [one.content for one in found] == ["\x01\x02\ufffe", meant]


@pytest.mark.parametrize(
    "text",
    ["", "<html><p>Sign in</html>", "<Error/>", json.dumps({}), page("x").replace("3<", "x<"), page("x")[:-20],
     page("x").replace("PopReceipt", "Other")],
)  # fmt: skip
def test_a_reply_that_is_no_page(text: str) -> None:
    """Anything else is not taken for a page."""
    assert read_page(text) is None


def waiting(age: timedelta, *, life: timedelta | None = timedelta(days=7)) -> Message:
    return Message(b"{}", "one", None, NOW - age, expires_at=None if life is None else NOW - age + life)


@pytest.mark.parametrize(
    ("message", "ok", "words"),
    [
        (None, True, "nothing is waiting"),
        (waiting(timedelta(hours=1)), True, "waited 1h of the 7d"),
        (waiting(timedelta(days=4)), False, "waited 4d of the 7d after which the queue deletes it"),
        (waiting(timedelta(days=400), life=None), True, "never expires"),
        (waiting(-timedelta(seconds=5)), True, "waited 0"),
    ],
)
def test_how_long_messages_wait(message: Message | None, ok: bool, words: str) -> None:
    """A first message beyond half of its life is a warning: the queue is about to delete events."""
    finding = oldest(message, now=NOW)
    assert finding.ok is ok
    assert ok or finding.warning
    assert words in finding.detail
