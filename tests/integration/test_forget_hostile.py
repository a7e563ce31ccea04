"""`consumer forget` and what it does not expect: unreadable files, messages of several members, other encodings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumer.dead_letters.record import encode
from consumer.signatures import ThriveSignature
from tests.integration.test_forget import CANARY, MEMBER, OTHER, SECRET, Kept, body, letter, theirs


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A worker with a SQLite file."""
    return Kept(tmp_path, f"sqlite:///{tmp_path}/consumer.db")


def test_an_id_out_of_an_editor(kept: Kept) -> None:
    """Some put a mark before the text, with which nobody would be found; another encoding is said to be one."""
    kept.put_aside(*map(encode, theirs()))
    result = kept.run("--yes", "--no-handlers", stdin=f"\ufeff{MEMBER}\r\n")
    assert (result.exit_code, kept.found(CANARY)) == (0, [])
    result = kept.run("--yes", "--no-handlers", stdin=f"{MEMBER}\r\n".encode("utf-16"))
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr


def test_a_segment_that_cannot_be_read_keeps_nothing_else(kept: Kept) -> None:
    """It is told of, in the dry run too, and the others are gone through all the same."""
    kept.put_aside(*map(encode, theirs()))
    kept.segment.with_name("20250101T000000.000000Z-1-aa.jsonl").mkdir()
    for arguments in (["--dry-run"], []):
        code, answer = kept.forget("--no-handlers", *arguments)
        assert (code, answer["erased"][0]["count"]) == (1, len(theirs()))
        (left,) = answer["left"]
        assert (left["count"], left["why"]) == (1, "cannot be looked into: see the lines above")
    assert kept.found(CANARY) == []


def test_a_message_that_holds_others_events_stays_and_is_told_of(kept: Kept) -> None:
    """As a dead-letter queue has arrays: proven now, they would be lost to the others for ever."""
    sign = ThriveSignature(secrets=[SECRET]).sign
    mine, mention, other = sign(body(MEMBER)), json.dumps({"friend": MEMBER}).encode(), sign(body(OTHER))
    shared = [letter(number, b"[" + one + b"," + other + b"]") for number, one in enumerate((mine, mention))]
    kept.put_aside(*map(encode, shared), encode(letter(3, b"[" + mine + b"," + mention + b"]")))
    for arguments in (["--dry-run"], []):
        code, answer = kept.forget("--no-handlers", *arguments)
        assert (code, answer["erased"][0]["count"]) == (1, 1)
        (left,) = answer["left"]
        assert (left["where"], left["count"]) == ("dead letters", 2)
        assert "with others' events" in left["why"]
    assert kept.segment.read_bytes() == b"".join(map(encode, shared))
