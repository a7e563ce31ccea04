"""Whatever comes in: the right dead letter for the right reason, and the next message is handled."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.events import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, UnknownEvent
from tests.conformance.rig import Rig, effect, effects_table, lab_result, program, signed

MEBIBYTE = 1024 * 1024


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The local queue, which carries any bytes."""
    return Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue")})


def _now_signed(size: int) -> bytes:
    """A valid message of exactly so many bytes."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    body = program("sized")
    pad = size - len(signed({**body, "pad": ""}, signed_at=now))
    message = signed({**body, "pad": "x" * pad}, signed_at=now)
    assert len(message) == size
    return message


def _envelope(event_id: str, **changes: object) -> bytes:
    envelope = {**json.loads(signed(program(event_id))), **changes}
    return json.dumps({key: value for key, value in envelope.items() if value is not ...}).encode()


def _ago(**past: float) -> datetime:
    return datetime.now(UTC) - timedelta(**past)


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "unreadable"),
    "white space": (lambda: b" \r\n\t ", "unreadable"),
    "not JSON": (lambda: b"hello", "unreadable"),
    "XML": (lambda: b"<event/>", "unreadable"),
    "half an envelope": (lambda: signed(program("half"))[:-20], "unreadable"),
    "something after it": (lambda: signed(program("after")) + b"{}", "unreadable"),
    "a byte order mark": (lambda: b"\xef\xbb\xbf" + signed(program("bom")), "unreadable"),
    "UTF-16": (lambda: signed(program("utf16")).decode().encode("utf-16"), "unreadable"),
    "not UTF-8": (lambda: signed(program("latin", note="é")).replace(b"\\u00e9", b"\xe9"), "unreadable"),
    "NUL bytes": (lambda: b"\x00" * 100, "unreadable"),
    "NUL within": (lambda: signed(program("nul")).replace(b'"body"', b'\x00"body"'), "unreadable"),
    "a number": (lambda: b"42", "unreadable"),
    "null": (lambda: b"null", "unreadable"),
    "a text": (lambda: b'"{}"', "unreadable"),
    "an empty object": (lambda: b"{}", "unsigned"),
    "an empty array": (lambda: b"[]", "unreadable"),
    "an array of numbers": (lambda: b"[1,2]", "unreadable"),
    "an array nested 100,000 deep": (lambda: b"[" * 100_000, "unreadable"),
    "an object nested 100,000 deep": (lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "unreadable"),
    "a signed body nested 100,000 deep": (
        lambda: signed('{"event_id":"d","event_type":"program.updated","x":' + "[" * 100_000 + "]" * 100_000 + "}"),
        "unreadable",
    ),
    "a body of numbers without end": (lambda: signed('{"event_id":' + "9" * 100_000 + "}"), "unreadable"),
    "one byte too large": (lambda: _now_signed(MEBIBYTE + 1), "unreadable"),
    "a key of the envelope twice": (
        lambda: signed(program("twice"))[:-1] + b',"signature":"' + b"0" * 64 + b'"}',
        "unreadable",
    ),
    "a key of the body twice": (
        lambda: signed('{"event_id":"k","event_id":"k","event_type":"program.updated"}'),
        "unreadable",
    ),
    "a body that is an array": (lambda: signed("[1]"), "unreadable"),
    "a body that is no JSON": (lambda: signed("event"), "unreadable"),
    "no body": (lambda: _envelope("nobody", body=...), "unreadable"),
    "no signature": (lambda: _envelope("nosig", signature=...), "unsigned"),
    "a null signature": (lambda: _envelope("nullsig", signature=None), "unsigned"),
    "a signature of another type": (lambda: _envelope("numsig", signature=5), "bad_signature"),
    "an empty list of signatures": (lambda: _envelope("listsig", signature=[]), "unsigned"),
    "no time": (lambda: _envelope("notime", signed_at=...), "unreadable"),
    "another time": (lambda: _envelope("retimed", signed_at="2026-01-01T00:00:00Z"), "bad_signature"),
    "a time that is none": (lambda: signed(program("time"), signed_at="yesterday"), "unreadable"),
    "forged": (lambda: signed(program("forged"), secret="guessed"), "bad_signature"),
    "stale": (lambda: signed(program("stale"), signed_at=_ago(hours=73)), "stale"),
    "from the future": (lambda: signed(program("future"), signed_at=_ago(minutes=-6)), "stale"),
    "no event id": (lambda: signed({"event_type": "program.updated"}), "invalid_event"),
    "a number as event id": (lambda: signed({"event_id": 7, "event_type": "program.updated"}), "invalid_event"),
    "an empty event id": (lambda: signed({"event_id": "", "event_type": "program.updated"}), "invalid_event"),
    "no event type": (lambda: signed({"event_id": "t"}), "invalid_event"),
    "a wrong type in a known field": (lambda: signed(program("wrong", occurred_at=[1])), "invalid_event"),
    "a wrong type in data": (lambda: signed(lab_result("wrongdata", data={"lab_result_id": [1]})), "invalid_event"),
    "data that is no object": (lambda: signed(lab_result("textdata", data="all well")), "invalid_event"),
    "an unknown type": (lambda: signed({"event_id": "u", "event_type": "never.heard.of"}), "unknown_event"),
    "a type without a handler": (lambda: signed({"event_id": "n", "event_type": "coach.nudge.created"}), "unhandled"),
    "another provider's envelope": (
        lambda: json.dumps(
            {
                "provider": "sahha",
                "received_at": "2026-01-01T00:00:00Z",
                "headers": {},
                "body_b64": base64.b64encode(signed(program("other"))).decode(),
            }
        ).encode(),
        "unreadable",
    ),
}


@pytest.mark.parametrize("reason", sorted({reason for _, reason in CASES.values()}))
async def test_bad_messages(rig: Rig, reason: str) -> None:
    """Each is kept byte for byte with its reason, no handler sees it, and the honest ones around it are handled."""
    bad = {case: make() for case, (make, its_reason) in CASES.items() if its_reason == reason}
    table = effects_table()
    table.on(ProgramEvent, LabResultEvent)(effect)
    honest = [f"honest {number}" for number in range(len(bad) + 1)]
    messages = [signed(program(honest[0]))]
    for name, raw in zip(honest[1:], bad.values(), strict=True):
        messages += [raw, signed(program(name))]
    await rig.publish(messages)
    await rig.consume(table, MAX_ATTEMPTS="1")
    assert rig.effects() == Counter(honest)
    records = rig.dead_letters()
    kept = {_kept(record): record["reason"] for record in records}
    assert {case: kept.get(raw) for case, raw in bad.items()} == dict.fromkeys(bad, reason)
    assert len(records) == len(bad)
    assert (await rig.depth()).total == 0
    if reason in ("unsigned", "bad_signature", "stale", "unreadable"):
        assert {record[key] for record in records for key in ("event_id", "event_type", "user_id")} == {None}


def _kept(record: dict[str, str]) -> bytes:
    text = record["message"]
    return text.encode() if record["message_encoding"] == "utf-8" else base64.b64decode(text)


async def test_the_largest_message(rig: Rig) -> None:
    """A message of exactly 1 MiB is handled; so are many large ones at once, within the bytes allowed in hand."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    large = [signed(program(f"large{n}", pad="é" * 60_000)) for n in range(20)]
    await rig.publish([_now_signed(MEBIBYTE), *large])
    await rig.consume(table, MAX_IN_FLIGHT_BYTES="1MiB")
    assert rig.effects() == Counter(["sized", *(f"large{n}" for n in range(20))])
    assert rig.reasons() == Counter()


async def test_an_array_of_envelopes(rig: Rig) -> None:
    """Each envelope of an array has its own fate; a bad one harms none of the others."""
    table = effects_table()
    table.on(ProgramEvent)(effect)
    good = [signed(program(f"e{n}")) for n in range(3)]
    bad = signed(program("forged"), secret="guessed")
    await rig.publish([b"[" + b" ,\n".join([good[0], bad, good[1], good[0], good[2]]) + b"]"])
    await rig.consume(table)
    assert rig.effects() == Counter(["e0", "e1", "e2"])
    (record,) = rig.dead_letters()
    assert record["reason"] == "bad_signature"
    assert _kept(record) == bad
    assert (await rig.depth()).total == 0


async def test_an_array_in_which_some_fail(rig: Rig) -> None:
    """A retry of a delivery runs only the envelopes that have no outcome yet, and the worst end as dead letters."""
    table = effects_table()
    runs: Counter[str] = Counter()

    @table.on(ProgramEvent)
    async def handler(event: ProgramEvent, context: object) -> None:
        runs[event.event_id] += 1
        await effect(event, context)  # type: ignore[arg-type] # any context will do
        if event.event_id == "never" or (event.event_id == "later" and runs["later"] < 3):
            raise RuntimeError

    names = ["one", "never", "later", "two"]
    await rig.publish([b"[" + b",".join(signed(program(name)) for name in names) + b"]"])
    await rig.consume(table, MAX_ATTEMPTS="4")
    assert rig.effects() == Counter(["one", "two", "later"])
    assert [record["event_id"] for record in rig.dead_letters()] == ["never"]
    assert runs["never"] == 4
    assert rig.rows("SELECT count(*) FROM consumer_attempts") == [(0,)]


async def test_unknown_events_can_be_taken_or_dropped(rig: Rig) -> None:
    """`on(UnknownEvent)` takes what no type names; `unknown_events = ack` and `ignore` drop it, without a row."""
    unknown = signed({"event_id": "u", "event_type": "never.heard.of", "data": {"deep": [1]}})
    dropping = effects_table()
    dropping.ignore(NudgeEvent)
    await rig.publish([unknown, signed({"event_id": "n", "event_type": "coach.nudge.created"})])
    await rig.consume(dropping, UNKNOWN_EVENTS="ack")
    assert (rig.reasons(), rig.rows("SELECT count(*) FROM consumer_inbox")) == (Counter(), [(0,)])
    taking = effects_table()
    taking.on(UnknownEvent, DailyDeviceEvent)(effect)
    await rig.publish([unknown])
    await rig.consume(taking)
    assert rig.effects() == Counter(["u"])
