"""The embedded queue, as the worker sees it: durable, shared by processes, like SQS in what it promises."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from consumer.errors import SettingsError, SourceRefused, SourceUnavailable
from consumer.settings import SourceSettings
from consumer.sources.base import Depth, Message, Outgoing
from consumer.sources.local import LocalSource

VISIBILITY = 60.0
DRAIN = """
import asyncio, sys
from consumer.settings import SourceSettings
from consumer.sources.local import LocalSource

async def drain(path):
    source = LocalSource(SourceSettings(name="labs", kind="local", path=path))
    await source.open()
    while messages := await source.receive(7):
        print(*(message.message_id for message in messages), sep="\\n")
        assert await source.acknowledge(messages) == []
    await source.close()

asyncio.run(drain(sys.argv[1]))
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queues" / "labs.db"


def settings(path: Path, **more: object) -> SourceSettings:
    return SourceSettings.model_validate(
        {"name": "labs", "kind": "local", "path": path, "visibility_timeout": VISIBILITY, "poll_wait": 0.05, **more}
    )


@asynccontextmanager
async def opened(path: Path, clock: Callable[[], float] = time.time, **more: object) -> AsyncIterator[LocalSource]:
    source = LocalSource(settings(path, **more), clock=clock)
    await source.open()
    try:
        yield source
    finally:
        await source.close()


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.body for message in messages]


def let_others_read(path: Path) -> None:
    path.chmod(0o644)


def file_content(path: Path) -> bytes:
    return path.read_bytes()


def make_something_else(path: Path, content: bytes | None) -> bytes:
    """Write a file that is no queue: these bytes, or another program's database; return what it holds."""
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    else:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE health (value TEXT)")
        other.commit()
        other.close()
    return path.read_bytes()


async def test_message_arrives_as_it_was_sent(path: Path, clock: Clock) -> None:
    """Bytes, headers, key and the time of sending come out as they went in."""
    async with opened(path, clock) as source:
        await source.send([Outgoing(b"\x00\xff{}", headers={"X-Event-Type": "é"}, ordering_key="u1")])
        (message,) = await source.receive(10)
    assert (message.body, message.headers, message.ordering_key) == (b"\x00\xff{}", {"X-Event-Type": "é"}, "u1")
    assert message.accepted_at.timestamp() == clock.now
    assert message.accepted_at.tzinfo is not None
    assert message.receive_count == 1
    assert message.expires_at is None
    assert 0 < message.lease_until - time.monotonic() <= VISIBILITY


async def test_unsettled_message_survives_a_restart(path: Path, clock: Clock) -> None:
    """What was received and not acknowledged comes back to a new process once its lease is over, counted."""
    async with opened(path, clock) as source:
        await source.send([Outgoing(b"a")])
        (first,) = await source.receive(10)
    async with opened(path, clock) as source:
        assert await source.receive(10) == []
        clock.now += VISIBILITY
        (again,) = await source.receive(10)
    assert (again.message_id, again.receive_count) == (first.message_id, 2)


async def test_stale_receipts_settle_nothing(path: Path, clock: Clock) -> None:
    """Once a message was handed out again, the first receipt neither deletes, renews nor releases it."""
    async with opened(path, clock) as source:
        await source.send([Outgoing(b"a")])
        (first,) = await source.receive(1)
        clock.now += VISIBILITY
        (second,) = await source.receive(1)
        for failures in (
            await source.acknowledge([first]),
            await source.extend([first]),
            await source.release([first], 0),
        ):
            assert [(failure.message, failure.kind) for failure in failures] == [(first, "gone")]
        assert await source.acknowledge([second]) == []
        assert await source.depth() == Depth(visible=0)


async def test_batch_answers_for_each_message(path: Path, clock: Clock) -> None:
    """One message already gone does not keep the others of the call from being settled."""
    async with opened(path, clock) as source:
        await source.send([Outgoing(b"a"), Outgoing(b"b")])
        first, second = await source.receive(10)
        assert await source.acknowledge([first]) == []
        assert [failure.message for failure in await source.acknowledge([first, second])] == [first]
        assert (await source.depth()).total == 0


async def test_release_and_extend_move_the_lease(path: Path, clock: Clock) -> None:
    """A released message waits for its delay, a renewed one for its lease; depth tells both apart."""
    async with opened(path, clock) as source:
        await source.send([Outgoing(b"a"), Outgoing(b"b")])
        first, second = await source.receive(10)
        clock.now += VISIBILITY - 1
        first.lease_until = 0.0
        assert await source.extend([first]) == []
        assert first.lease_until > time.monotonic()
        assert await source.release([second], 5) == []
        assert await source.depth() == Depth(visible=0, invisible=1, delayed=1)
        clock.now += 5
        assert bodies(await source.receive(10)) == [b"b"]
        clock.now += VISIBILITY
        assert sorted(bodies(await source.receive(10))) == [b"a", b"b"]


async def test_released_head_blocks_its_lane_only(path: Path, clock: Clock) -> None:
    """A head in back-off keeps its followers waiting, and nobody else."""
    async with opened(path, clock) as source:
        await source.send(
            [Outgoing(body, ordering_key=key) for body, key in ((b"a1", "a"), (b"a2", "a"), (b"b1", "b"))]
        )
        (head, *_) = received = await source.receive(10)
        assert sorted(bodies(received)) == [b"a1", b"a2", b"b1"]
        assert await source.release([head], 30) == []
        assert await source.release(received[1:], 0) == []
        assert bodies(await source.receive(10)) == [b"b1"]
        clock.now += 30
        assert bodies(await source.receive(10)) == [b"a1", b"a2"]


async def test_busy_lane_leaves_room_for_others(path: Path, clock: Clock) -> None:
    """A lane with a long backlog does not fill a whole receive while other lanes have something ready."""
    async with opened(path, clock) as source:
        await source.send([Outgoing(b"%d" % n, ordering_key="busy") for n in range(50)])
        await source.send([Outgoing(b"quiet", ordering_key="quiet"), Outgoing(b"loose")])
        assert {b"quiet", b"loose"} <= set(bodies(await source.receive(10)))


async def test_retention_forgets_old_messages(path: Path, clock: Clock) -> None:
    """With a retention, messages say when they expire and are gone after it, in order or held as well."""
    async with opened(path, clock, options={"retention": "1h"}) as source:
        await source.send([Outgoing(b"old", ordering_key="u1"), Outgoing(b"old too")])
        held, _ = await source.receive(10)
        assert held.expires_at is not None
        assert held.expires_at.timestamp() == clock.now + 3600
        clock.now += 1800
        await source.send([Outgoing(b"young", ordering_key="u1")])
        clock.now += 1800
        assert bodies(await source.receive(10)) == [b"young"]
        assert [failure.kind for failure in await source.acknowledge([held])] == ["gone"]
        assert (await source.depth()).total == 1


async def test_empty_receive_waits_and_wakes_for_a_send(path: Path) -> None:
    """An empty receive waits, and a message sent through the same source ends the wait at once."""
    async with opened(path, poll_wait=1.0) as source:
        await source.receive(1)
        started = time.monotonic()
        receiving = asyncio.create_task(source.receive(1))
        await asyncio.sleep(0.1)
        assert not receiving.done()
        await source.send([Outgoing(b"a")])
        assert bodies(await receiving) == [b"a"]
        assert time.monotonic() - started < 0.5


async def test_interrupt_ends_receives(path: Path) -> None:
    """After an interrupt the receive under way and those after it return nothing, promptly, and take nothing."""
    async with opened(path, poll_wait=1.0) as source:
        started = time.monotonic()
        receiving = asyncio.create_task(source.receive(1))
        await asyncio.sleep(0.02)
        source.interrupt()
        assert await receiving == []
        await source.send([Outgoing(b"a")])
        assert await source.receive(1) == []
        assert time.monotonic() - started < 0.5
        assert await source.depth() == Depth(visible=1)


async def test_several_processes_drain_one_file(path: Path) -> None:
    """Processes that share the file, one of them sending meanwhile, hand out every message exactly once."""
    async with opened(path) as source:
        await source.send([Outgoing(b"x" * 200, ordering_key=f"u{n % 20}" if n % 2 else None) for n in range(600)])
        workers = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", DRAIN, str(path), stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        for _ in range(20):
            await source.send([Outgoing(b"late")] * 10)
        outputs = [output for output, _ in await asyncio.gather(*(worker.communicate() for worker in workers))]
        assert [worker.returncode for worker in workers] == [0, 0, 0]
        ids = b"".join(outputs).split()
        assert len(ids) == len(set(ids)) == 800
        assert await source.depth() == Depth(visible=0)


async def test_files_are_for_the_owner_only(path: Path) -> None:
    """The file, its log and its index are mode 0600 in a folder 0700, whatever the umask."""
    before = os.umask(0)
    try:
        async with opened(path) as source:
            await source.send([Outgoing(b"a")])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_check_tells_of_an_open_mode(path: Path) -> None:
    """`check` says that the queue works, and warns when others may read it."""
    async with opened(path) as source:
        assert [finding.ok for finding in await source.check()] == [True]
        let_others_read(path)
        assert [(finding.ok, finding.warning) for finding in await source.check()] == [(True, False), (False, True)]


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 20, None])
async def test_something_else_is_refused_and_left_alone(path: Path, content: bytes | None) -> None:
    """A file that is no queue, or another program's database, is refused in one line and not changed."""
    before = make_something_else(path, content)
    source = LocalSource(settings(path))
    with pytest.raises(SourceRefused) as refused:
        await source.open()
    await source.close()
    assert "source labs" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert file_content(path) == before


async def test_removed_file_is_noticed_and_made_anew(path: Path) -> None:
    """A file removed under the source is reported, and a receipt of it settles nothing in the next one."""
    async with opened(path) as source:
        await source.send([Outgoing(b"a")])
        (held,) = await source.receive(1)
        for file in path.parent.iterdir():
            file.unlink()
        with pytest.raises(SourceRefused, match="removed or replaced"):
            await source.send([Outgoing(b"b")])
        await source.send([Outgoing(b"b")])
        (other,) = await source.receive(1)
        assert (other.body, other.message_id != held.message_id) == (b"b", True)
        assert [failure.kind for failure in await source.acknowledge([held])] == ["gone"]


async def test_full_file_is_own_trouble(path: Path) -> None:
    """A queue that cannot grow says so as trouble that may pass; what it holds stays, and it works again later."""
    script = (
        "import asyncio, resource, sys, signal\n"
        "from consumer.errors import SourceUnavailable\n"
        "from consumer.settings import SourceSettings\n"
        "from consumer.sources.base import Outgoing\n"
        "from consumer.sources.local import LocalSource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "async def main():\n"
        "    source = LocalSource(SourceSettings(name='labs', kind='local', path=sys.argv[1]))\n"
        "    await source.open()\n"
        "    await source.send([Outgoing(b'kept')])\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        await source.send([Outgoing(b'x' * 500_000)])\n"
        "    except SourceUnavailable:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "        await source.send([Outgoing(b'later')])\n"
        "        print(*(m.body.decode() for m in await source.receive(10)))\n"
        "    await source.close()\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(path), stdout=subprocess.PIPE)
    output, _ = await worker.communicate()
    assert output.split() == [b"kept", b"later"]


async def test_locked_file_is_own_trouble(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that keeps the file locked makes calls fail as trouble that may pass."""
    monkeypatch.setattr("consumer.sources.local_queue.BUSY_TIMEOUT", 0.05)
    async with opened(path) as source:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SourceUnavailable, match="locked"):
            await source.send([Outgoing(b"a")])
        other.execute("ROLLBACK")
        other.close()
        await source.send([Outgoing(b"a")])


async def test_closed_source_says_so(path: Path) -> None:
    """A call before `open` or after `close` fails in the source's own way; `close` may come without `open`."""
    source = LocalSource(settings(path))
    await source.close()
    with pytest.raises(SourceUnavailable):
        await source.depth()


def test_wrong_retention_names_the_setting(path: Path) -> None:
    """A retention that is no duration is refused by name, without its value."""
    with pytest.raises(SettingsError, match=r"sources\.labs\.options\.retention") as refused:
        LocalSource(settings(path, options={"retention": "secret-ish"}))
    assert "secret-ish" not in str(refused.value)
