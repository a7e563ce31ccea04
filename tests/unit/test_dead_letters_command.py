"""`consumer dead-letters`: what operators see, and what they do not."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest
from click.testing import CliRunner, Result

from consumer.cli.dead_letters import command
from consumer.dead_letters.archive import Entry
from consumer.dead_letters.file_archive import FileArchive
from consumer.dead_letters.file_fates import record_fates
from consumer.dead_letters.record import DeadLetter, encode
from consumer.dead_letters.sealing import sealer
from consumer.dead_letters.segments import new_segment

CANARY = "glucose 5.4"
MESSAGE = f'{{"value": "{CANARY}", "bell": "'.encode() + b'\x07"}'


def letter(number: int, *, reason: str = "rejected", event_type: str = "lab.result", user: str = "u1") -> DeadLetter:
    at = datetime(2026, 3, 16, 12, number, tzinfo=UTC)
    return DeadLetter(
        id=f"{number:02d}{'ab' * 11}",
        provider="thrive",
        source="labs",
        reason=reason,
        attempts=3,
        accepted_at=at,
        first_received_at=at,
        dead_lettered_at=at,
        message=MESSAGE,
        event_id="evt_1",
        event_type=event_type,
        user_id=user,
        detail=CANARY,
        error={"type": "ValueError", "handler": "handlers.store", "at": ["handlers/labs.py:3:store"]},
        attributes={"headers": {"X-Secret": CANARY}},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with three dead letters, the first of them handled by a replay, as the settings name it."""
    path = tmp_path / "dead"
    path.mkdir()
    segment = path / "20260316T120000.000000Z-1-aa.jsonl"
    records = [letter(1), letter(2, reason="stale"), letter(3, event_type="nudge", user="u2")]
    segment.write_bytes(b"".join(map(encode, records)))
    record_fates(segment, {letter(1).id: "handled"}, at=datetime(2026, 3, 17, tzinfo=UTC))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSUMER_DEAD_LETTERS__PATH", str(path))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def listed(*arguments: str) -> list[str]:
    result = run("list", "--json", *arguments)
    assert result.exit_code == 0
    return [row["id"][:2] for row in json.loads(result.stdout)]


def test_list_shows_no_content(folder: Path) -> None:
    """The list has a header and a line for each, and nothing of a message or a user."""
    result = run("list")
    assert result.exit_code == 0
    header, first, *rest = [line.split("\t") for line in result.stdout.splitlines()]
    assert header == ["id", "reason", "type", "source", "put aside", "attempts", "fate"]
    assert first == [letter(1).id, "rejected", "lab.result", "labs", "2026-03-16T12:01:00Z", "3", "handled"]
    assert len(rest) == 2
    assert CANARY not in result.output + run("list", "--json").output


def test_filters_choose(folder: Path) -> None:
    """Every filter narrows the list, and together they narrow it further."""
    assert listed() == ["01", "02", "03"]
    assert listed("--reason", "stale", "--reason", "rejected", "--type", "lab.*") == ["01", "02"]
    assert listed("--since", "2026-03-16T12:02", "--limit", "1") == ["02"]
    assert listed("--user", "u2") == ["03"]
    assert listed("--since", "1h") == []
    assert listed("--id", letter(2).id, "--id", letter(3).id[:8]) == ["02", "03"]


@pytest.mark.parametrize("arguments", [["--since", "soon"], ["--reason", "bad"], ["--limit", "0"], ["--id", "01"]])
def test_wrong_filter_is_wrong_usage(folder: Path, arguments: list[str]) -> None:
    """A filter that makes no sense ends with exit code 2."""
    assert run("list", *arguments).exit_code == 2


def test_empty_store_lists_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was never written to is no error."""
    monkeypatch.setenv("CONSUMER_DEAD_LETTERS__PATH", str(folder / "none"))
    assert listed() == []


def test_damaged_lines_are_told_on_stderr(folder: Path) -> None:
    """A half-written line is reported with its place, apart from the answer."""
    segment = folder / "20260316T130000.000000Z-1-aa.jsonl"
    segment.write_bytes(encode(letter(4))[:-40])
    result = run("list", "--json")
    assert len(json.loads(result.stdout)) == 3
    assert result.stderr == f"{segment}:1: half-written last line\n"


def test_show_hides_what_is_private(folder: Path) -> None:
    """Without --reveal there are facts of the failure only; with it, the message as it came."""
    hidden = run("show", letter(1).id[:6])
    assert hidden.exit_code == 0
    assert "handlers/labs.py:3:store" in hidden.stdout
    assert CANARY not in hidden.output + run("show", letter(1).id, "--json").output
    assert "evt_1" not in hidden.output
    revealed = run("show", letter(1).id, "--reveal")
    assert revealed.stdout_bytes.endswith(b"\n\n" + MESSAGE + b"\n")
    details = json.loads(run("show", letter(1).id, "--reveal", "--json").stdout)
    assert (details["message"].encode(), details["user_id"]) == (MESSAGE, "u1")


def test_show_refuses_what_is_not_one(folder: Path) -> None:
    """An id of none or of several is an error, too short a one wrong usage."""
    assert run("show", "ffff").exit_code == 1
    assert run("show", "01").exit_code == 2
    twin = letter(1)
    (folder / "2.jsonl").write_bytes(encode(twin).replace(twin.id.encode(), twin.id[:-1].encode() + b"0"))
    assert "several" in run("show", twin.id[:6]).stderr
    assert run("show", twin.id).exit_code == 0


def test_export_copies_lines_unchanged(folder: Path, tmp_path: Path) -> None:
    """An export is a segment of mode 0600 with the very lines, and never overwrites a file."""
    target = tmp_path / "out.jsonl"
    assert run("export", str(target), "--type", "lab.*").exit_code == 0
    assert target.read_bytes() == encode(letter(1)) + encode(letter(2, reason="stale"))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [one.record.id for one in FileArchive([target]).read() if isinstance(one, Entry)] == [
        letter(1).id,
        letter(2).id,
    ]
    again = run("export", str(target))
    assert (again.exit_code, again.stderr) == (1, f"Error: {target} is there already, and nothing is overwritten\n")
    assert run("export", "-", "--reason", "stale").stdout_bytes == encode(letter(2, reason="stale"))


def test_purge_needs_a_filter_and_yes(folder: Path) -> None:
    """Nothing is deleted by a purge without both."""
    for arguments in ([], ["--yes"], ["--limit", "1", "--yes"], ["--reason", "stale"]):
        assert run("purge", *arguments).exit_code == 2
    assert listed() == ["01", "02", "03"]


def test_purge_tells_what_it_did(folder: Path) -> None:
    """A purge deletes what was chosen in segments that nobody writes to, and counts; others can go later."""
    running = new_segment(folder)
    running.append(encode(letter(4, reason="stale")))
    result = run("purge", "--reason", "stale", "--yes", "--json")
    assert json.loads(result.stdout) == {"removed": 1, "kept": 2, "segments_in_use": 1}
    assert "try later" in result.stderr
    assert run("purge", "--handled", "--yes").stdout == "removed: 1, kept: 1, segments in use: 1\n"
    running.close()
    assert "try later" not in run("purge", "--handled", "--yes").stderr
    assert listed() == ["03", "04"]


def test_sealed_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed dead letters are listed without a key; revealing them, or choosing by user, takes the identity."""
    identity = pyrage.x25519.Identity.generate()
    segment = folder / "20260316T120000.000000Z-1-aa.jsonl"
    segment.write_bytes(encode(letter(1), seal=sealer([str(identity.to_public())])))
    assert listed() == ["01"]
    assert run("show", letter(1).id).exit_code == 0
    for refused in (run("show", letter(1).id, "--reveal"), run("list", "--user", "u1")):
        assert refused.exit_code == 2
        assert "identity_file" in refused.stderr
    key = tmp_path / "key.txt"
    key.write_text(str(identity))
    monkeypatch.setenv("CONSUMER_DEAD_LETTERS__IDENTITY_FILE", str(key))
    assert listed("--user", "u1") == ["01"]
    assert MESSAGE in run("show", letter(1).id, "--reveal").stdout_bytes


@pytest.mark.parametrize("name", [None, "list", "show", "export", "purge"])
def test_help_has_an_example(name: str | None) -> None:
    """Every command's help shows how it is used."""
    result = run(*([name] if name else []), "--help")
    assert result.exit_code == 0
    assert "Example: consumer dead-letters" in result.stdout


def test_an_event_type_makes_no_row_of_its_own(folder: Path) -> None:
    """Tabs, line ends and escapes in an event type are spelt out, so that a list has a line for each dead letter."""
    segment = folder / "20260316T130000.000000Z-1-aa.jsonl"
    segment.write_bytes(encode(letter(4, event_type="lab\n05abab\trejected\x1b[2J")))
    lines = run("list").stdout.splitlines()
    assert len(lines) == 5
    assert lines[-1].split("\t")[2] == r"lab\n05abab\trejected\x1b[2J"
