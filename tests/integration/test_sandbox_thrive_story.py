"""The whole story on one machine: register a queue, consume, fetch what a basic event lacks, report the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.app import App, load_table
from consumer.sandbox.project import write_sandbox_project
from consumer.settings_loading import Loaded, load_settings
from tests.servers.fixtures_sandbox import Caller, until

ROOT = Path(__file__).parents[2]


def project(folder: Path, caller: Caller) -> Loaded:
    """The settings of the project beside this sandbox, with paths that do not depend on the current folder."""
    write_sandbox_project(folder, url=caller.sandbox.url, credentials=caller.sandbox.parts.credentials)
    overrides = {
        "sources.events.path": str(folder / "queue" / "events.db"),
        "sources.webhooks.path": str(folder / "queue" / "webhooks.db"),
        "database.url": f"sqlite:///{folder / 'consumer.db'}",
        "dead_letters.path": str(folder / "dead-letters"),
    }
    return load_settings(config=folder / "consumer.toml", env={}, cwd=folder, overrides=overrides)


async def test_basic_nudges_are_fetched_and_their_cards_reported_though_a_token_ends_early(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HANDLERS_REPORT_CARDS_AS", "opened")
    loaded = project(tmp_path / "project", caller)
    queue = {"path": str(loaded.settings.source("events").path)}
    body = {"queue_name": "all", "type": "local", "local": queue}
    before = {member.user_id: {row["card_item_id"] for row in member.cards.all()} for member in caller.sandbox.world}
    await caller.control("/events", stream="coaching-nudges", contract="basic", count=8)
    await caller.control("/events", stream="lab-results", contract="mixed", count=4)
    assert (await caller.partner("POST", "/v1/admin/org/queues/all", json=body)).status == 201
    publisher = caller.sandbox.thrive.publisher
    await until(lambda: sum(counts["published"] for counts in publisher.counts().values()) == 12)
    assert (await caller.control("/events", kind="duplicate", count=2)).status == 202
    await caller.control("/faults", rules=[{"path": "/v1/users", "error_rate": 1, "status": 401, "times": 1}])
    table = load_table("handlers", ROOT)
    async with App.opened(loaded, only="events", table=table, reload=lambda: loaded, poll_wait=0.2) as app:
        await app.worker.run(idle_after=0.3)
        totals = app.metrics.totals()
    assert totals["handled"] == 12
    assert totals["duplicates"] == 2
    assert totals["dead_letters"] == 1  # the unsigned test publish
    new = [
        row["interaction_status"]
        for member in caller.sandbox.world
        for row in member.cards.all()
        if row["card_item_id"] not in before[member.user_id]
    ]
    assert new
    assert set(new) == {"opened"}
