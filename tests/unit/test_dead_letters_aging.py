"""Dead letters that are older than `dead_letters.max_age` are deleted by the worker itself."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.app import App
from consumer.dead_letters import aging as aging_module
from consumer.dead_letters.aging import Aging, purge_expired
from consumer.dead_letters.archive import Archive, Purged
from consumer.dead_letters.file_archive import FileArchive
from consumer.dead_letters.file_fates import record_fates
from consumer.dead_letters.record import DeadLetter, decode, encode
from consumer.dead_letters.segments import new_segment
from consumer.dispatch import DispatchTable
from consumer.errors import DeadLetterError
from consumer.settings_loading import load_settings
from tests.conformance.rig import eventually

NOW = datetime.now(UTC)
DAY = 86400.0


def letter(days: float, name: str = "") -> DeadLetter:
    """A dead letter, put aside so many days ago."""
    at = NOW - timedelta(days=days)
    return DeadLetter(
        id=name or f"id-{days}",
        provider="thrive",
        source="labs",
        reason="rejected",
        attempts=1,
        accepted_at=at,
        first_received_at=at,
        dead_lettered_at=at,
        message=b"{}",
    )


def segment(folder: Path, *days: float, in_use: bool = False) -> Any:
    """A segment with dead letters of these ages, begun when the first was put aside."""
    one = new_segment(folder, now=NOW - timedelta(days=days[0]))
    one.append(b"".join(encode(letter(age)) for age in days))
    if not in_use:
        one.close()
    return one


def ages(folder: Path) -> list[str]:
    """What is left, by id."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    return [decode(line).id for line in lines]


def purged(folder: Path, max_age: float = 60 * DAY) -> Purged:
    """One pass."""
    return purge_expired(FileArchive([folder], missing_ok=True), max_age, now=NOW)


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    """With its fates, whatever its reason; the rest of a segment stays, byte by byte."""
    old, mixed, young = (segment(tmp_path, *days) for days in ((90, 61), (60.1, 60.05, 59.9), (1,)))
    record_fates(old.path, {"id-90": "failed"}, at=NOW)
    record_fates(mixed.path, {"id-60.1": "failed", "id-59.9": "failed"}, at=NOW)
    assert purged(tmp_path).removed == 4
    assert ages(tmp_path) == ["id-59.9", "id-1"]
    assert {path.name for path in tmp_path.iterdir()} == {
        mixed.path.name,
        f"{mixed.path.name}.fates",
        young.path.name,
    }
    assert purged(tmp_path).removed == 0


def test_nothing_is_there_to_purge(tmp_path: Path) -> None:
    """A worker that never put anything aside has no folder."""
    assert purged(tmp_path / "none").removed == 0


def test_segments_begun_lately_are_not_read(tmp_path: Path) -> None:
    """Nothing in them can be too old, and reading them every hour would cost."""
    path = segment(tmp_path, 1).path
    path.write_bytes(encode(letter(90)))  # no worker would write that
    assert purged(tmp_path).removed == 0
    assert ages(tmp_path) == ["id-90"]


def test_a_segment_in_use_is_left_alone(tmp_path: Path) -> None:
    """Until its writer closes it."""
    with closing(segment(tmp_path, 90, in_use=True)):
        assert len(purged(tmp_path).skipped) == 1
        assert ages(tmp_path) == ["id-90"]
    assert purged(tmp_path).removed == 1


def test_a_stop_ends_a_pass_at_its_next_line(tmp_path: Path) -> None:
    """The segment in hand stays whole, and no copy of it is left."""
    segment(tmp_path, 90, 80)
    asked: list[bool] = []

    def stopping() -> bool:
        asked.append(True)
        return len(asked) > 1

    archive = FileArchive([tmp_path])
    with suppress(Exception):
        purge_expired(archive, 60 * DAY, now=NOW, stopping=stopping)
    assert len(asked) == 2
    assert ages(tmp_path) == ["id-90", "id-80"]
    assert len(list(tmp_path.iterdir())) == 1


async def run(aging: Aging, until: Any) -> None:
    """Let the loop run until something holds."""
    task = asyncio.create_task(aging.run())
    await eventually(until, within=10.0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_worker_purges_by_itself(tmp_path: Path) -> None:
    """It counts what went and says so in one line, without an id."""
    segment(tmp_path, 90, 61, 1)
    expired: list[int] = []
    archive = lambda: FileArchive([tmp_path])  # noqa: E731 - as the worker opens it
    with capture_logs() as logs:
        await run(Aging(archive, 60 * DAY, expired=expired.append, every=0.01), lambda: bool(expired))
    assert expired == [2]
    assert ages(tmp_path) == ["id-1"]
    assert [(line["event"], line["lines"]) for line in logs] == [("dead_letters_expired", 2)]


async def test_a_store_that_refuses_is_warned_of_once(tmp_path: Path) -> None:
    """The loop goes on: a worker need not have the right to delete."""
    segment(tmp_path, 90)
    asked: list[bool] = []

    def refused() -> Archive:
        asked.append(True)
        raise DeadLetterError("access denied")

    with capture_logs() as logs:
        await run(Aging(refused, 60 * DAY, every=0.01), lambda: len(asked) >= 3)
    assert [line["event"] for line in logs] == ["dead_letters_not_purged"]
    assert "dead_letters.purge" in logs[0]["hint"]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, ["id-1"]),
        ({"dead_letters.purge": False}, ["id-90", "id-1"]),
        ({"dead_letters.max_age": "off", "inbox.retention": "forever"}, ["id-90", "id-1"]),
    ],
    ids=["by default", "purge is off", "no age is too old"],
)
async def test_a_worker_does_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], left: list[str]
) -> None:
    """It purges unless it is told not to, or nothing is ever too old."""
    monkeypatch.setattr(aging_module, "_EVERY", 0.05)
    settings = {
        "sources.labs.kind": "local",
        "sources.labs.path": str(tmp_path / "queue.db"),
        "thrive.signature.secrets": ["a secret for tests"],
        "database.url": f"sqlite:///{tmp_path}/consumer.db",
        "dead_letters.path": str(tmp_path / "dead"),
    }
    (tmp_path / "dead").mkdir()
    segment(tmp_path / "dead", 90, 1)
    loaded = load_settings(env={}, cwd=tmp_path, overrides={**settings, **given})
    async with App.opened(loaded, table=DispatchTable(), poll_wait=0.1) as app:
        await app.worker.run(idle_after=0.4)
    assert ages(tmp_path / "dead") == left
