"""Whose a message is that nobody could read: the member's id is found wherever it may stand, and only as a whole."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.dead_letters.record import DeadLetter
from consumer.member import Member
from consumer.mentions import mentions
from consumer.whose import Ownership

NOW = datetime(2026, 3, 16, tzinfo=UTC)
LONG = "member-0123456789"


def packed(body: Any) -> bytes:
    """A neutral envelope."""
    inner = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps({"provider": "sahha", "headers": {}, "body_b64": inner}).encode()


def enveloped(body: Any, **how: Any) -> bytes:
    """An envelope whose body is a text."""
    return json.dumps({"signed_at": "x", "body": json.dumps(body, **how), "signature": "00"}, **how).encode()


@pytest.mark.parametrize(
    ("data", "own"),
    [
        (b'{"user_id": "u1"}', "u1"),
        (b'[{"a": {"b": ["u1"]}}]', "u1"),
        (b'{"u1": 3}', "u1"),
        (b'{"user_id": "u1", "user_id": "u2"}', "u1"),
        (enveloped({"user_id": "u1"}), "u1"),
        (enveloped({"data": {"user_id": "jörg"}}), "jörg"),
        (enveloped({"data": {"user_id": "jörg"}}, ensure_ascii=False), "jörg"),
        (packed({"externalId": "u1"}), "u1"),
        (base64.b64encode(enveloped({"user_id": "u1"})), "u1"),
        (enveloped({"user_id": "u1", "more": "x" * 50})[:-40], "u1"),
        (enveloped({"user_id": "jörg 😀", "more": "x" * 50})[:-40], "jörg 😀"),
        (packed({"externalId": "u1", "more": "x" * 50})[:-41], "u1"),
        (b'\xff\xfe{"user_id":"u1"', "u1"),
        (rb'{"user_id": "\u0075\u0031"', "u1"),
        (b"user=member-0123456789&x=1", LONG),
        (b'{"user_id": 42}', "42"),
        (enveloped({"data": {"user_id": 42}}), "42"),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else value,
)
def test_an_id_is_found(data: bytes, own: str) -> None:
    """In JSON, in JSON that is a text, in base64, escaped, and in what is damaged."""
    assert mentions(data, [own], number_fields=["user_id"])


@pytest.mark.parametrize(
    ("data", "own"),
    [
        (b'{"user_id": "u12"}', "u1"),
        (b'{"note": "ask u1"}', "u1"),
        (b'{"value": 42, "at": "42.0"}', "42"),
        (b'{"user_id": "u12"', "u1"),
        (b"user=u1&x=1", "u1"),
        (b"user=member-01234567890&x=1", LONG),
        (packed({"externalId": "u12"}), "u1"),
        (b"", "u1"),
        (b'{"user_id": null}', "None"),
        (b'{"user_id": true}', "True"),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else value,
)
def test_another_id_is_not(data: bytes, own: str) -> None:
    """A part of another id, of a text or of a number is nobody's id."""
    assert not mentions(data, [own], number_fields=["user_id"])


@pytest.mark.parametrize(
    "raw",
    [b"\\" * 2**20, json.dumps({"a": "{" + "\\" * 2**19}).encode(), b"[" * 2**20, b"QUFB" * 2**18, b'"u1' * 2**18],
    ids=["backslashes", "backslashes in a text", "brackets", "base64", "quotes"],
)
def test_nobody_can_make_the_search_endless(raw: bytes) -> None:
    """Anybody may send something unsigned, up to a megabyte of it; the search takes no longer than reading does."""
    began = time.process_time()
    assert not mentions(raw, [LONG])
    assert time.process_time() - began < 5


ids = st.text(min_size=1, max_size=12)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(own=ids, around=trees, cut=st.integers(0, 30))
@example(own='"', around=None, cut=0)
@example(own="\\", around=None, cut=3)
def test_any_id_in_any_body_is_found(own: str, around: Any, cut: int) -> None:
    """However it is escaped, and also when the end of the message is missing."""
    raw = enveloped({"user_id": own, "data": around, "tail": "x" * 40})
    assert mentions(raw, [own])
    assert mentions(raw[: len(raw) - cut], [own])


@settings(max_examples=50)
@given(data=st.binary(max_size=200) | st.text(alphabet='{}[]":\\,u1', max_size=200).map(str.encode), own=ids)
@example(data=b"[" * 100_000, own="u1")
def test_no_bytes_break_the_search(data: bytes, own: str) -> None:
    """It answers, whatever a stranger sent."""
    assert mentions(data, [own]) in (True, False)


def letter(message: bytes = b"{}", *, provider: str = "thrive", **facts: Any) -> DeadLetter:
    """A dead letter of an unproven message, unless said otherwise."""
    values: dict[str, Any] = {"reason": "unsigned", "attempts": 1, "source": "s", "id": "i", **facts}
    times = dict.fromkeys(("accepted_at", "first_received_at", "dead_lettered_at"), NOW)
    return DeadLetter(provider=provider, message=message, **times, **values)


def owns(record: DeadLetter, **changes: Any) -> bool:
    return Ownership(Member(**{"user_id": "u1", **changes})).share_of(record) == "all"


def test_a_proven_event_is_of_the_member_it_names() -> None:
    """Not of one whom it only mentions."""
    raw = enveloped({"user_id": "u2", "friend": "u1"})
    assert owns(letter(raw, user_id="u1"))
    assert not owns(letter(raw, user_id="u2"))
    assert owns(letter(raw))


def test_headers_and_ordering_key_count_where_nobody_is_named() -> None:
    """Sahha says the external id in a header; queues are often ordered by the member."""
    headers = {"X-External-Id": "u1", "X-Event-Type": "T"}
    assert owns(letter(b'{"profileId": "p"}', provider="sahha", attributes={"headers": headers}))
    assert owns(letter(attributes={"ordering_key": "u1"}))
    assert not owns(letter(attributes={"ordering_key": "u1"}, user_id="u2"))
    assert not owns(letter(attributes={"ordering_key": "u12", "headers": {"a": "u12"}}))


def test_attributes_that_are_no_text_are_nobodys() -> None:
    """A line may say anything of its headers and its order."""
    odd: dict[str, Any] = {"ordering_key": ["u1"], "headers": {"a": ["u1"], "b": {"u1": 1}, "c": None}}
    assert not owns(letter(attributes=odd))


def test_a_profile_counts_when_it_is_given_and_sahhas() -> None:
    """An event without an external id is known by its profile."""
    raw = b'{"profileId": "p-1"}'
    assert not owns(letter(raw, provider="sahha"))
    assert owns(letter(raw, provider="sahha"), profile_ids=("p-1",))
    assert owns(letter(raw, provider="sahha", user_id="former"), profile_ids=("p-1",))
    assert not owns(letter(raw, provider="thrive"), profile_ids=("p-1",))


def test_an_account_is_no_profile() -> None:
    """Its id is in all that Sahha sends: given by mistake as a profile's, it must not erase everybody's."""
    raw = b'{"profileId": "p-1", "accountId": "a-1", "friends": ["p-2"]}'
    for account in ("a-1", "p-2"):
        assert not owns(letter(raw, provider="sahha", user_id="another"), profile_ids=(account,))
    assert not owns(letter(raw, provider="sahha"), profile_ids=("a-1",))
    assert owns(letter(packed({"profileId": "p-1"}), provider="sahha", user_id="another"), profile_ids=("p-1",))
    assert owns(letter(raw, provider="sahha"), profile_ids=("p-2",))


@pytest.mark.parametrize("given", [{"user_id": ""}, {"user_id": "u1", "profile_ids": ("p", "")}], ids=str)
def test_nobody_is_no_member(given: dict[str, Any]) -> None:
    """An empty text stands in many messages, of whomever they are."""
    with pytest.raises(ValueError, match="empty"):
        Member(**given)


def test_another_platform_is_left_alone_when_one_is_named() -> None:
    """The same id may be somebody else's there."""
    assert owns(letter(user_id="u1"), provider="thrive")
    assert not owns(letter(user_id="u1"), provider="sahha")


def test_the_ids_of_a_member_are_in_no_repr() -> None:
    """So that no log line has them by accident."""
    assert "u1" not in repr(Member("u1", profile_ids=("u1",)))
