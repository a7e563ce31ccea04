"""Sahha's webhooks on every kind of queue: their headers travel natively or in the neutral envelope, and prove them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from consumer import Context, DispatchTable, Retry, SahhaSignature
from consumer.app import build_source
from consumer.dead_letters.archive import Entry
from consumer.dead_letters.file_archive import FileArchive
from consumer.envelope import wrap_neutral
from consumer.events import BiomarkerEvent, DataLogEvent, ProgramEvent, SahhaEvent, ScoreEvent
from consumer.settings_loading import load_settings
from consumer.sources import event_hubs_parking as parking_module
from consumer.sources.base import Outgoing
from consumer.testing import sample_body
from tests.conformance.rig import SECRET, Rig, effect, effects_table, eventually, program, signed
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.faults.harness_azure import hurry, opened_hub
from tests.integration.cli_project import SECRET as PROJECT_SECRET
from tests.integration.cli_project import Project, opened_project
from tests.servers.azurite import Azurite
from tests.servers.names import fresh_name

RECEIVED_AT = datetime(2026, 3, 16, 8, tzinfo=UTC)
"""When the relay says it got a webhook, which nobody signs and nothing is judged by."""
SAHHA = {"SOURCES__LABS__PROVIDER": "sahha", "SAHHA__SIGNATURE__SECRETS": SECRET}

project = pytest.fixture(opened_project)


class Webhook(NamedTuple):
    """A request as Sahha makes it."""

    body: bytes
    headers: Mapping[str, str]

    @property
    def envelope(self) -> bytes:
        """The same over a queue without headers."""
        return wrap_neutral(provider="sahha", body=self.body, headers=self.headers, received_at=RECEIVED_AT)


def webhook(cls: type[SahhaEvent], *, secret: str = SECRET, **changes: Any) -> Webhook:
    """A webhook of now."""
    own = "receivedAtUtc" if cls is DataLogEvent else "createdAtUtc"
    content = sample_body(cls, **{own: datetime.now(UTC).isoformat(), **changes})
    body = json.dumps(content, indent=1).encode()
    signature = SahhaSignature(secrets=[secret])
    return Webhook(body, signature.sign(body, external_id=content["externalId"], event_type=cls.event_types[0]))


def table() -> DispatchTable:
    """Handlers whose effect is the row of an event."""
    found = effects_table()

    @found.on(ScoreEvent, BiomarkerEvent, DataLogEvent)
    async def handle(event: SahhaEvent, context: Context) -> None:
        await effect(event, context)

    return found


async def test_sqs(tmp_path: Path, moto_url: str, aws_environment: None) -> None:
    """A webhook is a message's text with its headers as attributes, or an envelope, and one event either way."""
    import aioboto3

    async with aioboto3.Session().client("sqs", endpoint_url=moto_url) as client:
        url = (await client.create_queue(QueueName=fresh_name()))["QueueUrl"]
        score, log, forged = webhook(ScoreEvent), webhook(DataLogEvent), webhook(ScoreEvent, secret="guessed")
        sent = [(one.body, one.headers) for one in (score, log, forged)]
        sent += [(score.envelope, {}), (webhook(BiomarkerEvent).envelope, {}), (score.body, {})]
        for body, headers in sent:
            attributes = {name.lower(): {"DataType": "String", "StringValue": value} for name, value in headers.items()}
            await client.send_message(QueueUrl=url, MessageBody=body.decode(), MessageAttributes=attributes)
    rig = Rig(tmp_path, {"KIND": "sqs", "QUEUE_URL": url, "ENDPOINT_URL": moto_url, "REGION": "us-east-1"}, SAHHA)
    await rig.consume(table())
    assert sorted(name.split(":")[1] for name in rig.effects()) == sorted(
        cls.event_types[0] for cls in (ScoreEvent, BiomarkerEvent, DataLogEvent)
    )
    assert set(rig.effects().values()) == {1}
    assert rig.reasons() == Counter(unsigned=1, bad_signature=1)


async def test_event_hubs(tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are application properties, and are kept with an event that waits in the database for its time."""
    monkeypatch.setattr(parking_module, "_LOOK_EVERY", 0.2)
    score, log = webhook(ScoreEvent), webhook(DataLogEvent)
    patient = effects_table()

    @patient.on(ScoreEvent, DataLogEvent)
    async def handle(event: SahhaEvent, context: Context) -> None:
        if isinstance(event, ScoreEvent) and context.delivery.attempt == 1:
            raise Retry(delay=3600)
        await effect(event, context)

    async with opened_hub(tmp_path, azurite) as (hub, rig):
        rig.changes.update(SAHHA)
        hub.fill("events", [score.body], partition="0", properties=score.headers)
        hub.fill("events", [log.envelope], partition="0")
        hub.fill("events", [log.body], partition="0", properties={b"x-signature": 7})
        async with rig.worker(patient):
            await eventually(lambda: len(rig.rows("SELECT 1 FROM consumer_parked")) == 1, what="the score parked")
            await eventually(lambda: len(rig.effects()) == 1, what="the log's effect")
            await hurry(rig)
            await eventually(lambda: len(rig.effects()) == 2, what="the score's effect")
        assert rig.reasons() == Counter(unreadable=1)


async def test_storage_queue(tmp_path: Path) -> None:
    """A queue without headers carries the envelope; a bare body is of nobody known."""
    async with StorageQueueStub() as stub:
        stub.create_queue("labs")
        source = {"KIND": "storage_queue", "CONNECTION_STRING": stub.connection_string, "QUEUE": "labs"}
        rig = Rig(tmp_path, {**source, "POLL_WAIT": "1"}, SAHHA)
        await rig.publish([webhook(ScoreEvent).envelope, webhook(BiomarkerEvent).body])
        await rig.consume(table())
    assert len(rig.effects()) == 1
    assert rig.reasons() == Counter(unsigned=1)


async def test_both_platforms_in_one_worker(tmp_path: Path) -> None:
    """Each source believes its own platform only, and a message of the other is put aside, whatever it is wrapped in.

    What was captured and sent again with other headers does nothing and closes no lane: the member's next event gets
    through, also where a dead letter parks its lane.
    """
    queue = str(tmp_path / "queue.db")
    both = {"KIND": "local", "PATH": queue, "POLL_WAIT": "0.1", "LANE_ON_DEAD_LETTER": "park"}
    sahha = {f"SOURCES__WELL__{name}": value for name, value in both.items()} | {
        "SOURCES__WELL__PATH": str(tmp_path / "other.db"),
        "SOURCES__WELL__PROVIDER": "sahha",
        "SAHHA__SIGNATURE__SECRETS": SECRET,
    }
    rig = Rig(tmp_path, both, sahha)
    handled = table()
    handled.on(ProgramEvent)(effect)
    first, second = (webhook(ScoreEvent, externalId="u1") for _ in range(2))
    name, whom, claim = first.headers
    renamed = [{**first.headers, claim: "New"}, {**first.headers, claim: DataLogEvent.event_types[0]}]
    renamed += [{**first.headers, whom: "u2"}, {**first.headers, name.swapcase(): first.headers[name]}]
    thrive = signed(program("thrive"))
    wrapped = wrap_neutral(provider="thrive", body=thrive, headers=first.headers, received_at=RECEIVED_AT)
    array = b"[" + first.envelope + b"," + wrapped + b"]"
    nested = wrap_neutral(provider="sahha", body=first.envelope, headers=first.headers, received_at=RECEIVED_AT)
    hostile = [Outgoing(first.body, headers=headers) for headers in renamed]
    await rig.publish([Outgoing(first.body, headers=first.headers), Outgoing(first.envelope), Outgoing(thrive)])
    well = build_source(rig.load().settings.source("well"))
    await well.open()
    hostile += map(Outgoing, (thrive, wrapped, nested, array))
    honest = [Outgoing(one.body, headers=one.headers) for one in (first, second)]
    await well.send([replace(one, ordering_key="u1") for one in (honest[0], *hostile, honest[1])])
    await well.close()
    await rig.consume(handled)
    assert sorted(rig.effects().values()) == [1, 1, 1]
    assert {event_id.split(":")[0] for event_id in rig.effects()} == {"thrive", "sahha"}
    found = Counter((letter["source"], letter["reason"]) for letter in rig.dead_letters())
    assert found == {
        ("labs", "unsigned"): 1,
        ("labs", "unreadable"): 1,
        ("well", "unknown_event"): 1,
        ("well", "unsigned"): 1,
        ("well", "bad_signature"): 1,
        ("well", "unreadable"): 5,
    }


HANDLERS = """
from sqlalchemy import text
from consumer import Context, DispatchTable, Reject
from consumer.events import ScoreEvent

table = DispatchTable()

@table.on(ScoreEvent)
async def store(event: ScoreEvent, context: Context) -> None:
    {code}
    await context.session.execute(text("CREATE TABLE IF NOT EXISTS effects (id TEXT, value TEXT)"))
    await context.session.execute(text("INSERT INTO effects VALUES (:i, 'x')"), {{"i": event.user_id}})
"""


@pytest.fixture
def sahha_project(project: Project) -> Project:
    """A partner's project whose source is Sahha's."""
    project.env["CONSUMER_SOURCES__LABS__PROVIDER"] = "sahha"
    project.env["CONSUMER_SAHHA__SIGNATURE__SECRETS"] = PROJECT_SECRET
    return project


def fill(project: Project, messages: list[Outgoing]) -> None:
    """Put messages on the project's queue as they are."""

    async def send() -> None:
        source = build_source(load_settings(env=project.env, cwd=project.folder).settings.source("labs"))
        try:
            await source.open()
            await source.send(messages)
        finally:
            await source.close()

    asyncio.run(send())


def test_replay_verifies_again(sahha_project: Project) -> None:
    """A dead letter has the headers as they came, so replay proves it again, native or neutral, and only once."""
    native, neutral = (webhook(ScoreEvent, secret=PROJECT_SECRET, externalId=name) for name in ("native", "neutral"))
    fill(sahha_project, [Outgoing(native.body, headers=native.headers), Outgoing(neutral.envelope)])
    sahha_project.handlers(module=HANDLERS.format(code="raise Reject('not now')"))
    assert sahha_project.run("run", "--until-idle", "--idle-after", "0.2s").exit_code == 0
    folder = sahha_project.folder / "dead-letters"
    letters = [found.record for found in FileArchive([folder]).read() if isinstance(found, Entry)]
    assert {(letter.message, tuple(letter.headers.items())) for letter in letters} == {  # type: ignore[union-attr]
        (native.body, tuple(native.headers.items())),
        (neutral.envelope, ()),
    }
    sahha_project.handlers(module=HANDLERS.format(code="pass"))
    env = {"CONSUMER_SAHHA__SIGNATURE__SECRETS": "another secret"}
    assert sahha_project.replay(env=env)[1]["fates"] == {"bad_signature": 2}
    assert sahha_project.replay()[1]["fates"] == {"handled": 2}
    assert sorted(sahha_project.effects()) == ["native", "neutral"]
    fill(sahha_project, [Outgoing(native.envelope), Outgoing(neutral.body, headers=neutral.headers)])
    result = sahha_project.run("run", "--until-idle", "--idle-after", "0.2s")
    assert result.exit_code == 0
    assert len(sahha_project.effects()) == 2


def test_publish(sahha_project: Project) -> None:
    """Bodies go out as Sahha's webhooks in neutral envelopes; what they do not say comes from options."""
    sahha_project.handlers(module=HANDLERS.format(code="pass"))
    at = datetime.now(UTC).isoformat()
    named = sample_body(ScoreEvent, externalId="u1", createdAtUtc=at)
    nameless = sample_body(ScoreEvent, externalId=None, createdAtUtc=at)
    lines = "\n".join(map(json.dumps, (named, nameless)))
    refused = sahha_project.run("publish", "labs", "-", stdin=lines)
    assert refused.exit_code == 1
    assert "standard input:2: not the body of an event: it has no externalId: use --external-id" in refused.stderr
    assert sahha_project.run("publish", "labs", "-", "--external-id", "u2", stdin=lines).exit_code == 0
    odd = json.dumps({"externalId": "u3", "createdAtUtc": at})
    assert "use --event-type" in sahha_project.run("publish", "labs", "-", stdin=odd).stderr
    assert sahha_project.run("publish", "labs", "-", "--event-type", "New", stdin=odd).exit_code == 0
    assert sahha_project.run("run", "--until-idle", "--idle-after", "0.2s").exit_code == 0
    assert sahha_project.effects() == ["u1", None]
    letters = sahha_project.run("dead-letters", "list", "--json").stdout
    assert [line["reason"] for line in json.loads(letters)] == ["unknown_event"]
    assert sahha_project.run("publish", "labs", "-", "--as-object", stdin=odd).exit_code == 2


def test_publish_options_are_sahhas(project: Project) -> None:
    """A source of Thrive's takes neither."""
    for option in ("--event-type", "--external-id"):
        assert project.run("publish", "labs", "-", option, "x", stdin="{}").exit_code == 2


def test_check_and_routes(sahha_project: Project) -> None:
    """A source of Sahha's is checked like any other: its own events need handlers, and its secret is asked for."""
    sahha_project.handlers(module=HANDLERS.format(code="pass"))
    rows = json.loads(sahha_project.run("check", "--json").stdout)
    assert not [row for row in rows if row["result"] == "failed"]
    (routes,) = [row["detail"] for row in rows if row["name"] == "routes"]
    assert routes.startswith("BiomarkerEvent, ArchetypeEvent, DataLogEvent: no handler")
    found = json.loads(sahha_project.run("routes", "--json").stdout)["routes"]
    assert [(row["event"], row["event_types"]) for row in found[:2]] == [
        ("ScoreEvent", ["ScoreCreatedIntegrationEvent"]),
        ("BiomarkerEvent", ["BiomarkerCreatedIntegrationEvent"]),
    ]
    del sahha_project.env["CONSUMER_SAHHA__SIGNATURE__SECRETS"]
    result = sahha_project.run("run", "--until-idle")
    assert result.exit_code == 2
    assert "CONSUMER_SAHHA__SIGNATURE__SECRETS is not set (nor _FILE): source labs cannot tell" in result.stderr
    schema = json.loads(sahha_project.run("schema", "--type", "DataLogReceivedIntegrationEvent").stdout)
    assert schema["title"] == "DataLogEvent"
