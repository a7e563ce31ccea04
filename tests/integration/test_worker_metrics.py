"""What a worker shows of its queues, its pauses and its secrets while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from consumer import Context
from consumer.app import App
from consumer.events import LabResultEvent
from consumer.settings_loading import Loaded
from consumer.sources.base import Depth
from tests.conformance import odd_sources
from tests.conformance.rig import SECRET, Rig, effect, effects_table, eventually, lab_result, nothing_stray, signed
from tests.faults.harness_azure import opened_hub
from tests.servers.azurite import Azurite

_RETENTION = 4 * 86_400


def _value(app: App) -> Callable[..., float | None]:
    return lambda name, **labels: app.metrics.value(name, source="labs", **labels)


async def test_a_backlog_is_seen_and_goes(tmp_path: Path) -> None:
    """Paused by an operator: what waits, for how long, and how long it may; then handled, and nothing waits.

    What a queue told long ago of its oldest message does not count.
    """
    table = effects_table()
    table.on(LabResultEvent)(_store)
    rig = Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue"), "OPTIONS__RETENTION": "4d"})
    async with rig.worker(table) as app:
        value, intake = _value(app), app.worker.intakes[0]
        await rig.publish([signed(lab_result("first"))])
        await eventually(lambda: app.metrics.totals()["handled"] == 1)
        intake.pause_by_operator("a test")
        await rig.publish(signed(lab_result(f"e{number}")) for number in range(3))
        assert value("source_paused") == 1
        assert value("source_paused_info", reason="operator") == 1
        async with asyncio.timeout(10):
            while value("queue_messages", state="visible") != 3:
                # A receive that was under way may have them for a moment, to give them back.
                await asyncio.sleep(0.02)
                await app.backlog.look()
        age, margin = value("oldest_age_seconds"), value("expiry_margin_seconds")
        assert age is not None
        assert margin is not None
        assert 0 < age < 60
        assert _RETENTION - 60 < margin < _RETENTION
        assert value("retention_seconds") == _RETENTION
        assert value("parked_events") == 0
        intake.resume_by_operator()
        await eventually(lambda: app.metrics.totals()["handled"] == 4)
        await eventually(lambda: not intake.held)
        await app.backlog.look()
        assert value("source_paused") == 0
        assert value("source_paused_info", reason="operator") is None
        assert value("queue_messages", state="visible") == 0
        assert value("oldest_age_seconds") == 0
        assert value("expiry_margin_seconds") is None
        assert value("accepted_to_handled_seconds_count") == 4
        assert (value("settle_seconds_count", operation="acknowledge") or 0) >= 1
        an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
        intake._metrics.backlog(Depth(1), at=time.time(), waiting_since=an_hour_ago)
        assert 3600 <= (value("oldest_age_seconds") or 0) < 3660
        intake._metrics.backlog(Depth(1), at=time.time() - 600, waiting_since=an_hour_ago)
        assert value("oldest_age_seconds") == 0


async def test_a_queue_that_fails(tmp_path: Path) -> None:
    """Receives that raise are counted."""
    table = effects_table()
    table.on(LabResultEvent)(_store)
    odd_sources.Broken.failing = {"receive": 1}
    rig = Rig(tmp_path, {"KIND": "tests.conformance.odd_sources:Broken", "PATH": str(tmp_path / "queue")})
    await rig.publish([signed(lab_result("first"))])
    async with rig.worker(table) as app:
        await eventually(lambda: app.metrics.totals()["handled"] == 1)
        assert _value(app)("receive_errors_total") == 1


async def test_secrets_that_change(tmp_path: Path) -> None:
    """Put to use or not: both are counted, and when it last went well."""
    secrets = tmp_path / "secrets"
    secrets.write_text(SECRET)
    rig = Rig(
        tmp_path,
        {"KIND": "local", "PATH": str(tmp_path / "queue")},
        {"THRIVE__SIGNATURE__SECRETS_FILE": str(secrets)},
        {"THRIVE__SIGNATURE__SECRETS"},
    )

    def load() -> Loaded:
        return rig.load()

    with nothing_stray():
        async with App.opened(load(), table=effects_table(), reload=load, poll_wait=0.1) as app:
            running = asyncio.create_task(app.worker.run())
            value = app.metrics.value
            try:
                assert value("secret_reload_timestamp_seconds") == 0
                secrets.write_text(f"another\n{SECRET}\n")
                await eventually(lambda: value("secret_reloads_total", result="done") == 1)
                assert (value("secret_reload_timestamp_seconds") or 0) > 0
                assert value("secret_reloads_total", result="failed") == 0
                secrets.write_text("")
                await eventually(lambda: value("secret_reloads_total", result="failed") == 1)
            finally:
                app.worker.stop()
                await running


async def test_partitions(tmp_path: Path, azurite: Azurite) -> None:
    """Of a hub: how many there are and are read, how far behind each is, and how old what it waits for is."""
    table = effects_table()
    going = asyncio.Event()

    @table.on(LabResultEvent)
    async def store(event: LabResultEvent, context: Context) -> None:
        if event.event_id == "slow":
            await going.wait()
        await effect(event, context)

    async with opened_hub(tmp_path, azurite) as (hub, rig):
        hub.fill("events", [signed(lab_result(name)) for name in ("slow", "quick")], partition="0")
        async with rig.worker(table) as app:
            value = _value(app)
            await eventually(lambda: app.metrics.totals()["handled"] == 1)
            await app.backlog.look()
            assert value("partitions") == 1
            assert value("partitions_owned") == 1
            assert value("partitions_stalled") == 0
            assert value("partition_changes_total") == 1
            assert value("partition_lag_events", partition="0") == 1
            assert 0 < (value("partition_lag_seconds", partition="0") or 0) < 60
            assert value("checkpoint_age_seconds", partition="0") == 0
            assert 0 < (value("oldest_age_seconds") or 0) < 60
            going.set()
            await eventually(lambda: app.metrics.totals()["handled"] == 2)
            await eventually(lambda: value("partition_lag_seconds", partition="0") == 0)
            assert value("checkpoint_failures_total") == 0


async def _store(event: LabResultEvent, context: Context) -> None:
    await effect(event, context)
