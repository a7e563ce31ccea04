"""Reading messages strictly and by their exact bytes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.envelope import (
    MAX_ENVELOPES,
    Members,
    instant,
    object_content,
    read_members,
    split,
    unwrap_neutral,
    wrap_neutral,
)
from consumer.errors import Unreadable

NOW = datetime(2026, 3, 16, 8, 0, tzinfo=UTC)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=6), json_values, max_size=6)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")])


def refused(raw: bytes | str) -> bool:
    try:
        object_content(raw)
    except Unreadable:
        return True
    return False


@settings(deadline=None)
@given(objects, separators, st.booleans(), st.text(" \t\r\n", max_size=3))
def test_an_object_reads_as_json_has_it(
    value: dict[str, Any], gaps: tuple[str, str], ascii_only: bool, blank: str
) -> None:
    """Every valid object reads to what the standard library reads, whatever its white space and escapes."""
    text = blank + json.dumps(value, separators=gaps, ensure_ascii=ascii_only) + blank
    assert object_content(text) == json.loads(text)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    assert object_content(raw) == json.loads(text)


@settings(deadline=None)
@given(objects, st.lists(json_values, min_size=20, max_size=30), st.booleans())
def test_a_long_last_member_reads_as_json_has_it(value: dict[str, Any], long: list[Any], tail: bool) -> None:
    """A body with a long member, last or not, reads to the same as any other."""
    body = {**value, "data": {"long": long, "text": "x" * 600}} | ({"after": {"a": 1}} if tail else {})
    text = json.dumps(body)
    assert object_content(text) == json.loads(text)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Whatever the bytes: a dictionary that the standard library agrees with, or `Unreadable`."""
    try:
        content = object_content(raw)
    except Unreadable:
        return
    assert content == json.loads(raw)


@settings(deadline=None)
@given(objects, st.data())
def test_mutated_objects_are_never_read_more_freely_than_strict_json(
    value: dict[str, Any], data: st.DataObject
) -> None:
    """One changed, lost or added character: what still opens is valid JSON with the same meaning."""
    text = json.dumps({**value, "data": {"text": "y" * 700}})
    at = data.draw(st.integers(0, len(text)))
    change = data.draw(st.sampled_from(["", '"', "}", "{", ",", ":", "\\", "0", "\x00", "]", " "]))
    mutant = text[:at] + change + text[at + data.draw(st.integers(0, 2)) :]
    try:
        content = object_content(mutant)
    except Unreadable:
        return
    assert content == json.loads(mutant)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b'"text"',
        b"[]",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b'{"a":1,}',
        b'{"a" 1}',
        b'{"a":1 "b":2}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":[Infinity]}',
        b'{"a":{"b":-Infinity}}',
        b'{"a":"\x01"}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b'{"a":1} {}',
        b'{"a":1}\x00',
        b'{"a":1}\x0b',
        b'\xa0{"a":1}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"data":{"a":' + b"9" * 5000 + b"}}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_not_one_strict_object_is_unreadable(raw: bytes) -> None:
    """Only one complete object in UTF-8 is read; numbers beyond reason and nesting without end are refused too."""
    assert refused(raw)


def test_endless_nesting_does_not_bring_the_interpreter_down() -> None:
    """A process that reads 100,000 nested arrays and objects lives on."""
    program = (
        "from consumer.envelope import object_content, split\n"
        "from consumer.errors import Unreadable\n"
        "bad = [b'{\"a\":' + b'[' * 100000 + b']' * 100000 + b'}', b'{\"a\":' * 100000 + b'1' + b'}' * 100000]\n"
        "for read, raw in [(object_content, bad[0]), (object_content, bad[1]), (split, b'[' + bad[0] + b']')]:\n"
        "    try:\n"
        "        read(raw)\n"
        "    except Unreadable:\n"
        "        print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["refused"] * 3


@pytest.mark.parametrize(
    "member",
    [
        '"k":"{"',
        '"k":"{%s"' % ("x" * 200),
        '"k":{"a":"%s"}' % ("x" * 200),
        '"k":"{}"',
        '"k":[]',
        '"k": 1 ',
        '"\\u006b":1',
    ],
)
def test_a_megabyte_of_members_takes_no_longer_than_its_size_asks(member: str) -> None:
    """However a forged message is made, reading it takes time in proportion to its length."""
    text = "{" + ",".join([member] * ((1 << 20) // len(member))) + "}"
    start = time.process_time()
    with contextlib.suppress(Unreadable):
        assert len(read_members(text).names) > 1000
    assert time.process_time() - start < 0.5


def test_an_object_has_a_bounded_number_of_members() -> None:
    """A message of a megabyte cannot be 200,000 members to walk; a list or an object deeper down may be long."""

    def members(count: int) -> str:
        return "{" + ",".join(f'"{n}":1' for n in range(count)) + "}"

    assert len(read_members(members(10_000)).names) == 10_000
    assert refused(members(10_001))
    assert len(read_members(f'{{"data":{members(20_000)}}}').values["data"]) == 20_000


@pytest.mark.parametrize("raw", ['{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"a":{},"b":2,"a":{}}', '{"":1,"":2}'])
def test_a_body_with_a_repeated_name_is_unreadable(raw: str) -> None:
    """A name twice at the body's top level is refused, however it is spelled and even with equal values."""
    assert refused(raw)


def test_a_repeated_name_hidden_behind_or_before_a_long_member_is_found() -> None:
    """The length of a body changes nothing about what is refused."""
    long = '"data":{"note":"' + "n" * 2000 + '"}'
    assert refused("{" + long + ',"data":{}}')
    assert refused('{"event_id":"a",' + long + ',"event_id":"b"}')
    assert refused('{"data":{},' + long + "}")
    assert not refused('{"event_id":"a",' + long + "}")


def test_deeper_down_the_last_of_a_repeated_name_wins() -> None:
    """Only the top level is strict about repeated names."""
    assert object_content('{"data":{"a":1,"a":2}}') == {"data": {"a": 2}}
    long = "n" * 2000
    assert object_content('{"data":{"a":1,"n":"' + long + '","a":2}}') == {"data": {"n": long, "a": 2}}


def test_a_decoders_complaint_does_not_carry_the_message_along() -> None:
    """The exception for a broken message holds no byte of it, not even chained."""
    canary = "7f3a" * 4
    raw = json.dumps({"name": canary}).replace("}", canary).encode()
    with pytest.raises(Unreadable) as caught:
        object_content(raw)
    assert canary not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_members_know_their_exact_text() -> None:
    """A value that is no string keeps the characters it was written with, a string gives its decoded ones."""
    members = read_members('{ "n" : 1.50E+1 ,"s":"\\u00e9" , "o" :{ "b" : [ ] } , "t":true}', {"o": {}})
    assert members.text_of(["n"]) == "1.50E+1"
    assert members.text_of(["s"]) == "é"
    assert members.text_of(["o"]) == '{ "b" : [ ] }'
    assert members.text_of(["o", "b"]) == "[ ]"
    assert isinstance(members.find(["o"]), Members)
    assert members.find(["o", "b"]) == []
    assert members.find(["o", "x"]) is None
    assert members.find(["n", "x"]) is None


def test_a_repeated_field_is_refused_when_it_is_looked_for_and_only_then() -> None:
    """Two values for one field are ambiguous; two values nobody asks for are not."""
    members = read_members('{"a":1,"b":{"c":1,"c":2},"a":1,"x":0}', {"b": {}})
    assert members.find(["x"]) == 0
    for path in (["a"], ["b", "c"]):
        with pytest.raises(Unreadable):
            members.find(path)


@settings(deadline=None)
@given(st.lists(objects, min_size=1, max_size=5), separators, st.text(" \t\r\n", max_size=3))
def test_an_array_splits_into_its_exact_members(envelopes: list[Any], gaps: tuple[str, str], blank: str) -> None:
    """Each envelope of an array comes out as the bytes it was written with."""
    texts = [json.dumps(envelope, separators=gaps) for envelope in envelopes]
    raw = blank + "[" + blank + (blank + "," + blank).join(texts) + blank + "]" + blank
    assert split(raw.encode()) == [text.encode() for text in texts]


@pytest.mark.parametrize("raw", [b"", b"{}", b" {}", b"text", b"\xff", b"1", b'"["', b"\xef\xbb\xbf[{}]"])
def test_a_message_that_is_no_array_is_its_own_envelope(raw: bytes) -> None:
    """Anything that does not begin as an array is handed on untouched, to be judged there."""
    assert split(raw) == [raw]


@pytest.mark.parametrize(
    "raw", [b"[]", b"[ ]", b"[{}", b"[{},]", b"[{}{}]", b"[{}] x", b"[[{}]]", b"[1]", b"[{},null]", b"[\xff]", b"[{]"]
)
def test_a_malformed_array_is_unreadable(raw: bytes) -> None:
    """An array that is cut, empty or of other things than objects is refused as a whole."""
    with pytest.raises(Unreadable):
        split(raw)


def test_an_array_holds_a_bounded_number_of_envelopes() -> None:
    """A forged message cannot become any number of dead letters."""
    assert len(split(b"[" + b",".join([b"{}"] * MAX_ENVELOPES) + b"]")) == MAX_ENVELOPES
    with pytest.raises(Unreadable):
        split(b"[" + b",".join([b"{}"] * (MAX_ENVELOPES + 1)) + b"]")


@settings(deadline=None)
@given(st.binary(), st.dictionaries(st.text(), st.text()), st.text(min_size=1))
def test_a_neutral_envelope_brings_back_what_was_put_in(body: bytes, headers: dict[str, str], provider: str) -> None:
    """Wrapping and unwrapping keeps body, headers, provider and time."""
    try:
        raw = wrap_neutral(provider=provider, body=body, headers=headers, received_at=NOW)
    except UnicodeEncodeError:
        return
    neutral = unwrap_neutral(raw)
    assert neutral is not None
    assert (neutral.provider, neutral.received_at, neutral.headers, neutral.body) == (provider, NOW, headers, body)
    assert split(raw) == [raw]


def test_a_neutral_envelope_shows_neither_headers_nor_body() -> None:
    """Its repr, as found in a traceback, holds no health data and no signature."""
    neutral = unwrap_neutral(wrap_neutral(provider="p", body=b"canary", headers={"h": "canary"}, received_at=NOW))
    assert "canary" not in repr(neutral)


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"not json",
        b'{"signed_at":"x","signature":"y","body":{"provider":"sahha","body_b64":"e30="}}',
        b'{"signed_at":"x","signature":"y","body":"{\\"provider\\":1,\\"body_b64\\":\\"e30=\\"}"}',
        b'{"signed_at":"x","signature":"y","body":"{}","note":"\\"body_b64\\""}',
        b'{"signed_at":"x","signature":"y","body":"{}","note":"body_b64"}',
    ],
)
def test_other_messages_are_not_taken_for_neutral_envelopes(raw: bytes) -> None:
    """The words of a neutral envelope inside a text or deeper down mean nothing."""
    assert unwrap_neutral(raw) is None


GOOD = {"provider": "sahha", "received_at": NOW.isoformat(), "headers": {"x": "y"}, "body_b64": "e30="}


@pytest.mark.parametrize(
    "change",
    [
        {"provider": ""},
        {"provider": 1},
        {"received_at": None},
        {"received_at": "yesterday"},
        {"received_at": 1773648000},
        {"headers": None},
        {"headers": {"x": 1}},
        {"headers": ["x"]},
        {"body_b64": "e30"},
        {"body_b64": " e30="},
        {"body_b64": "e3 0="},
        {"body_b64": None},
    ],
)
def test_a_malformed_neutral_envelope_is_unreadable(change: dict[str, Any]) -> None:
    """Every part must be there, of its type, and the body strict base64."""
    with pytest.raises(Unreadable):
        unwrap_neutral(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"provider"', '"provider":"thrive","provider"'),
        ('"body_b64"', '"body_b64":"e30=","body_b64"'),
        ('"x"', '"x":"other","x"'),
    ],
)
def test_a_neutral_envelope_with_a_repeated_name_is_unreadable(old: str, new: str) -> None:
    """Two bodies, providers or equal header names in one neutral envelope are ambiguous."""
    with pytest.raises(Unreadable):
        unwrap_neutral(json.dumps(GOOD).replace(old, new).encode())


def test_a_relay_must_say_when_with_a_time_zone() -> None:
    """A naive time is refused when wrapping, where it can still be mended."""
    with pytest.raises(ValueError, match="time zone"):
        wrap_neutral(provider="p", body=b"", headers={}, received_at=NOW.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-16T08:00:00Z", NOW),
        ("2026-03-16T08:00:00", NOW),
        ("2026-03-16 08:00", NOW),
        ("2026-03-16T09:00:00.250+01:00", NOW + timedelta(milliseconds=250)),
        ("2026-03-16T08:00:00.1234567Z", NOW + timedelta(microseconds=123456)),
        ("1773648000", NOW),
        ("1773648000000", NOW),
        ("1773648000.5", NOW + timedelta(seconds=0.5)),
        ("1.773648e9", NOW),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("", None),
        ("soon", None),
        ("NaN", None),
        ("1e99", None),
        ("99999999999999999", None),
        ("2026-13-01", None),
        (" 1773648000", None),
        ("1_000", None),
        ("\u0661\u0662", None),
        ("\ud800", None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_times_are_read_in_every_form_in_use(text: str, expected: datetime | None) -> None:
    """ISO 8601 with any offset or none, seconds and milliseconds since 1970; anything else is no time."""
    assert instant(text) == expected


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_time_or_none(text: str) -> None:
    """No text makes reading a time fail, and every time read is in UTC."""
    at = instant(text)
    assert at is None or at.utcoffset() == timedelta(0)


@settings(deadline=None)
@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))  # noqa: DTZ001  zoned below
def test_a_written_time_reads_back(naive: datetime, minutes: int) -> None:
    """Whatever the offset, the instant is the one that was written."""
    at = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert instant(at.isoformat()) == at
