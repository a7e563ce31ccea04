"""What holds wherever dead letters are kept: in files, in S3 and in Blob Storage."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyrage
import pytest

from consumer.dead_letters.archive import Problem
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, encode
from consumer.dead_letters.sealing import sealer, unsealer
from consumer.errors import NotConfigured
from tests.integration.cli_project import CANARY, Project, body, letter, opened_project
from tests.servers.dead_letters import KINDS, Shelf, new_shelf

project = pytest.fixture(opened_project)


@pytest.fixture(params=KINDS)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    """An empty place of each kind."""
    made = new_shelf(str(request.param), request, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["s3", pytest.param("blob", marks=pytest.mark.thorough)])
def away(
    request: pytest.FixtureRequest, tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shelf]:
    """An empty place away from the machine, where the project's settings say that dead letters go."""
    made = new_shelf(str(request.param), request, tmp_path)
    monkeypatch.chdir(project.folder)
    del project.env["CONSUMER_DEAD_LETTERS__PATH"]
    project.env |= made.env
    yield made
    made.close()


@pytest.fixture
def identity(tmp_path: Path) -> tuple[Path, Callable[[bytes], bytes]]:
    """The file of an age identity, and what seals for it."""
    key = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity.txt"
    path.write_text(str(key))
    return path, sealer([str(key.to_public())])


def unproven(number: int, **more: Any) -> DeadLetter:
    return letter(number, reason="bad_signature", proven=False, event_type=None, user_id=None, **more)


def ids(*letters: DeadLetter) -> list[str]:
    return [one.id for one in letters]


async def test_what_is_kept_is_read_back(shelf: Shelf) -> None:
    """Dead letters come back as they were, in the order they were put aside, those of forged messages among them."""
    first, forged, last = letter(1, message=b"\xff\n\r"), unproven(2), letter(3)
    for one in (first, forged, last):
        await shelf.keep(one)
    found = shelf.entries()
    assert [encode(entry.record) for entry in found] == [encode(one) for one in (first, forged, last)]  # type: ignore[arg-type]  # none is sealed
    assert [entry.raw for entry in found] == [encode(one) for one in (first, forged, last)]
    assert len({entry.segment for entry in found}) == 3
    assert [name.startswith("unproven-") for name in shelf.names()] == [False, False, True]


async def test_nothing_is_there_before_the_first(shelf: Shelf) -> None:
    """A place where nothing was ever put aside reads as empty, and a probe leaves nothing to be read."""
    assert shelf.ids() == []
    store = shelf.store()
    await store.probe()
    await store.probe()
    await store.close()
    assert shelf.ids() == []
    assert shelf.archive().purge(lambda _: True).removed == 0


async def test_a_batch_is_one_segment(shelf: Shelf) -> None:
    """Dead letters that are kept together stand together; two workers never write to one segment."""
    letters = [letter(number) for number in range(50)]
    await asyncio.gather(shelf.keep(*letters[:25]), shelf.keep(*letters[25:]))
    assert sorted(shelf.ids()) == sorted(ids(*letters))
    assert len(shelf.names()) == 2
    assert {entry.place for entry in shelf.entries()} == set(range(1, 26))


async def test_a_doubled_one_counts_once(shelf: Shelf) -> None:
    """What was kept twice, because nobody knew if it had been kept, is one dead letter."""
    await shelf.keep(letter(1), letter(1))
    await shelf.keep(letter(1), letter(2))
    assert shelf.ids() == ids(letter(1), letter(2))


async def test_filters_and_limit_choose(shelf: Shelf) -> None:
    """Filters work on any archive, and a limit counts what was chosen."""
    await shelf.keep(letter(1), letter(2, reason="rejected"), letter(3), letter(4))
    assert shelf.ids(Filter(reasons=("attempts_exhausted",), limit=2)) == ids(letter(1), letter(3))


async def test_what_cannot_be_read_is_told(shelf: Shelf) -> None:
    """Damaged lines are told with their place and do not hide the lines behind them; what is no segment is let be."""
    shelf.put("20260101T000000.000000Z-1-aa.jsonl", b"nonsense\n" + encode(letter(1)) + b'{"version": 9}\n')
    shelf.put("notes.txt", b"nonsense")
    found = list(shelf.archive().read())
    assert [(one.place, isinstance(one, Problem)) for one in found] == [(1, True), (2, False), (3, True)]
    assert all(one.segment.endswith("20260101T000000.000000Z-1-aa.jsonl") for one in found)


async def test_a_line_longer_than_a_piece_is_read(shelf: Shelf) -> None:
    """Lines across the pieces in which a segment is read come back whole."""
    letters = [letter(number, message=b"%d" % number * 3_000_000) for number in range(4)]
    shelf.put("20260101T000000.000000Z-1-aa.jsonl", b"".join(map(encode, letters)))
    assert [entry.record.message for entry in shelf.entries()] == [one.message for one in letters]  # type: ignore[union-attr]  # none is sealed


async def test_fates_are_kept(shelf: Shelf) -> None:
    """What became of a dead letter is found by the next reader; what is done stays done."""
    await shelf.keep(letter(1), letter(2), letter(3))
    archive = shelf.archive()
    segment = shelf.entries()[0].segment
    archive.record_fates(segment, {letter(1).id: "handled", letter(2).id: "failed"})
    archive.record_fates(segment, {letter(1).id: "failed", letter(2).id: "duplicate"})
    assert [entry.fate for entry in shelf.entries()] == ["handled", "duplicate", None]


async def test_concurrent_replays_lose_no_fate(shelf: Shelf) -> None:
    """Several operators who note fates of one segment at once overwrite none of each other's."""
    letters = [letter(number) for number in range(12)]
    await shelf.keep(*letters)
    segment = shelf.entries()[0].segment

    def note(numbers: range) -> None:
        archive = shelf.new_archive()
        for number in numbers:
            archive.record_fates(segment, {letters[number].id: "handled"})

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(note, [range(4), range(4, 8), range(8, 12)]))
    assert [entry.fate for entry in shelf.entries()] == ["handled"] * 12


async def test_purge_deletes_what_is_chosen(shelf: Shelf) -> None:
    """Chosen dead letters go and their fates with them; others stay byte for byte; an empty segment goes whole."""
    stays = letter(2)
    shelf.put("20260101T000000.000000Z-1-aa.jsonl", encode(letter(1)) + b"nonsense\n" + encode(stays))
    shelf.put("20260102T000000.000000Z-1-aa.jsonl", encode(letter(3)))
    archive = shelf.archive()
    for entry in (found for found in archive.read() if not isinstance(found, Problem)):
        archive.record_fates(entry.segment, {entry.record.id: "failed"})
    done = archive.purge(lambda record: record.id != stays.id)
    assert (done.removed, done.kept, [problem.place for problem in done.problems]) == (2, 2, [2])
    assert shelf.names() == ["20260101T000000.000000Z-1-aa.jsonl", "20260101T000000.000000Z-1-aa.jsonl.fates"]
    assert [(one.place, getattr(one, "raw", None)) for one in archive.read()] == [(1, None), (2, encode(stays))]
    assert [getattr(one, "fate", None) for one in archive.read()] == [None, "failed"]
    done = archive.purge(lambda _: True, damaged=lambda line: line == b"nonsense\n")
    assert (done.removed, done.kept, shelf.names()) == (2, 0, [])


async def test_purge_of_handled_ones(shelf: Shelf) -> None:
    """What a replay has settled can be purged alone, and no more than the limit says."""
    await shelf.keep(letter(1), letter(2))
    await shelf.keep(letter(3), letter(4))
    archive = shelf.archive()
    for entry in shelf.entries():
        archive.record_fates(entry.segment, {entry.record.id: "failed" if entry.place == 1 else "handled"})
    assert archive.purge(lambda _: True, handled=True, limit=1).removed == 1
    assert shelf.ids() == ids(letter(1), letter(3), letter(4))
    assert archive.purge(lambda _: True, handled=True).removed == 1
    assert shelf.ids() == ids(letter(1), letter(3))


async def test_purges_at_once_do_no_harm(shelf: Shelf) -> None:
    """Two purges of the same segments delete what either was told to delete, and nothing else."""
    for number in range(0, 12, 3):
        await shelf.keep(*(letter(one) for one in range(number, number + 3)))
    wanted = [{letter(number).id for number in range(12) if number % 3 == rest} for rest in range(2)]

    def purge(chosen: set[str]) -> None:
        # A purge of files leaves a segment alone that another purge is at; so it is begun again.
        archive = shelf.new_archive()
        while archive.purge(lambda record: record.id in chosen).skipped:
            time.sleep(0.01)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(purge, wanted))
    assert shelf.ids() == ids(*(letter(number) for number in range(2, 12, 3)))


async def test_sealed_ones(shelf: Shelf, identity: tuple[Path, Callable[[bytes], bytes]]) -> None:
    """Sealed dead letters hold no content; with the identity they are chosen by user, opened and purged."""
    path, seal = identity
    await shelf.keep(letter(1), letter(2), seal=seal)
    assert all(isinstance(entry.record, SealedDeadLetter) for entry in shelf.entries())
    assert all(CANARY.encode() not in entry.raw and b'"user_id"' not in entry.raw for entry in shelf.entries())
    by_user = Filter(users=("u1",))
    archive = shelf.archive()
    with pytest.raises(NotConfigured):
        list(archive.read(by_user))
    with pytest.raises(NotConfigured):
        archive.purge(by_user.chooser())
    (found,) = archive.read(by_user, unseal=unsealer(path))
    assert not isinstance(found, Problem)
    assert isinstance(found.record, DeadLetter)
    assert found.record.message
    assert archive.purge(by_user.chooser(unsealer(path))).removed == 1
    assert shelf.ids() == ids(letter(2))


async def test_forged_messages_have_a_quota(shelf: Shelf) -> None:
    """Beyond their quota forged messages are dropped and counted, whoever wrote the others; proven ones never are."""
    size = len(encode(unproven(1)))
    await shelf.keep(unproven(1), unproven(2), unproven_limit=size * 2)
    dropped: list[int] = []
    store = shelf.store(unproven_limit=size * 3 + 10, on_dropped=dropped.append)
    await store.append([unproven(3), letter(7), unproven(4)])
    await store.append([letter(8), unproven(5)])
    assert (store.dropped_unproven, dropped) == (2, [1, 1])
    await store.close()
    assert sorted(shelf.ids()) == sorted(ids(unproven(1), unproven(2), unproven(3), letter(7), letter(8)))


def test_a_worker_and_an_operator(away: Shelf, project: Project) -> None:
    """What a worker puts aside is listed, replayed and purged by the commands, wherever the settings say it is kept."""
    project.handlers("raise Reject('no')")
    left = {"dry_run": False, "left": 0, "damaged": 0}
    messages = "".join(f"{body(number)}\n" for number in range(3))
    assert project.run("publish", "labs", "-", stdin=messages).exit_code == 0
    ran = project.run("run", "--until-idle", "--idle-after", "0.1s")
    assert ran.exit_code == 0, ran.output
    listed = project.run("dead-letters", "list", "--json")
    assert [row["reason"] for row in json.loads(listed.stdout)] == ["rejected"] * 3
    exported = project.folder / "exported.jsonl"
    assert project.run("dead-letters", "export", str(exported)).exit_code == 0
    assert exported.read_bytes().count(b"\n") == 3

    project.handlers("await keep(event, context)")
    assert project.replay("--limit", "2") == (0, {"lines": 2, "fates": {"handled": 2}} | left)
    assert project.replay() == (0, {"lines": 1, "fates": {"handled": 1}} | left)
    assert project.effects() == ["e0", "e1", "e2"]
    assert project.replay(str(exported))[1]["fates"] == {"duplicate": 3}
    purged = project.run("dead-letters", "purge", "--handled", "--yes", "--json")
    assert json.loads(purged.stdout) == {"removed": 3, "kept": 0, "segments_in_use": 0}
    assert away.ids() == []


def test_check_says_where_they_go(away: Shelf, project: Project) -> None:
    """`check` finds that the store can be written and read; or what is missing, in one line."""
    where = str(away.settings.bucket or away.settings.container)
    assert store_rows(project) == [("store", "ok", f"dead-letters in {where} can be written")]
    assert store_rows(project, "--for", "replay")[0][:2] == ("reading", "ok")
    key = "BUCKET" if away.settings.kind == "s3" else "CONTAINER"
    project.env[f"CONSUMER_DEAD_LETTERS__{key}"] = "nowhere"
    for arguments in ((), ("--for", "replay")):
        ((_, result, detail),) = store_rows(project, *arguments)
        assert result == "failed"
        assert "does not exist" in detail
        assert f"dead_letters.{key.lower()}" in detail


def store_rows(project: Project, *arguments: str) -> list[tuple[str, str, str]]:
    found = json.loads(project.run("check", "--json", *arguments).stdout)
    return [(one["name"], one["result"], one["detail"]) for one in found if one["part"] == "dead letters"]
