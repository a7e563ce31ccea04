"""Dead letters as lines and in files: nothing lost, nothing glued, nothing readable by others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters.archive import Entry, Problem
from consumer.dead_letters.file_archive import FileArchive
from consumer.dead_letters.file_store import FileStore
from consumer.dead_letters.record import (
    DeadLetter,
    SealedDeadLetter,
    broker_attributes,
    decode,
    encode,
    open_sealed,
    record_id,
)
from consumer.dead_letters.sealing import sealer, unsealer
from consumer.dead_letters.segments import closed, segments
from consumer.errors import DeadLetterError, SettingsError
from consumer.sources.base import Message

NOON = datetime(2026, 3, 16, 12, tzinfo=UTC)
CANARY = "glucose 5.4"


def letter(number: int = 0, **changes: object) -> DeadLetter:
    facts: dict[str, object] = {
        "id": record_id("labs", f"m{number}"),
        "provider": "thrive",
        "source": "labs",
        "event_id": f"evt_{number}",
        "event_type": "lab.result",
        "user_id": "u1",
        "reason": "rejected",
        "detail": CANARY,
        "error": {"type": "ValueError", "handler": "handlers.store", "at": ["handlers/labs.py:3:store"]},
        "attempts": 8,
        "accepted_at": NOON,
        "first_received_at": NOON + timedelta(seconds=1),
        "dead_lettered_at": NOON + timedelta(seconds=2),
        "message": CANARY.encode(),
        "attributes": {"message_id": f"m{number}", "index": 0, "headers": {"X-Event-Type": "labs"}},
    }
    return DeadLetter(**(facts | changes))  # type: ignore[arg-type]  # the changes are a test's own


@asynccontextmanager
async def store(folder: Path, **options: object) -> AsyncIterator[FileStore]:
    made = FileStore(folder, **options)  # type: ignore[arg-type]  # a test's own
    try:
        yield made
    finally:
        await made.close()


def found(folder: Path) -> list[Entry | Problem]:
    return list(FileArchive([folder]).read())


def ids(folder: Path) -> list[str]:
    return [entry.record.id for entry in found(folder) if isinstance(entry, Entry)]


def _is_closed(path: Path) -> bool:
    with closed(path) as is_closed:
        return is_closed


TEXTS = st.text() | st.text().map(lambda text: text + "\ud800")


@given(
    message=st.binary() | st.text().map(str.encode),
    texts=st.lists(st.none() | TEXTS, min_size=3, max_size=3),
    headers=st.dictionaries(st.text(), TEXTS),
    when=st.datetimes(timezones=st.timezones()).filter(lambda at: 1 < at.year < 9999),
)
def test_record_comes_back_as_it_was(
    message: bytes, texts: list[str | None], headers: dict[str, str], when: datetime
) -> None:
    """Any bytes, and any text in the fields, survive the way through a line, which is one line."""
    detail, event_id, user_id = texts
    attributes = {"headers": headers}
    record = letter(message=message, detail=detail, event_id=event_id, user_id=user_id, attributes=attributes)
    record = replace(record, dead_lettered_at=when)
    line = encode(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == replace(record, dead_lettered_at=when.astimezone(UTC))


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_nonsense_is_refused_in_one_way(line: bytes) -> None:
    """Whatever a line holds, reading it gives a record or a DeadLetterError."""
    with pytest.raises(DeadLetterError):
        decode(line)


@given(key=st.sampled_from(sorted(json.loads(encode(letter())))), value=st.none() | st.booleans() | st.just(CANARY))
def test_wrong_field_is_named_and_not_shown(key: str, value: object) -> None:
    """A line with a field of the wrong kind is refused by the field's name, never with its value."""
    line = json.loads(encode(letter())) | {key: value}
    try:
        decode(json.dumps(line).encode())
    except DeadLetterError as error:
        assert CANARY not in str(error)  # noqa: PT017  (both ways are right)


def test_line_has_exactly_the_published_fields() -> None:
    """The names in a line are those that other programs rely on."""
    assert list(json.loads(encode(letter()))) == [
        *("version", "id", "provider", "source", "event_id", "event_type", "user_id", "reason", "detail", "error"),
        *("attempts", "accepted_at", "first_received_at", "dead_lettered_at", "message", "message_encoding"),
        *("attributes", "consumer_version"),
    ]


def test_newer_format_is_told_from_a_broken_line() -> None:
    """A line of a later release says so, and what a later release adds to this format is ignored."""
    line = json.loads(encode(letter()))
    with pytest.raises(DeadLetterError, match="newer release: format 2"):
        decode(json.dumps(line | {"version": 2}).encode())
    assert decode(json.dumps(line | {"new": 1}).encode()) == letter()


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-14:00", "2026-03-16T08:00:00", ""])
def test_a_time_that_is_none_is_a_broken_line(time: str) -> None:
    """A damaged line is told of, and keeps nobody from reading the others."""
    line = json.loads(encode(letter()))
    with pytest.raises(DeadLetterError, match="accepted_at is not a time with a zone"):
        decode(json.dumps(line | {"accepted_at": time}).encode())


def test_repr_tells_nothing_of_a_person() -> None:
    """Neither the message nor what was read from it is in a record's repr."""
    shown = repr(letter(user_id=CANARY, event_id=CANARY, attributes={"headers": {"x": CANARY}}))
    assert CANARY not in shown
    assert "rejected" in shown


def test_id_is_stable_and_unambiguous() -> None:
    """The same envelope has the same id always, and different ones never share theirs by how names are joined."""
    assert record_id("labs", "m1") == record_id("labs", "m1", 0)
    names = [("labs", "m1", 0), ("labs", "m1", 1), ("labsm", "1", 0), ("labs", "m11", 0), ("l", "absm1", 0)]
    assert len({record_id(*name) for name in names}) == len(names)


def test_attributes_keep_the_brokers_facts() -> None:
    """Headers and the place in the message can be had back from a record."""
    message = Message(b"", "m1", None, NOON, receive_count=3, ordering_key="u1", headers={"X-Signature": "s"})
    record = letter(attributes=broker_attributes(message, index=2))
    assert (record.index, record.headers) == (2, {"X-Signature": "s"})
    assert record.attributes["receive_count"] == 3


class TestFileStore:
    async def test_records_are_there_when_append_returns(self, tmp_path: Path) -> None:
        """What was appended can be read at once, in order, from one segment that belongs to the process."""
        async with store(tmp_path / "a" / "b") as kept:
            await kept.append([letter(1), letter(2)])
            await kept.append([letter(3)])
            await kept.append([])
            assert [entry.record for entry in found(tmp_path / "a" / "b")] == [letter(1), letter(2), letter(3)]
            assert len(segments(tmp_path / "a" / "b")) == 1

    async def test_nobody_else_may_read(self, tmp_path: Path) -> None:
        """Folder 0700, segments 0600, whatever the umask."""
        before = os.umask(0)
        try:
            async with store(tmp_path / "dead") as kept:
                await kept.append([letter()])
        finally:
            os.umask(before)
        (segment,) = segments(tmp_path / "dead")
        assert stat.S_IMODE(segment.stat().st_mode) == 0o600
        assert stat.S_IMODE(segment.parent.stat().st_mode) == 0o700

    async def test_segments_roll(self, tmp_path: Path) -> None:
        """A segment that has reached its size is closed and a new one begun; nothing is lost between."""
        async with store(tmp_path, segment_bytes=1500) as kept:
            for number in range(10):
                await kept.append([letter(number)])
            paths = segments(tmp_path)
            assert len(paths) > 2
            states = []
            for path in paths:
                with closed(path) as is_closed:
                    states.append(is_closed)
            assert all(states[:-1])
        assert ids(tmp_path) == [letter(number).id for number in range(10)]

    async def test_segments_are_closed_after_a_while(self, tmp_path: Path) -> None:
        """Nobody has to wait for the next dead letter until a segment is old enough to be closed, and can be purged."""
        async with store(tmp_path, roll_after=0.05) as kept:
            for number in range(2):
                await kept.append([letter(number)])
                (path,) = segments(tmp_path)[number:]
                async with asyncio.timeout(10):
                    while not _is_closed(path):
                        await asyncio.sleep(0.01)
        assert ids(tmp_path) == [letter(number).id for number in range(2)]

    async def test_removed_folder_does_not_swallow_records(self, tmp_path: Path) -> None:
        """Records go to a new segment when the old one was removed under the process."""
        async with store(tmp_path / "dead") as kept:
            await kept.append([letter(1)])
            segments(tmp_path / "dead")[0].unlink()
            (tmp_path / "dead").rmdir()
            await kept.append([letter(2)])
        assert ids(tmp_path / "dead") == [letter(2).id]

    async def test_trouble_is_a_dead_letter_error(self, tmp_path: Path) -> None:
        """A store that cannot write says so from `append` and from `probe`, naming the folder."""
        (tmp_path / "file").touch()
        async with store(tmp_path / "file") as kept:
            for call in (kept.append([letter()]), kept.probe()):
                with pytest.raises(DeadLetterError, match="file"):
                    await call

    async def test_probe_leaves_nothing(self, tmp_path: Path) -> None:
        """A probe of a store that works leaves no file behind."""
        async with store(tmp_path) as kept:
            await kept.probe()
        assert os.listdir(tmp_path) == []  # noqa: PTH208  (nothing blocks here for long)

    async def test_unproven_messages_have_a_quota(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Forged messages beyond the quota are dropped, counted and warned of; proven ones are always kept."""
        size = len(encode(letter(0, reason="bad_signature")))
        dropped: list[int] = []
        async with store(tmp_path, unproven_limit=3 * size, on_dropped=dropped.append) as kept:
            forged = [letter(number, reason="bad_signature") for number in range(5)]
            await kept.append([*forged, letter(5)])
            await kept.append([letter(6, reason="unsigned"), letter(7)])
            assert kept.dropped_unproven == sum(dropped) == 3
        async with store(tmp_path, unproven_limit=3 * size) as kept:
            await kept.append([letter(8, reason="bad_signature")])
            assert kept.dropped_unproven == 1
        assert set(ids(tmp_path)) == {letter(number).id for number in (0, 1, 2, 5, 7)}
        assert [path.name.startswith("unproven-") for path in segments(tmp_path)].count(True) == 1
        assert "unproven_limit" in caplog.text
        assert CANARY not in caplog.text

    async def test_the_quota_is_for_whatever_nobody_is_known_to_have_signed(self, tmp_path: Path) -> None:
        """An unreadable message is under it unless its signature was good: else garbage could fill the disk."""
        size = len(encode(letter(0, reason="unreadable")))
        async with store(tmp_path, unproven_limit=2 * size) as kept:
            await kept.append([letter(number, reason="unreadable", proven=False) for number in range(4)])
            await kept.append([letter(number, reason="unreadable") for number in range(4, 8)])
            assert kept.dropped_unproven == 2
        assert set(ids(tmp_path)) == {letter(number).id for number in (0, 1, 4, 5, 6, 7)}

    @pytest.mark.parametrize("proven", [True, False])
    async def test_many_records_with_much_to_repeat_take_little_memory(self, tmp_path: Path, proven: bool) -> None:
        """Each envelope of an array is kept with the headers of its message, a megabyte perhaps; never all at once."""
        attributes = {"headers": {"much": "x" * 1_000_000}}
        records = [letter(number, proven=proven, attributes=attributes) for number in range(100)]
        async with store(tmp_path) as kept:
            await kept.append([letter(101)])
            tracemalloc.start()
            try:
                await kept.append(records)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < 40_000_000
        assert len(ids(tmp_path)) == 101

    async def test_cancelled_append_does_not_mix_lines(self, tmp_path: Path) -> None:
        """Appends that are cancelled under way never leave half a line, nor disturb those after them."""
        async with store(tmp_path) as kept:
            for number in range(20):
                call = asyncio.create_task(kept.append([letter(number, message=b"x" * 50_000)]))
                await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
            await kept.append([letter(99)])
        assert not any(isinstance(entry, Problem) for entry in found(tmp_path))
        assert ids(tmp_path)[-1] == letter(99).id

    @pytest.mark.parametrize("good", [0, 2])
    def test_partial_write_is_taken_back(self, tmp_path: Path, good: int) -> None:
        """When the disk is full in the middle of a line, no half of it stays and later records are whole."""
        run_script(
            f"""
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
            for number in range({good}):
                await kept.append([letter(number)])
            try:
                await kept.append([letter(7), letter(8, message=b"x" * 9000)])
            except DeadLetterError:
                await kept.append([letter(9)])
            """,
            tmp_path,
        )
        assert [entry.record.id for entry in found(tmp_path) if isinstance(entry, Entry)] == [
            letter(number).id for number in [*range(good), 9]
        ]
        assert not any(isinstance(entry, Problem) for entry in found(tmp_path))
        assert len(segments(tmp_path)) == (2 if good else 1)

    def test_killed_process_loses_nothing_it_had_confirmed(self, tmp_path: Path) -> None:
        """After SIGKILL every confirmed record is there, and the segment counts as closed."""
        endless = "for n in range(10**6):\n    await kept.append([letter(n)])\n    print(n, flush=True)"
        worker = subprocess.Popen(
            [sys.executable, "-c", script(endless), str(tmp_path)],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        assert worker.stdout is not None
        for _ in range(30):
            worker.stdout.readline()
        with closed(segments(tmp_path)[0]) as is_closed:
            assert not is_closed
        worker.send_signal(signal.SIGKILL)
        confirmed = 30 + worker.stdout.read().count(b"\n")
        worker.stdout.close()
        worker.wait()
        with closed(segments(tmp_path)[0]) as is_closed:
            assert is_closed
        assert ids(tmp_path)[:confirmed] == [letter(number).id for number in range(confirmed)]

    def test_processes_share_a_folder(self, tmp_path: Path) -> None:
        """Processes that write to one folder at once keep to their own segments and lose nothing."""
        code = "for n in range(50):\n    await kept.append([letter(f'{os.getpid()}-{n}')])"
        workers = [
            subprocess.Popen([sys.executable, "-c", script(code), str(tmp_path)], env=environment()) for _ in range(3)
        ]
        assert [worker.wait(60) for worker in workers] == [0, 0, 0]
        assert len(segments(tmp_path)) == 3
        assert len(set(ids(tmp_path))) == 150


def script(body: str) -> str:
    """A program that has a store in the folder it is given, and the letters of these tests."""
    lines = [
        "import asyncio, os, resource, signal, sys",
        "from pathlib import Path",
        "from test_dead_letters import FileStore, DeadLetterError, letter",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)",
        "async def main():",
        "    kept = FileStore(Path(sys.argv[1]))",
        *(f"    {line}" for line in body.splitlines()),
        "    await kept.close()",
        "asyncio.run(main())",
    ]
    return "\n".join(lines)


def run_script(body: str, folder: Path) -> None:
    import textwrap

    code = script(textwrap.dedent(body).strip("\n"))
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment(), timeout=60)


def environment() -> dict[str, str]:
    here = Path(__file__).resolve()
    return os.environ | {"PYTHONPATH": f"{here.parent}{os.pathsep}{here.parents[2]}"}


class TestSealing:
    @pytest.fixture
    def identity(self) -> pyrage.x25519.Identity:
        return pyrage.x25519.Identity.generate()

    @pytest.fixture
    def key_file(self, tmp_path: Path, identity: pyrage.x25519.Identity) -> Path:
        path = tmp_path / "key.txt"
        path.write_text(f"# created: 2026-03-16\n\n# public key: {identity.to_public()}\n{identity}\n")
        return path

    def test_sealed_line_shows_only_what_listing_needs(self, identity: pyrage.x25519.Identity, key_file: Path) -> None:
        """Without the key the reason and time can be read and nothing of the message; with it, everything."""
        line = encode(letter(message=b"\xff"), seal=sealer([str(identity.to_public())]))
        fields = json.loads(line)
        assert not {"message", "attributes", "event_id", "user_id", "detail", "error"} & set(fields)
        assert b"evt_0" not in line
        record = decode(line)
        assert isinstance(record, SealedDeadLetter)
        assert (record.reason, record.dead_lettered_at) == ("rejected", letter().dead_lettered_at)
        assert open_sealed(record, unsealer(key_file)) == letter(message=b"\xff")

    async def test_store_seals(self, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
        """A store with recipients writes nothing else to the disk."""
        async with store(tmp_path / "dead", seal=sealer([str(identity.to_public())])) as kept:
            await kept.append([letter()])
        assert CANARY.encode() not in segments(tmp_path / "dead")[0].read_bytes()
        assert ids(tmp_path / "dead") == [letter().id]

    def test_every_recipient_can_read(self, identity: pyrage.x25519.Identity, key_file: Path) -> None:
        """With several recipients each one's key opens the line; a stranger's does not."""
        other = pyrage.x25519.Identity.generate()
        seal = sealer([str(other.to_public()), str(identity.to_public())])
        assert unsealer(key_file)(seal(b"x")) == b"x"
        with pytest.raises(DeadLetterError, match="another key"):
            unsealer(key_file)(sealer([str(other.to_public())])(b"x"))

    @pytest.mark.parametrize("keys", [[], ["age1nonsense"], ["ssh-ed25519 AAAA"]])
    def test_wrong_recipient_names_the_setting(self, keys: list[str]) -> None:
        """A recipient that is no age key is a wrong setting, not repeated."""
        with pytest.raises(SettingsError, match=r"^dead_letters\.recipients") as refused:
            sealer(keys)
        assert "nonsense" not in str(refused.value)

    @pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"AGE-SECRET-KEY-1CANARY\n", b"\xff\n"])
    def test_wrong_identity_file_names_the_setting(self, tmp_path: Path, content: bytes | None) -> None:
        """An identity file that is missing, empty or something else is a wrong setting; no line of it is repeated."""
        path = tmp_path / "wrong.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError, match=r"^dead_letters\.identity_file") as refused:
            unsealer(path)
        assert "CANARY" not in str(refused.value)

    def test_missing_extra_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without pyrage, recipients are refused with the command that installs it."""
        monkeypatch.setitem(sys.modules, "pyrage", None)
        with pytest.raises(SettingsError, match=r"pip install 'health-event-consumer\[age\]'"):
            sealer(["age1x"])


def test_one_append_is_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of a hundred records costs one fsync of the segment."""
    synced: list[float] = []
    real = os.fsync

    def counting(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            synced.append(time.monotonic())
        real(handle)

    async def go() -> None:
        async with store(tmp_path) as kept:
            await kept.append([letter()])
            monkeypatch.setattr(os, "fsync", counting)
            await kept.append([letter(number) for number in range(100)])

    asyncio.run(go())
    assert len(synced) == 1
