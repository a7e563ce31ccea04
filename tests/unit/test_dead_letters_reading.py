"""Finding dead letters again, what became of them, and deleting them."""

from __future__ import annotations

import json
import stat
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters.archive import Entry, Problem, Purged, Unseal
from consumer.dead_letters.file_archive import FileArchive
from consumer.dead_letters.file_fates import fates_path, read_fates, record_fates
from consumer.dead_letters.filters import Filter, parse_time
from consumer.dead_letters.record import DeadLetter, encode
from consumer.dead_letters.sealing import sealer, unsealer
from consumer.dead_letters.segments import new_segment, segments
from consumer.errors import DeadLetterError, NotConfigured

NOON = datetime(2026, 3, 16, 12, tzinfo=UTC)


def letter(identity: str, **changes: object) -> DeadLetter:
    record = DeadLetter(
        id=identity,
        provider="thrive",
        source="labs",
        reason="rejected",
        attempts=1,
        accepted_at=NOON,
        first_received_at=NOON,
        dead_lettered_at=NOON,
        message=b"glucose 5.4",
        event_type="lab.result",
        user_id="u1",
    )
    return replace(record, **changes)  # type: ignore[arg-type]  # the changes are a test's own


def segment(folder: Path, name: str, records: Sequence[DeadLetter | bytes]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(one if isinstance(one, bytes) else encode(one) for one in records))
    return path


def ids(folder: Path, chosen: Filter | None = None) -> list[str]:
    found = FileArchive([folder]).read(chosen)
    return [entry.record.id for entry in found if isinstance(entry, Entry)]


def problems(folder: Path) -> list[Problem]:
    return [found for found in FileArchive([folder]).read() if isinstance(found, Problem)]


def purge(folder: Path, chosen: Filter, *, unseal: Unseal | None = None, handled: bool = False) -> Purged:
    return FileArchive([folder]).purge(chosen.chooser(unseal), handled=handled, limit=chosen.limit)


class TestReading:
    def test_oldest_segment_comes_first(self, tmp_path: Path) -> None:
        """Segments of proven and of unproven messages are read together, by the time in their names."""
        segment(tmp_path, "20260316T100000.000000Z-1-aa", [letter("b")])
        segment(tmp_path, "unproven-20260316T090000.000000Z-1-aa", [letter("a")])
        segment(tmp_path, "20260316T110000.000000Z-1-aa", [letter("c")])
        (tmp_path / "20260316T100000.000000Z-1-aa.jsonl.fates").write_text("")
        assert ids(tmp_path) == ["a", "b", "c"]

    def test_doubled_line_counts_once(self, tmp_path: Path) -> None:
        """A line written twice, in one segment or in two, is one dead letter."""
        segment(tmp_path, "1", [letter("a"), letter("a"), letter("b")])
        segment(tmp_path, "2", [letter("a"), letter("c")])
        assert ids(tmp_path) == ["a", "b", "c"]

    def test_half_line_is_reported(self, tmp_path: Path) -> None:
        """A line that a crash cut off is told with its place; what stands before it is read."""
        path = segment(tmp_path, "1", [letter("a"), encode(letter("b"))[:-30]])
        assert ids(tmp_path) == ["a"]
        assert problems(tmp_path) == [Problem(str(path), 2, "half-written last line")]
        assert str(problems(tmp_path)[0]) == f"{path}:2: half-written last line"

    def test_half_line_of_a_running_process_says_so(self, tmp_path: Path) -> None:
        """While a process still holds the segment, its half line may be one that is being written."""
        running = new_segment(tmp_path)
        running.append(encode(letter("a"))[:-30])
        assert "being written now" in problems(tmp_path)[0].text
        running.close()

    def test_whole_line_without_its_newline_counts(self, tmp_path: Path) -> None:
        """A file that was edited and lost its last newline loses no dead letter by it."""
        segment(tmp_path, "1", [encode(letter("a")).rstrip()])
        assert ids(tmp_path) == ["a"]

    def test_damaged_lines_are_reported_and_passed(self, tmp_path: Path) -> None:
        """Zeros after a power cut, another format or nonsense do not hide the lines behind them."""
        newer = json.dumps({"version": 9}).encode() + b"\n"
        segment(tmp_path, "1", [b"\0" * 4096 + b"\n", letter("a"), newer, b"{}\n", letter("b")])
        assert ids(tmp_path) == ["a", "b"]
        assert [problem.place for problem in problems(tmp_path)] == [1, 3, 4]
        assert "newer release" in problems(tmp_path)[1].text

    def test_missing_path_is_an_error(self, tmp_path: Path) -> None:
        """A path that was named and is not there is not taken for an empty one."""
        with pytest.raises(DeadLetterError, match="no such file"):
            list(FileArchive([tmp_path / "nowhere"]).read())
        assert list(FileArchive([tmp_path / "nowhere"], missing_ok=True).read()) == []

    def test_limit_and_fate_come_along(self, tmp_path: Path) -> None:
        """A limit counts what was chosen, and an entry tells what became of its line."""
        path = segment(tmp_path, "1", [letter(name) for name in "abcd"])
        record_fates(path, {"b": "handled"}, at=NOON)
        chosen = Filter(ids=("b", "c", "d"), limit=2)
        found = list(FileArchive([path]).read(chosen))
        assert [(one.record.id, one.place, one.fate) for one in found if isinstance(one, Entry)] == [
            ("b", 2, "handled"),
            ("c", 3, None),
        ]

    def test_memory_is_flat(self, tmp_path: Path) -> None:
        """Reading ten thousand lines takes no more memory than reading a thousand."""
        peaks = []
        for count in (1000, 10_000):
            path = segment(tmp_path, str(count), [letter(f"{number:024d}") for number in range(count)])
            tracemalloc.start()
            assert sum(1 for _ in FileArchive([path]).read()) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 100_000

    def test_user_of_sealed_lines_needs_the_key(self, tmp_path: Path) -> None:
        """Choosing by user is refused where users cannot be seen, and works with the identity."""
        identity = pyrage.x25519.Identity.generate()
        key = tmp_path / "key.txt"
        key.write_text(str(identity))
        seal = sealer([str(identity.to_public())])
        path = segment(tmp_path, "1", [encode(letter("a"), seal=seal), encode(letter("b", user_id="u2"), seal=seal)])
        by_user = Filter(users=("u2",))
        assert ids(tmp_path) == ["a", "b"]
        with pytest.raises(NotConfigured, match="identity_file"):
            list(FileArchive([path]).read(by_user))
        (entry,) = FileArchive([path]).read(by_user, unseal=unsealer(key))
        assert isinstance(entry, Entry)
        assert entry.record == letter("b", user_id="u2")


class TestFilters:
    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            (Filter(), "abcd"),
            (Filter(ids=("a", "d", "x")), "ad"),
            (Filter(reasons=("stale", "crashed")), "bc"),
            (Filter(types=("lab.*",)), "ab"),
            (Filter(types=("nudge", "lab.[!r]*")), "bc"),
            (Filter(types=("*",)), "abc"),
            (Filter(sources=("scores",)), "c"),
            (Filter(providers=("sahha",), users=("u1",)), ""),
            (Filter(users=("u2",)), "b"),
            (Filter(since=NOON + timedelta(hours=1)), "bcd"),
            (Filter(since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=2)), "b"),
        ],
    )
    def test_criteria_must_all_hold(self, chosen: Filter, expected: str) -> None:
        """Values of one kind are alternatives, kinds must hold together, times are half-open."""
        hours = [NOON + timedelta(hours=number) for number in range(4)]
        letters = [
            letter("a"),
            letter("b", reason="stale", event_type="lab.panel", user_id="u2", dead_lettered_at=hours[1]),
            letter("c", reason="crashed", source="scores", event_type="nudge", dead_lettered_at=hours[2]),
            letter("d", event_type=None, dead_lettered_at=hours[3]),
        ]
        assert "".join(one.id for one in letters if chosen.matches(one)) == expected

    def test_only_a_limit_is_an_empty_filter(self) -> None:
        """A limit alone chooses nothing."""
        assert Filter(limit=3).empty
        assert not Filter(until=NOON).empty

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-03-16", datetime(2026, 3, 16, tzinfo=UTC)),
            ("2026-03-16T08:00", datetime(2026, 3, 16, 8, tzinfo=UTC)),
            ("2026-03-16T08:00:00Z", datetime(2026, 3, 16, 8, tzinfo=UTC)),
            ("2026-03-16T08:00+02:00", datetime(2026, 3, 16, 6, tzinfo=UTC)),
            ("2h", NOON - timedelta(hours=2)),
            ("P1D", NOON - timedelta(days=1)),
        ],
    )
    def test_times_are_iso_or_ago(self, text: str, expected: datetime) -> None:
        """ISO 8601 means that time, UTC unless it says otherwise; a duration means that long ago."""
        assert parse_time(text, now=NOON) == expected

    @given(st.text())
    def test_other_times_are_refused(self, text: str) -> None:
        """Whatever is given for a time, it is one, with a zone, or refused."""
        try:
            assert parse_time(text, now=NOON).tzinfo is not None
        except ValueError as error:
            assert "expected a time" in str(error)  # noqa: PT017  (both ways are right)


class TestFates:
    def test_what_is_done_stays_done(self, tmp_path: Path) -> None:
        """The last fate counts, except that nothing undoes a handled line."""
        path = segment(tmp_path, "1", [letter("a")])
        record_fates(path, {"a": "failed", "b": "handled"}, at=NOON)
        record_fates(path, {"a": "handled", "b": "failed"}, at=NOON)
        assert read_fates(path) == {"a": "handled", "b": "handled"}
        assert stat.S_IMODE(fates_path(path).stat().st_mode) == 0o600

    def test_half_a_fate_is_none(self, tmp_path: Path) -> None:
        """A fate cut off by a crash is forgotten, and the next one is not glued to it."""
        path = segment(tmp_path, "1", [letter("a")])
        record_fates(path, {"a": "handled"}, at=NOON)
        with fates_path(path).open("ab") as file:
            file.write(b'{"id": "b", "fate": "han')
        record_fates(path, {"c": "handled"}, at=NOON)
        assert read_fates(path) == {"a": "handled", "c": "handled"}

    def test_no_fates_is_no_error(self, tmp_path: Path) -> None:
        """A segment that was never replayed has no fates."""
        assert read_fates(tmp_path / "1.jsonl") == {}


class TestPurge:
    def test_only_the_chosen_lines_go(self, tmp_path: Path) -> None:
        """Chosen lines go, others stay byte for byte with their fates, and an empty segment is removed."""
        half = encode(letter("z"))[:-9]
        first = segment(tmp_path, "1", [letter("a"), b"nonsense\n", letter("b", reason="stale"), half])
        second = segment(tmp_path, "2", [letter("c", reason="stale")])
        record_fates(first, {"a": "failed", "b": "failed"}, at=NOON)
        record_fates(second, {"c": "failed"}, at=NOON)
        done = purge(tmp_path, Filter(reasons=("stale",)))
        assert (done.removed, done.kept, [problem.place for problem in done.problems]) == (2, 3, [2, 4])
        assert first.read_bytes() == encode(letter("a")) + b"nonsense\n" + half
        assert read_fates(first) == {"a": "failed"}
        assert {path.name for path in tmp_path.iterdir()} == {first.name, fates_path(first).name}
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}

    def test_open_segments_are_left_alone(self, tmp_path: Path) -> None:
        """What a running process still writes to is skipped and told of; once it is closed, it is purged."""
        running = new_segment(tmp_path)
        running.append(encode(letter("a")))
        done = purge(tmp_path, Filter(ids=("a",)))
        assert (done.removed, done.skipped) == (0, [str(running.path)])
        running.close()
        assert purge(tmp_path, Filter(ids=("a",))).removed == 1
        assert segments(tmp_path) == []

    def test_handled_lines_can_be_chosen(self, tmp_path: Path) -> None:
        """What a replay has settled can be purged alone; a limit bounds how many go."""
        path = segment(tmp_path, "1", [letter(name) for name in "abcd"])
        record_fates(path, {"a": "handled", "b": "failed", "c": "duplicate", "d": "handled"}, at=NOON)
        assert purge(tmp_path, Filter(limit=2), handled=True).removed == 2
        assert ids(tmp_path) == ["b", "d"]

    def test_nothing_chosen_changes_nothing(self, tmp_path: Path) -> None:
        """A purge that matches nothing leaves the very files."""
        path = segment(tmp_path, "1", [letter("a")])
        before = path.stat().st_ino
        assert purge(tmp_path, Filter(ids=("x",))).removed == 0
        assert path.stat().st_ino == before

    def test_left_over_of_a_crash_does_no_harm(self, tmp_path: Path) -> None:
        """A purge killed before its rename left a file that is no segment; the next purge uses it up."""
        path = segment(tmp_path, "1", [letter("a"), letter("b")])
        path.with_name(path.name + ".new").write_bytes(b"half of")
        assert ids(tmp_path) == ["a", "b"]
        assert purge(tmp_path, Filter(ids=("a",))).removed == 1
        assert [found.name for found in tmp_path.iterdir()] == [path.name]
        assert ids(tmp_path) == ["b"]

    def test_user_of_sealed_lines_needs_the_key(self, tmp_path: Path) -> None:
        """Deleting a user's dead letters works on sealed lines with the identity, and is refused without."""
        identity = pyrage.x25519.Identity.generate()
        key = tmp_path / "key.txt"
        key.write_text(str(identity))
        seal = sealer([str(identity.to_public())])
        segment(tmp_path, "1", [encode(letter("a"), seal=seal), encode(letter("b", user_id="u2"), seal=seal)])
        with pytest.raises(NotConfigured):
            purge(tmp_path, Filter(users=("u2",)))
        assert purge(tmp_path, Filter(users=("u2",)), unseal=unsealer(key)).removed == 1
        assert ids(tmp_path) == ["a"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Whoever can put a link into the folder gets no other file emptied, and no copy that others may read."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    folder = tmp_path / "dead"
    folder.mkdir()
    path = segment(folder, "20260316T090000.000000Z-1-aa", [letter("a"), letter("b")])
    (folder / f"{path.name}.new").symlink_to(victim)
    assert purge(folder, Filter(ids=("a",))).removed == 1
    assert ids(folder) == ["b"]
    fates_path(path).symlink_to(victim)
    with pytest.raises(DeadLetterError):
        record_fates(path, {"b": "handled"}, at=NOON)
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
