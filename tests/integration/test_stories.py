"""From a platform to the store and back: the sandbox sends, the real parts take it from there, over SQS."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumer.app import App
from consumer.settings_loading import Loaded, load_settings
from consumer.sources.base import Outgoing
from consumer.sources.sqs import SqsSource
from handlers import table
from tests.integration.cli_platforms import CommandLine, command_line
from tests.relay_rig import neutral, relaying
from tests.servers.fixtures_sandbox import Caller, until
from tests.servers.names import fresh_name

cli = pytest.fixture(command_line)

SCORE = "ScoreCreatedIntegrationEvent"
BIOMARKER = "BiomarkerCreatedIntegrationEvent"
ARCHETYPE = "ArchetypeCreatedIntegrationEvent"
DATA_LOG = "DataLogReceivedIntegrationEvent"

Row = tuple[tuple[str, ...], tuple[Any, ...]]
Rows = Callable[[dict[str, Any]], Iterator[Row]]
"""What the store is to hold of a body: keys, and the values under them."""


class NotingQueue(SqsSource):
    """An SQS queue that notes what was put on it."""

    def __init__(self, chosen: Any) -> None:
        super().__init__(chosen)
        self.noted: list[Outgoing] = []

    async def send(self, messages: Sequence[Outgoing]) -> None:
        await super().send(messages)
        self.noted += messages


async def sqs_queue(moto_url: str) -> dict[str, str]:
    """A new queue of moto's, as the settings of a source."""
    import aioboto3  # half a second that no other test should pay

    async with aioboto3.Session().client("sqs", endpoint_url=moto_url) as client:
        url = (await client.create_queue(QueueName=fresh_name()))["QueueUrl"]
    return {"KIND": "sqs", "QUEUE_URL": url, "ENDPOINT_URL": moto_url, "REGION": "us-east-1"}


def environment(folder: Path, source: str, queue: Mapping[str, str], **more: str) -> dict[str, str]:
    """A worker's settings as environment variables."""
    given = {f"SOURCES__{source}__{name}": value for name, value in queue.items()} | {
        "DATABASE__URL": f"sqlite:///{folder / 'consumer.db'}",
        "DEAD_LETTERS__PATH": str(folder / "dead-letters"),
        **more,
    }
    return {f"CONSUMER_{name}": value for name, value in given.items()}


async def consume(loaded: Loaded) -> dict[str, int]:
    """Run the shipped handlers until the queue is empty; what became of its events."""
    async with App.opened(loaded, table=table, poll_wait=1.0) as app, asyncio.timeout(60):
        await app.worker.run(idle_after=0.1)
        return app.metrics.totals()


def stored(folder: Path, query: str) -> list[Any]:
    """Rows of the store."""
    with closing(sqlite3.connect(folder / "consumer.db")) as database:
        return database.execute(query).fetchall()


def put_aside(folder: Path) -> dict[str, dict[str, Any]]:
    """The dead letters by their ids: one that the queue handed out twice counts once."""
    files = (folder / "dead-letters").glob("*.jsonl")
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {one["id"]: one for one in found}


# Sahha


def moment(text: str) -> str:
    """A time as the store has it."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def newest(bodies: Sequence[dict[str, Any]], row: Rows) -> dict[tuple[str, ...], Any]:
    """By key, what the newest of these bodies says."""
    found: dict[tuple[str, ...], Any] = {}
    for body in sorted(bodies, key=lambda one: datetime.fromisoformat(one.get("createdAtUtc") or one["receivedAtUtc"])):
        found.update(row(body))
    return found


def score_rows(body: dict[str, Any]) -> Iterator[Row]:
    yield (body["profileId"], body["type"], moment(body["scoreDateTime"])), (body["score"], body["state"])


def biomarker_rows(body: dict[str, Any]) -> Iterator[Row]:
    kind = (body["category"], body["type"], body["periodicity"], body["aggregation"])
    yield (body["profileId"], *kind, moment(body["startDateTime"])), (body["value"],)


def archetype_rows(body: dict[str, Any]) -> Iterator[Row]:
    yield (body["profileId"], body["name"], body["periodicity"], moment(body["startDateTime"])), (body["value"],)


def data_log_rows(body: dict[str, Any]) -> Iterator[Row]:
    for log in body["dataLogs"]:
        yield (body["profileId"], log["id"]), (body["logType"], log["value"])


TABLES: dict[str, tuple[str, int, Rows]] = {
    SCORE: ("SELECT profile_id, type, score_date_time, score, state FROM sahha_scores", 3, score_rows),
    BIOMARKER: (
        "SELECT profile_id, category, type, periodicity, aggregation, start_date_time, raw_value FROM sahha_biomarkers",
        6,
        biomarker_rows,
    ),
    ARCHETYPE: (
        "SELECT profile_id, name, periodicity, start_date_time, value FROM sahha_archetypes",
        4,
        archetype_rows,
    ),
    DATA_LOG: ("SELECT profile_id, log_id, log_type, value FROM sahha_data_logs", 2, data_log_rows),
}


async def test_a_webhook_reaches_the_store_through_relay_and_queue(
    caller: Caller, tmp_path: Path, aws_environment: None, moto_url: str
) -> None:
    """All four types, updates, repeats: the newest values are stored. What nobody signed is put aside, nothing lost."""
    queue = await sqs_queue(moto_url) | {"PROVIDER": "sahha"}
    secret = caller.sandbox.sahha.webhook_secret
    env = environment(tmp_path, "SCORES", queue, SAHHA__SIGNATURE__SECRETS=secret)
    loaded = load_settings(env=env, cwd=tmp_path)
    source = NotingQueue(loaded.settings.source("scores"))
    changes = {f"SOURCES__SCORES__{name}": value for name, value in {**queue, "PATH": ""}.items()}
    member = caller.sandbox.world.members[0]
    async with relaying(tmp_path, queue=source, SAHHA__SIGNATURE__SECRETS=secret, **changes) as relay:
        await caller.control("/webhooks", url=f"http://127.0.0.1:{relay.relay.port}/hook", retries=0)
        for event_type in TABLES:
            await caller.control("/webhooks/events", event_type=event_type, count=5, wait=True)
        for _ in range(3):  # the same score of the same day, computed again
            await caller.control("/webhooks/events", same_metric=True, external_id=member)
        await caller.control("/webhooks/events", kind="replay", count=4, wait=True)
        await caller.control("/webhooks/events", kind="forged", count=2, wait=True)
        await caller.control("/webhooks/events", kind="tampered_external_id", wait=True)
        await caller.control("/webhooks/events", kind="missing_header", wait=True)
        await until(lambda: len(source.noted) == 20 + 3 + 4 + 2 + 1)
        told = (await caller.raw("GET", "/sandbox/webhooks")).json
    assert told["answers"] == {"200": len(source.noted), "400": 1}

    totals = await consume(loaded)
    letters = put_aside(tmp_path)
    assert sorted(one["reason"] for one in letters.values()) == ["bad_signature", "bad_signature", "unreadable"]
    unproven = {one["message"] for one in letters.values()}
    good = [neutral(one.body) for one in source.noted if one.body.decode() not in unproven]
    assert len(good) == 20 + 3 + 4
    assert totals["handled"] == len({one.body for one in good}) == 23
    assert totals["duplicates"] >= 4  # moto hands a message out twice now and then
    assert totals["retried"] == 0
    for event_type, (query, keys, rows) in TABLES.items():
        sent = [json.loads(one.body) for one in good if one.headers["x-event-type"] == event_type]
        assert {row[:keys]: row[keys:] for row in stored(tmp_path, query)} == newest(sent, rows), event_type
    assert len(stored(tmp_path, "SELECT DISTINCT external_id FROM sahha_biomarkers")) > 1


# Thrive


async def test_a_basic_nudge_is_fetched_stored_and_reported_back(
    caller: Caller, cli: CommandLine, aws_environment: None, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Register an SQS queue, consume what comes: cards and actions are fetched, and each card counts as opened."""
    monkeypatch.setenv("HANDLERS_REPORT_CARDS_AS", "opened")
    folder = cli.folder
    queue = await sqs_queue(moto_url)
    sandbox = caller.sandbox
    cli.env |= environment(
        folder,
        "NUDGES",
        queue,
        THRIVE__SIGNATURE__SECRETS=sandbox.thrive_secret,
        THRIVE__TENANT_KEY=sandbox.tenant_key,
        THRIVE__BASE_URL=sandbox.url,
    )
    cli.secrets = [sandbox.thrive_secret, sandbox.tenant_key]
    before = {row["card_item_id"] for member in sandbox.world for row in member.cards.all()}

    registered = await cli.json("thrive", "queues", "register", "coaching-nudges", "--source", "nudges")
    assert registered["type"] == "aws_sqs"
    ids = (await caller.control("/events", stream="coaching-nudges", contract="basic", count=12)).json["event_ids"]
    counts = sandbox.thrive.publisher.counts
    await until(lambda: counts()["coaching-nudges"]["published"] == 12)
    await caller.control("/events", kind="duplicate", count=2)
    await caller.control("/events", kind="replay", count=2)
    await until(lambda: counts()["coaching-nudges"]["published"] == 16)

    env = {name: value for name, value in cli.env.items() if name != "CONSUMER_LOG__LEVEL"}
    totals = await consume(load_settings(env=env, cwd=folder))
    assert (totals["handled"], totals["retried"]) == (12, 0)
    assert totals["duplicates"] >= 4
    (letter,) = put_aside(folder).values()  # the registration's test publish
    assert (letter["reason"], json.loads(letter["message"])["event_type"]) == ("unsigned", "queue.test")

    owners = {row["card_item_id"]: member.user_id for member in sandbox.world for row in member.cards.all()}
    cards = {
        row["card_item_id"]: row["interaction_status"]
        for member in sandbox.world
        for row in member.cards.all()
        if row["card_item_id"] not in before
    }
    assert cards
    assert set(cards.values()) == {"opened"}
    rows = stored(folder, "SELECT kind, nudge_id, status, title, event_id FROM nudges")
    assert sorted(row[4] for row in rows) == sorted(ids)
    assert {row[1]: row[2] for row in rows if row[0] == "card"} == cards
    assert {row[0] for row in rows} == {"card", "health_action"}
    assert all(row[3] for row in rows)  # what no basic event says
    one = next(iter(cards))
    listed = await cli.json("thrive", "cards", "list", owners[one], "--status", "opened")
    assert one in {card["card_item_id"] for card in listed}
