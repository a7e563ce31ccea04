"""A webhook's whole way: relay, SQS, worker, the shipped handlers, their tables."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from consumer import SahhaSignature
from consumer.app import App, build_source
from consumer.settings_loading import load_settings
from handlers import table
from tests.relay_rig import SCORE, SECRET, relaying, request
from tests.servers.names import fresh_name

_FORGED = 1


async def test_from_the_webhook_to_the_store(tmp_path: Path, aws_environment: None, moto_url: str) -> None:
    """What Sahha signed is stored once, however often it comes; what somebody else signed is a dead letter."""
    import aioboto3  # half a second that no other test should pay

    async with aioboto3.Session().client("sqs", endpoint_url=moto_url) as client:
        url = (await client.create_queue(QueueName=fresh_name()))["QueueUrl"]
    given = {"KIND": "sqs", "QUEUE_URL": url, "ENDPOINT_URL": moto_url, "REGION": "us-east-1", "PROVIDER": "sahha"}
    env = {f"CONSUMER_SOURCES__SCORES__{name}": value for name, value in given.items()} | {
        "CONSUMER_SAHHA__SIGNATURE__SECRETS": SECRET,
        "CONSUMER_DATABASE__URL": f"sqlite:///{tmp_path / 'consumer.db'}",
        "CONSUMER_DEAD_LETTERS__PATH": str(tmp_path / "dead-letters"),
    }
    loaded = load_settings(env=env, cwd=tmp_path)
    changes = {f"SOURCES__SCORES__{name}": value for name, value in {**given, "PATH": ""}.items()}
    source = build_source(loaded.settings.source("scores"))
    async with relaying(tmp_path, queue=source, **changes) as running:
        for secret in (SECRET, SECRET, "guessed"):
            raw = _score()
            signed = SahhaSignature(secrets=[secret]).sign(raw, external_id="member-1", event_type=SCORE)
            headers = {name.replace("-", "_"): value for name, value in signed.items()}
            assert (await running.ask(request(raw, **headers)))[0] == 200
    async with App.opened(loaded, table=table, poll_wait=1.0) as app, asyncio.timeout(60):
        await app.worker.run(idle_after=0.1)
        assert app.metrics.totals() == {"handled": 1, "duplicates": 1, "retried": 0, "dead_letters": _FORGED}
    with closing(sqlite3.connect(tmp_path / "consumer.db")) as database:
        stored = database.execute("SELECT external_id, type, score FROM sahha_scores").fetchall()
    assert stored == [("member-1", "sleep", 0.85)]


_AT = datetime.now(UTC).isoformat()


def _score() -> bytes:
    content = {"id": "s1", "profileId": "p1", "accountId": "a1", "externalId": "member-1", "type": "sleep"}
    more = {"state": "high", "score": 0.85, "factors": [], "dataSources": ["sleep"], "scoreDateTime": _AT}
    return json.dumps({**content, **more, "createdAtUtc": _AT, "version": 1}).encode()
