"""Dead letters on the SQS queue that a redrive policy, or a setting, names: kept there, and read back from there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from consumer import Reject
from consumer.app import build_source, build_store
from consumer.dead_letters.archive import Entry, Problem
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.queue_archive import QueueArchive
from consumer.dead_letters.queue_notes import NOTE
from consumer.dead_letters.queues import DeadLetterQueue
from consumer.dead_letters.record import DeadLetter
from consumer.events import ProgramEvent
from consumer.sources.base import Outgoing
from tests.conformance.rig import Rig, effects_table, program, signed
from tests.emulators.sqs_stub import Clock, SqsStub
from tests.emulators.sqs_stub_actions import ACCOUNT, REGION

T = TypeVar("T")
DAY = timedelta(days=1)


def arn(name: str) -> str:
    """The ARN of one of the stub's queues."""
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def redrive(target: str, after: int = 1000) -> dict[str, str]:
    """The attribute that makes SQS move messages to another queue."""
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn(target), "maxReceiveCount": after})}


@pytest.fixture
def rig(tmp_path: Path, sqs_stub: SqsStub) -> Rig:
    """Workers on the queue `labs`, whose dead letters go to `labs-dlq`."""
    sqs_stub.create_queue("labs-dlq", MessageRetentionPeriod="1209600")
    url = sqs_stub.create_queue("labs", **redrive("labs-dlq"))
    return rig_on(tmp_path, url)


def rig_on(folder: Path, url: str) -> Rig:
    """Workers on a queue of the stub."""
    source = {"KIND": "sqs", "QUEUE_URL": url, "REGION": REGION, "POLL_WAIT": "1", "VISIBILITY_TIMEOUT": "30s"}
    return Rig(folder, source, {"DEAD_LETTERS__KIND": "queue"})


def letter(number: int, message: bytes = b"hello", **changes: Any) -> DeadLetter:
    """A dead letter of the queue `labs`."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": f"{number:024x}",
        "provider": "thrive",
        "source": "labs",
        "reason": "rejected",
        "attempts": 3,
        "accepted_at": now,
        "first_received_at": now,
        "dead_lettered_at": now,
        "message": message,
        **changes,
    }
    return DeadLetter(**values)


async def keep(rig: Rig, *records: DeadLetter, **changes: str) -> None:
    """Put dead letters aside, as a worker does."""
    store = build_store(rig.load(**changes).settings)
    try:
        await store.append(records)
    finally:
        await store.close()


async def ask(rig: Rig, work: Callable[[QueueArchive], T], **changes: str) -> T:
    """What some work with the archive returns; in a thread, since it blocks."""
    settings = rig.load(**changes).settings
    archive = QueueArchive([DeadLetterQueue(settings.source(name)) for name in settings.sources], poll_wait=0)

    def asked() -> T:
        with closing(archive):
            return work(archive)

    return await asyncio.to_thread(asked)


def everything(archive: QueueArchive) -> list[Entry | Problem]:
    """All that is read."""
    return list(archive.read())


def letters(archive: QueueArchive) -> list[DeadLetter]:
    """The records that are read, when nothing else is."""
    found = everything(archive)
    assert not [one for one in found if isinstance(one, Problem)]
    return [one.record for one in found if isinstance(one, Entry) and isinstance(one.record, DeadLetter)]


def bodies(stub: SqsStub, name: str = "labs-dlq") -> list[str]:
    """What is on a queue."""
    return [message.body for message in stub.queue(name).messages.values()]


async def test_dead_letters_go_where_the_redrive_policy_says(rig: Rig, sqs_stub: SqsStub) -> None:
    """A worker's dead letters are on the DLQ as they came, and reading them brings back what was noted."""
    table = effects_table()

    @table.on(ProgramEvent)
    async def refusing(event: ProgramEvent, context: object) -> None:
        raise Reject("canary")

    messages = [signed(program("one")), signed(program("two"), secret="guessed"), "hello €".encode()]
    await rig.publish(Outgoing(message, headers={"trace": str(n)}) for n, message in enumerate(messages))
    await rig.consume(table)
    assert (await rig.depth()).total == 0
    assert sorted(bodies(sqs_stub)) == sorted(message.decode() for message in messages)
    assert "canary" not in str([message.attributes for message in sqs_stub.queue("labs-dlq").messages.values()])
    found = {record.reason: record for record in await ask(rig, letters)}
    assert found.keys() == {"rejected", "bad_signature", "unreadable"}
    rejected = found["rejected"]
    assert (rejected.message, rejected.headers) == (messages[0], {"trace": "0"})
    assert (rejected.source, rejected.provider, rejected.attempts) == ("labs", "thrive", 1)
    assert (rejected.event_id, rejected.user_id, rejected.detail) == (None, None, None)
    assert rejected.event_type == program("one")["event_type"]
    assert found["bad_signature"].event_type is None


async def test_a_look_changes_nothing(rig: Rig, sqs_stub: SqsStub) -> None:
    """What was read is visible again at once, whether the reader went through or stopped in the middle."""
    await keep(rig, *(letter(number) for number in range(25)))
    assert len(await ask(rig, letters)) == 25
    await ask(rig, lambda archive: next(archive.read()))
    assert (await ask(rig, letters))[0].attempts == 3
    described = sqs_stub.described()["labs-dlq"]
    assert (described["ready"], described["in_flight"]) == (25, 0)


async def test_what_is_done_is_deleted_and_the_rest_given_back(rig: Rig, sqs_stub: SqsStub) -> None:
    """Of what is held for a replay, handled ones go and all others are on the queue again once it is closed."""
    await keep(rig, *(letter(number) for number in range(12)))

    def replayed(archive: QueueArchive) -> None:
        entries = [one for one in archive.read(hold=True) if isinstance(one, Entry)]
        assert sqs_stub.queue("labs-dlq").described(sqs_stub.clock())["ApproximateNumberOfMessagesNotVisible"] == "12"
        fates = ["handled", "duplicate", "failed", "stale"]
        archive.record_fates(entries[0].segment, {entries[n].record.id: fate for n, fate in enumerate(fates)})

    await ask(rig, replayed)
    assert {record.id for record in await ask(rig, letters)} == {f"{number:024x}" for number in range(2, 12)}


async def test_a_dead_letter_that_is_there_twice_counts_once(rig: Rig, sqs_stub: SqsStub) -> None:
    """A crash after sending doubles a message: it is read once, and both go when it is handled, whenever they come."""
    await keep(rig, *(letter(n) for n in range(12)))
    await keep(rig, letter(1), letter(11))
    assert len(await ask(rig, letters)) == 12

    def replayed(archive: QueueArchive) -> list[str]:
        handled = []
        for one in archive.read(Filter(ids=(f"{1:024x}", f"{11:024x}")), hold=True):
            assert isinstance(one, Entry)
            archive.record_fates(one.segment, {one.record.id: "handled"})
            handled.append(one.record.id)
        return handled

    assert await ask(rig, replayed) == [f"{1:024x}", f"{11:024x}"]
    assert len(bodies(sqs_stub)) == 10


async def test_the_original_time_comes_back(rig: Rig) -> None:
    """A replay judges age by when the first queue accepted the message, which the note brings back."""
    accepted = datetime.now(UTC) - 9 * DAY
    await keep(rig, letter(1, accepted_at=accepted, first_received_at=accepted + DAY))
    (record,) = await ask(rig, letters)
    assert (record.accepted_at, record.first_received_at) == (accepted, accepted + DAY)


async def test_a_forged_note_is_none(rig: Rig, sqs_stub: SqsStub) -> None:
    """Whoever may send to the queue can give no old message a new time, nor anything else a note says."""
    old = datetime.now(UTC) - 9 * DAY
    await keep(rig, letter(1, accepted_at=old), letter(2, accepted_at=old))
    notes = [_note(message) for message in sqs_stub.queue("labs-dlq").messages.values()]
    assert {note["id"] for note in notes} == {letter(1).id, letter(2).id}
    sqs_stub.queue("labs-dlq").purge()
    note = notes[0]
    forged: list[tuple[dict[str, Any], bytes, dict[str, str]]] = [
        ({**note, "accepted_at": datetime.now(UTC).isoformat()}, b"hello", {}),
        ({**note, "reason": "stale"}, b"hello", {}),
        ({**note, "mac": notes[1]["mac"]}, b"hello", {}),
        ({**note, "mac": 1}, b"hello", {}),
        (note, b"hullo", {}),
        (note, b"hello", {"X-Signature": "another"}),
        ({}, b"hello", {}),
    ]
    queue = DeadLetterQueue(rig.load().settings.source("labs"))
    source = build_source(await queue.settings())
    await source.open()
    await source.send(
        [Outgoing(body, headers={**headers, NOTE: json.dumps(text)}) for text, body, headers in forged]
        + [
            Outgoing(b"hello", headers={NOTE: "["}),
            Outgoing(b"hello", headers={NOTE: f"{json.dumps(note)}{' ' * 4096}"}),
        ]
    )
    await source.close()
    found = await ask(rig, letters)
    assert [(record.reason, record.attempts) for record in found] == [("redriven", 0)] * 9
    assert len({record.id for record in found}) == 9
    assert all(datetime.now(UTC) - record.accepted_at < timedelta(minutes=1) for record in found)
    assert {tuple(record.headers) for record in found} == {(), ("X-Signature",)}
    strangers = await ask(rig, letters, THRIVE__SIGNATURE__SECRETS="another")
    assert {record.reason for record in strangers} == {"redriven"}


def _note(message: Any) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(message.attributes[NOTE]["StringValue"])
    return note


async def test_a_secret_that_was_rotated_in_still_opens_notes(rig: Rig) -> None:
    """During a rotation both secrets are good for notes; the store takes new ones while it is open."""
    store = build_store(rig.load().settings)
    try:
        await store.append([letter(1)])
        fresh = rig.load(THRIVE__SIGNATURE__SECRETS='["new", "a secret of the tests"]').settings
        store.renew(fresh.source("labs"))  # type: ignore[attr-defined]
        await store.append([letter(2)])
    finally:
        await store.close()
    found = await ask(rig, letters, THRIVE__SIGNATURE__SECRETS='["new", "a secret of the tests"]')
    assert [record.reason for record in found] == ["rejected", "rejected"]
    assert len([one for one in await ask(rig, letters) if one.reason == "redriven"]) == 1


async def test_what_the_queue_itself_redrove(rig: Rig, sqs_stub: SqsStub, clock: Clock) -> None:
    """A message that nobody of ours put aside is there too, with the time at which the first queue accepted it."""
    sqs_stub.queue("labs").configure(redrive("labs-dlq", after=1))
    message = signed(program("one"))
    await rig.publish([message])
    accepted = datetime.fromtimestamp(clock(), UTC)
    source = build_source(rig.load().settings.source("labs"))
    await source.open()
    await source.release(await source.receive(1), 0)
    clock.now += 3600
    assert await source.receive(1) == []
    await source.close()
    (record,) = await ask(rig, letters)
    assert (record.message, record.reason, record.event_type) == (message, "redriven", None)
    assert abs(record.accepted_at - accepted) < timedelta(seconds=1)
    assert record.headers == {}


async def test_sources_that_share_a_queue(rig: Rig, sqs_stub: SqsStub) -> None:
    """Each message is its source's, by its note or by where SQS moved it from; one that does not say is a problem."""
    url = sqs_stub.create_queue("scores", **redrive("labs-dlq"))
    other = {"SOURCES__SCORES__KIND": "sqs", "SOURCES__SCORES__QUEUE_URL": url, "SOURCES__SCORES__REGION": REGION}
    await keep(rig, letter(1), letter(2, source="scores"), **other)
    dlq, scores, now = sqs_stub.queue("labs-dlq"), sqs_stub.queue("scores"), sqs_stub.clock()
    dlq.adopt(scores.send("moved", now=now), source=arn("scores"), now=now)
    dlq.adopt(scores.send("foreign", now=now), source=arn("others"), now=now)
    dlq.send("by hand", now=now)
    found = await ask(rig, everything, **other)
    sources = sorted((one.record.source, one.record.reason) for one in found if isinstance(one, Entry))
    assert sources == [("labs", "rejected"), ("scores", "redriven"), ("scores", "rejected")]
    problems = sorted(one.text for one in found if isinstance(one, Problem))
    assert problems[0].startswith("it does not say which of labs, scores it is for")
    assert problems[1] == "it was moved here from a queue that no source reads"
    only = await ask(rig, lambda archive: list(archive.read(Filter(sources=("labs",)))), **other)
    assert [one.record.source for one in only if isinstance(one, Entry)] == ["labs"]
