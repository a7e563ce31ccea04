"""Noticing that a secret file has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from consumer.secret_files import read_secret_file, watch_secret_files


class Changes:
    """Collects what the watch reports, with the secrets read at that moment."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[list[str]] = asyncio.Queue()

    def __call__(self, path: Path) -> None:
        self.seen.put_nowait(read_secret_file(path))

    async def next(self) -> list[str]:
        return await asyncio.wait_for(self.seen.get(), 10)


class Warnings(logging.Handler):
    """Wakes whoever waits for the next warning."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.put_nowait(record.getMessage())

    async def next(self) -> str:
        return await asyncio.wait_for(self.texts.get(), 10)


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    handler, logger = Warnings(), logging.getLogger("consumer.secret_files")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)  # whatever a command that ran here before has set for all
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


@asynccontextmanager
async def watching(path: Path, interval: float = 30.0, *, there: bool = True) -> AsyncIterator[Changes]:
    changes, stop = Changes(), asyncio.Event()
    task = asyncio.create_task(
        watch_secret_files([path], stop=stop, on_change=changes, interval=interval, tell_first=there)
    )
    if there:
        await changes.next()  # what changes from here on is a change
    await asyncio.sleep(0.3)  # the system has to have begun to watch
    try:
        yield changes
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def test_new_secret_is_reported(tmp_path: Path) -> None:
    """A file written anew is reported, long before the next look of the slow kind."""
    path = tmp_path / "secrets"
    path.write_text("old\n", encoding="utf-8")
    async with watching(path) as changes:
        path.write_text("new\nold\n", encoding="utf-8")
        assert await changes.next() == ["new", "old"]


async def test_kubernetes_swap_is_reported(tmp_path: Path) -> None:
    """A mounted secret changes by a swapped link beside it, never by a write to the file."""
    for version in ("one", "two"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "secrets").write_text(version, encoding="utf-8")
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "secrets").symlink_to("..data/secrets")
    async with watching(tmp_path / "secrets") as changes:
        (tmp_path / "..tmp").symlink_to("..two")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        assert await changes.next() == ["two"]


@pytest.mark.parametrize("broken", [None, b"", b"\xff"], ids=["gone", "empty", "not text"])
async def test_unusable_file_keeps_the_old_secrets(tmp_path: Path, broken: bytes | None, warnings: Warnings) -> None:
    """A file that cannot be used is warned of and not reported; the next good one is."""
    path = tmp_path / "secrets"
    path.write_text("old", encoding="utf-8")
    async with watching(path, interval=0.1) as changes:
        if broken is None:
            path.unlink()
        else:
            path.write_bytes(broken)
        assert await warnings.next() == f"secret file {path} cannot be used, the secrets read before stay in use"
        path.write_text("old", encoding="utf-8")
        await asyncio.sleep(0.5)
        assert changes.seen.empty()
        path.write_text("new", encoding="utf-8")
        assert await changes.next() == ["new"]


async def test_contents_are_compared_where_nothing_can_be_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a folder to watch yet, the slow look finds the file once it is there."""
    caplog.set_level(logging.WARNING)
    path = tmp_path / "later" / "secrets"
    async with watching(path, interval=0.1, there=False) as changes:
        path.parent.mkdir()
        path.write_text("new", encoding="utf-8")
        assert await changes.next() == ["new"]
    assert "cannot watch" in caplog.text


async def test_secret_nobody_can_use_does_not_end_the_watch(tmp_path: Path, warnings: Warnings) -> None:
    """A failing listener is warned of by the name of its exception alone, and told of the next change."""
    path = tmp_path / "secrets"
    path.write_text("a", encoding="utf-8")
    stop = asyncio.Event()

    async def listener(changed: Path) -> None:
        raise ValueError(read_secret_file(changed)[0])

    task = asyncio.create_task(watch_secret_files([path], stop=stop, on_change=listener, interval=0.1))
    await asyncio.sleep(0.3)
    for secret in ("canary-1", "canary-2"):
        path.write_text(secret, encoding="utf-8")
        text = await warnings.next()
        assert "ValueError" in text
        assert "canary" not in text
    stop.set()
    await asyncio.wait_for(task, 10)


async def test_what_failed_for_another_reason_is_tried_again(tmp_path: Path, warnings: Warnings) -> None:
    """Without another change of the file, and with one warning for all tries."""
    path = tmp_path / "secrets"
    path.write_text("a", encoding="utf-8")
    stop, used, unusable = asyncio.Event(), asyncio.Event(), list[Path]()
    tries = 0

    def listener(_: Path) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError
        used.set()

    watch = watch_secret_files(
        [path], stop=stop, on_change=listener, interval=0.1, tell_first=True, on_unusable=unusable.append
    )
    task = asyncio.create_task(watch)
    assert "ValueError" in await warnings.next()
    await asyncio.wait_for(used.wait(), 10)
    stop.set()
    await asyncio.wait_for(task, 10)
    assert unusable == [path]
    assert tries == 3


async def test_cancelled_watch_leaves_the_stop_event_alone(tmp_path: Path) -> None:
    """Ending the watch does not stop whoever else waits for the same event."""
    path = tmp_path / "secrets"
    path.write_text("a", encoding="utf-8")
    stop = asyncio.Event()
    task = asyncio.create_task(watch_secret_files([path], stop=stop, on_change=Changes()))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not stop.is_set()


async def test_nothing_to_watch_returns_at_once() -> None:
    """Without secret files there is no task to keep."""
    await watch_secret_files([], stop=asyncio.Event(), on_change=Changes())
