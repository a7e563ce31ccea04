"""The sandbox's event stream: registering queues of every kind, and what is published to them when."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from consumer.app import build_source
from consumer.errors import BadSignature, SourceUnavailable, Stale, Unsigned
from consumer.events import Event, LabResultEvent, NudgeEvent, ProgramEvent, UnknownEvent
from consumer.events.reading import ThriveReader
from consumer.sandbox.options import SandboxOptions
from consumer.sandbox.outbox import RETRIES
from consumer.sandbox.server import serve_sandbox
from consumer.sandbox.streams import STREAMS
from consumer.settings import SourceSettings
from consumer.signatures import ThriveSignature
from tests.emulators.sqs_stub import SqsStub
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.servers.fixtures_sandbox import Caller, until

QUEUES = "/v1/admin/org/queues"


def local(name: str, path: Path) -> dict[str, Any]:
    return {"queue_name": name, "type": "local", "local": {"path": str(path)}}


async def register(caller: Caller, name: str, path: Path) -> None:
    answer = await caller.partner("POST", f"{QUEUES}/{name}", json=local(name, path))
    assert answer.status == 201, answer.text


async def messages(path: Path, count: int) -> list[bytes]:
    """The first messages of a local queue, in the order they came."""
    source = build_source(SourceSettings(name="looked_at", kind="local", path=path))
    try:
        await source.open()
        found: list[bytes] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                received = await source.receive(100)
                await source.acknowledge(received)
                found += [message.body for message in received]
        return found
    finally:
        await source.close()


def opened(caller: Caller, raw: bytes) -> dict[str, Any]:
    """The body of a message, whose signature must hold."""
    secrets = [caller.sandbox.thrive_secret]
    return ThriveSignature(secrets=secrets, max_age=72 * 3600, max_future_skew=300).open(raw).content


def streams(caller: Caller) -> dict[str, dict[str, int]]:
    return caller.sandbox.thrive.publisher.counts()


def published(caller: Caller) -> int:
    return sum(counts["published"] for counts in streams(caller).values())


class Broken:
    """A queue that takes nothing until it is mended."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.tries = 0
        self.works = False

    async def send(self, bodies: Sequence[bytes]) -> None:
        self.tries += 1
        if not self.works:
            raise SourceUnavailable("source broken: it takes nothing")
        self.taken += bodies

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def other_sandbox(**options: Any) -> AsyncIterator[Caller]:
    async with (
        serve_sandbox(SandboxOptions(**options)) as sandbox,
        aiohttp.ClientSession(sandbox.url) as session,
    ):
        yield Caller(session, sandbox)


# Registration


async def test_a_test_message_comes_first_unsigned_and_then_what_was_buffered(caller: Caller, tmp_path: Path):
    ids = (await caller.control("/events", count=7, stream="lab-results")).json["event_ids"]
    assert streams(caller)["lab-results"]["buffered"] == 7
    await register(caller, "lab-results", tmp_path / "q.db")
    first, *rest = await messages(tmp_path / "q.db", 8)
    with pytest.raises(Unsigned):
        ThriveSignature(secrets=["any"]).open(first)
    assert json.loads(first)["event_type"] == "queue.test"
    assert json.loads(first)["data"]["queue_name"] == "lab-results"
    assert [opened(caller, raw)["event_id"] for raw in rest] == ids


async def test_a_registration_is_shown_replaced_and_removed(caller: Caller, tmp_path: Path):
    path = f"{QUEUES}/nudges"
    assert (await caller.partner("GET", path)).code == "queue_not_configured"
    assert (await caller.partner("PUT", path, json=local("nudges", tmp_path / "a.db"))).status == 404
    await register(caller, "nudges", tmp_path / "a.db")
    shown = (await caller.partner("GET", path)).data
    assert (shown["queue_name"], shown["type"], shown["local"]) == ("nudges", "local", {"path": f"{tmp_path}/a.db"})
    again = await caller.partner("POST", path, json=local("nudges", tmp_path / "b.db"))
    assert (again.status, again.code) == (409, "queue_already_configured")
    assert not (tmp_path / "b.db").exists()
    assert (await caller.partner("PUT", path, json=local("nudges", tmp_path / "c.db"))).status == 200
    await caller.control("/events", stream="coaching-nudges")
    assert len(await messages(tmp_path / "c.db", 2)) == 2
    assert (await caller.partner("DELETE", path)).status == 204
    assert (await caller.partner("DELETE", path)).code == "queue_not_configured"
    await caller.control("/events", stream="coaching-nudges")
    assert streams(caller)["coaching-nudges"]["buffered"] == 1


async def test_a_failed_test_publish_tells_the_provider_s_error_and_stores_nothing(caller: Caller, tmp_path: Path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "q.db"
    answer = await caller.partner("POST", f"{QUEUES}/all", json=local("all", path))
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert "Not a directory" in answer.json["error"]["message"]
    assert (await caller.partner("GET", f"{QUEUES}/all")).status == 404
    missing = await caller.partner("POST", f"{QUEUES}/all", json={"queue_name": "all", "type": "aws_sqs"})
    assert missing.status == 400
    assert "aws_sqs.queue_arn: missing" in missing.text


async def test_a_wrong_registration_is_422(caller: Caller, tmp_path: Path):
    good = local("all", tmp_path / "q.db")
    for name, body in (
        ("all", {**good, "type": "kafka"}),
        ("all", {"type": "local"}),
        ("all", {**good, "queue_name": "labs"}),
        ("orders", {**good, "queue_name": "orders"}),
        ("all", {**good, "local": "q.db"}),
    ):
        assert (await caller.partner("POST", f"{QUEUES}/{name}", json=body)).status == 422
    assert not (tmp_path / "q.db").exists()


@pytest.mark.parametrize("field", ["connection_string", "sas_token", "namespace"])
async def test_what_is_no_text_is_named(caller: Caller, field: str):
    block = {"event_hub_name": "events", field: 5}
    body = {"queue_name": "all", "type": "azure_event_hubs", "azure_event_hubs": block}
    answer = await caller.partner("POST", f"{QUEUES}/all", json=body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert f"azure_event_hubs.{field}: expected a text" in answer.text


async def test_registered_queues_are_kept_for_the_next_start(tmp_path: Path):
    """With what is secret of them, for the owner alone; one that is removed, or cannot be opened, is not there."""
    file = tmp_path / "secrets" / "queues.json"
    options = SandboxOptions(queues_file=file)
    gone = tmp_path / "gone" / "q.db"
    async with serve_sandbox(options) as running, aiohttp.ClientSession(running.url) as session:
        caller = Caller(session, running)
        await register(caller, "labs", tmp_path / "labs.db")
        await register(caller, "nudges", tmp_path / "nudges.db")
        await register(caller, "all", gone)
        assert (await caller.partner("DELETE", f"{QUEUES}/nudges")).status == 204
        before = (await caller.partner("GET", f"{QUEUES}/labs")).data
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    gone.write_text("no queue any more, but a text of some length")
    async with serve_sandbox(options) as running, aiohttp.ClientSession(running.url) as session:
        caller = Caller(session, running)
        await caller.control("/events", stream="lab-results", contract="inline")
        first, second = await messages(tmp_path / "labs.db", 2)
        assert json.loads(first)["event_type"] == "queue.test"
        assert opened(caller, second)["event_type"] == "lab.result.ready"
        assert (await caller.partner("GET", f"{QUEUES}/labs")).data == before
        assert running.thrive.queues.registered == {"lab-results": "local"}


async def test_a_file_of_queues_that_cannot_be_read_is_passed_over(tmp_path: Path):
    file = tmp_path / "queues.json"
    file.write_text('{"all": {"secret": 1}}')
    with capture_logs() as logs:
        async with serve_sandbox(SandboxOptions(queues_file=file)) as running:
            await until(lambda: any(line["event"] == "queues_not_restored" for line in logs))
            assert running.thrive.queues.registered == {}
    assert "secret" not in str(logs)


async def test_a_queue_for_all_takes_only_streams_without_one_of_their_own(caller: Caller, tmp_path: Path):
    await register(caller, "all", tmp_path / "all.db")
    await register(caller, "labs", tmp_path / "labs.db")
    for stream in STREAMS:
        await caller.control("/events", stream=stream)
    labs = [opened(caller, raw) for raw in (await messages(tmp_path / "labs.db", 2))[1:]]
    rest = [opened(caller, raw) for raw in (await messages(tmp_path / "all.db", 4))[1:]]
    assert [body["event_type"] for body in labs] == ["lab.result.ready"]
    assert {body["event_type"] for body in rest} == {
        "daily.device_data.created",
        "coach.nudge.created",
        "program.updated",
    }


async def test_sqs_queues_are_registered_by_their_arn(
    caller: Caller, sqs_stub: SqsStub, sqs: Any, aws_environment: None
):
    url = (await sqs.create_queue(QueueName="events"))["QueueUrl"]
    block = {"queue_arn": "arn:aws:sqs:us-east-1:000000000000:events", "endpoint_url": sqs_stub.url, "queue_url": url}
    body = {"queue_name": "all", "type": "aws_sqs", "aws_sqs": {**block, "external_id": "write-only"}}
    answer = await caller.partner("POST", f"{QUEUES}/all", json=body)
    assert answer.status == 201, answer.text
    shown = answer.data["aws_sqs"]
    assert shown["queue_arn"] == block["queue_arn"]
    assert shown["publishing_principal_arn"]
    assert set(shown) == {"queue_arn", "region", "role_arn", "publishing_principal_arn"}
    assert "write-only" not in answer.text
    await caller.control("/events", stream="lab-results")
    await until(lambda: published(caller) == 1)
    found = []
    while len(found) < 2:
        found += (await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages", [])
    assert opened(caller, found[1]["Body"].encode())["event_type"] == "lab.result.ready"
    gone = {**block, "queue_url": f"{url}-gone"}
    answer = await caller.partner("PUT", f"{QUEUES}/all", json={**body, "aws_sqs": gone})
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert "NonExistentQueue" in answer.json["error"]["message"]


async def test_storage_queues_are_registered_and_their_secrets_never_shown(
    caller: Caller, storage_stub: StorageQueueStub
):
    string = storage_stub.connection_string
    block = {"account_name": "devstoreaccount1", "queue_name": "labs", "connection_string": string}
    body = {"queue_name": "all", "type": "azure_storage_queue", "azure_storage_queue": block}
    answer = await caller.partner("POST", f"{QUEUES}/all", json=body)
    assert answer.status == 201, answer.text
    shown = await caller.partner("GET", f"{QUEUES}/all")
    assert shown.data["azure_storage_queue"] == {"account_name": "devstoreaccount1", "queue_name": "labs"}
    assert "AccountKey" not in answer.text + shown.text
    source = build_source(
        SourceSettings(name="looked_at", kind="storage_queue", connection_string=string, queue="labs")
    )
    try:
        await source.open()
        (message,) = await source.receive(10)
    finally:
        await source.close()
    text = message.body if message.body.startswith(b"{") else base64.b64decode(message.body)
    assert json.loads(text)["event_type"] == "queue.test"
    wrong = {**body, "azure_storage_queue": {**block, "queue_name": "not-there"}}
    answer = await caller.partner("PUT", f"{QUEUES}/all", json=wrong)
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_event_hubs_are_registered_without_a_container_for_checkpoints(caller: Caller):
    from tests.emulators.event_hubs import EventHubsEmulator
    from tests.emulators.event_hubs_azure import read

    async with EventHubsEmulator(hubs={"events": 1}) as hub:
        block = {"namespace": "emulated", "event_hub_name": "events", "connection_string": hub.connection_string}
        body = {"queue_name": "all", "type": "azure_event_hubs", "azure_event_hubs": block}
        answer = await caller.partner("POST", f"{QUEUES}/all", json=body)
        assert answer.status == 201, answer.text
        assert answer.data["azure_event_hubs"] == {"namespace": "emulated", "event_hub_name": "events"}
        await caller.control("/events", stream="lab-results")
        await until(lambda: published(caller) == 1)
        test, event = await read(hub, 2)
        assert json.loads(test.body_as_str())["event_type"] == "queue.test"
        assert opened(caller, event.body_as_str().encode())["event_type"] == "lab.result.ready"
        await caller.partner("DELETE", f"{QUEUES}/all")


# Publishing


async def test_a_queue_that_is_down_gets_the_events_later_by_the_documented_schedule():
    async with other_sandbox(speed=1.0) as caller:
        broken = Broken()
        caller.sandbox.thrive.publisher.register("all", broken)
        await caller.control("/events", stream="lab-results", count=2)
        for number, delay in enumerate(RETRIES[:3], 1):
            await until(lambda number=number: broken.tries == number)
            await caller.control("/clock/skip", seconds=delay - 30)
            await asyncio.sleep(0.05)
            assert broken.tries == number
            await caller.control("/clock/skip", seconds=30)
        broken.works = True
        await until(lambda: broken.tries == 4 or bool(broken.taken))
        await caller.control("/clock/skip", seconds=RETRIES[3])
        await until(lambda: len(broken.taken) == 2)
        assert streams(caller)["lab-results"]["published"] == 2


async def test_after_the_last_attempt_an_event_is_failed_and_the_next_one_is_not():
    async with other_sandbox(speed=1_000_000.0) as caller:
        broken = Broken()
        caller.sandbox.thrive.publisher.register("all", broken)
        await caller.control("/events", stream="program-updates")
        await until(lambda: streams(caller)["program-updates"]["failed"] == 1)
        assert broken.tries == 7
        broken.works = True
        await caller.control("/events", stream="program-updates")
        await until(lambda: len(broken.taken) == 1)


async def test_duplicates_have_the_same_event_id_and_are_signed_anew(tmp_path: Path):
    async with other_sandbox(duplicates=1.0, speed=10_000.0) as caller:
        await register(caller, "all", tmp_path / "q.db")
        await caller.control("/events", count=5)
        found = [opened(caller, raw) for raw in (await messages(tmp_path / "q.db", 11))[1:]]
        assert sorted(Counter(body["event_id"] for body in found).values()) == [2, 2, 2, 2, 2]
        assert published(caller) == 10


async def test_forged_stale_replayed_and_repeated_events_are_what_they_say(caller: Caller, tmp_path: Path):
    path = tmp_path / "q.db"
    await register(caller, "all", path)
    await caller.control("/events", stream="lab-results")
    _, good = await messages(path, 2)
    for kind in ("forged", "stale", "replay", "duplicate", "unknown"):
        assert (await caller.control("/events", stream="lab-results", kind=kind)).status == 202
        (message,) = await messages(path, 1)
        if kind == "forged":
            with pytest.raises(BadSignature):
                opened(caller, message)
        elif kind == "stale":
            with pytest.raises(Stale):
                opened(caller, message)
        elif kind == "replay":
            assert message == good
        elif kind == "duplicate":
            assert opened(caller, message) == opened(caller, good)
        else:
            event = ThriveReader().read_body(opened(caller, message))
            assert isinstance(event, UnknownEvent)


async def test_a_rotated_secret_signs_beside_the_old_one_until_the_overlap_ends(tmp_path: Path):
    async with other_sandbox(speed=1.0) as caller:
        old = caller.sandbox.thrive_secret
        await register(caller, "all", tmp_path / "q.db")
        rotated = (await caller.control("/secrets/rotate", overlap=3600)).json
        new = caller.sandbox.thrive_secret
        assert rotated["secrets"] == [new, old]
        await caller.control("/events", count=30, contract="basic")
        both = ThriveSignature(secrets=[new, old])
        signers = Counter(both.open(raw).secret_index for raw in (await messages(tmp_path / "q.db", 31))[1:])
        assert set(signers) == {0, 1}
        await caller.control("/clock/skip", seconds=3601)
        assert (await caller.raw("GET", "/sandbox/secrets")).json == {"secrets": [new]}
        await caller.control("/events", count=10, contract="basic")
        for raw in await messages(tmp_path / "q.db", 10):
            opened(caller, raw)


# Traffic


def resource(event: Event) -> str | None:
    """Where the resource of an event is."""
    target = getattr(event, "target", None)
    if isinstance(event, LabResultEvent):
        return f"/labs/{target.id}"
    if isinstance(event, NudgeEvent):
        return f"/cards/{target.id}" if event.is_card else f"/health-actions/{target.id}"
    return "/program" if isinstance(event, ProgramEvent) else None


async def test_everything_announced_can_be_fetched_and_is_what_inline_events_carry(caller: Caller, tmp_path: Path):
    await register(caller, "all", tmp_path / "q.db")
    latest: dict[tuple[str | None, str], Any] = {}
    seen: Counter[str] = Counter()
    for contract in ("inline", "basic"):
        await caller.control("/events", count=30, contract=contract)
        await until(lambda total=30 if contract == "inline" else 60: published(caller) == total)
    for raw in (await messages(tmp_path / "q.db", 61))[1:]:
        body = opened(caller, raw)
        event = ThriveReader().read_body(body)
        seen[type(event).__name__] += 1
        path = resource(event)
        if path is None:
            assert (await caller.member("GET", "", event.user_id)).status == 200
            continue
        latest[event.user_id, path] = body
    for (user_id, path), body in latest.items():
        answer = await caller.member("GET", path, user_id)
        assert answer.status == 200
        if "data" in body and path != "/program":
            assert body["data"].items() <= answer.data.items()
    assert set(seen) == {"LabResultEvent", "DailyDeviceEvent", "NudgeEvent", "ProgramEvent"}


async def test_the_day_of_a_basic_device_event_is_in_its_target_and_can_be_fetched(caller: Caller, tmp_path: Path):
    await register(caller, "all", tmp_path / "q.db")
    await caller.control("/events", stream="daily-device-data", contract="basic")
    body = opened(caller, (await messages(tmp_path / "q.db", 2))[1])
    day = body["target"]["date"]
    assert "data" not in body
    path = f"/metrics/activity/summary?start_date={day}&end_date={day}"
    assert [row["date"] for row in (await caller.member("GET", path, body["user_id"])).data] == [day]


async def test_the_same_seed_makes_the_same_events(tmp_path: Path):
    bodies = []
    for name in ("a.db", "b.db"):
        async with other_sandbox(seed=9) as caller:
            await register(caller, "all", tmp_path / name)
            await caller.control("/events", count=5, stream="lab-results", contract="inline")
            found = [opened(caller, raw) for raw in (await messages(tmp_path / name, 6))[1:]]
            bodies.append([{**body, "occurred_at": None} for body in found])
    assert bodies[0] == bodies[1]


async def test_another_start_makes_other_events_and_ids_about_the_same_members(tmp_path: Path):
    """A worker keeps what it has seen: an event id that came again with another body would be a conflict."""
    seen: list[dict[str, Any]] = []
    for start in (0, 1):
        async with other_sandbox(seed=9, start=start) as caller:
            world, path = caller.sandbox.world, tmp_path / f"{start}.db"
            labs = [row for member in world for row in member.labs.all()]
            await register(caller, "all", path)
            await caller.control("/events", count=20, contract="inline")
            events = [opened(caller, raw) for raw in (await messages(path, 21))[1:]]
            job_id = caller.sandbox.thrive.start_job(next(iter(world)))
            ids = {event["event_id"] for event in events} | {event["target"]["id"] for event in events} | {job_id}
            seen.append({"members": world.members, "labs": labs, "ids": ids})
    first, second = seen
    assert (first["members"], first["labs"]) == (second["members"], second["labs"])
    assert not first["ids"] & second["ids"]


async def test_traffic_comes_by_itself_at_a_rate_after_a_burst(tmp_path: Path):
    async with other_sandbox(rate=50.0, burst=20) as caller:
        await register(caller, "all", tmp_path / "q.db")
        await until(lambda: published(caller) >= 30)


async def test_without_members_there_are_no_events():
    async with other_sandbox(members=0, rate=200.0, burst=3) as caller:
        assert (await caller.control("/events")).status == 404
        assert sum(counts["buffered"] for counts in streams(caller).values()) == 0
