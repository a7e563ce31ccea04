"""Both stories once more, as processes at their most talkative: what they write down holds no body, token or key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from consumer.app import build_source
from consumer.sandbox import answers
from consumer.sandbox.project import write_sandbox_project
from consumer.settings_loading import load_settings
from consumer.testing import synthetic, synthetic_sahha
from tests.conformance.rig import eventually
from tests.servers.fixtures_sandbox import Caller

_ROOT = Path(__file__).parents[2]

CANARY = "canary-9c"
NUMBER = 7777.25
_TOKEN = "eyJ"
"""What every JWT begins with."""
_KEPT = re.compile(r"[0-9a-f-]{36}|\d{4}-\d\d-\d\d(T.*)?|pending|ready|active")
_NAMES = {"type", "logType", "dataType", "valueType", "periodicity", "aggregation", "externalId", "unit_type"}


def with_canaries(value: Any, name: str = "") -> Any:
    """The same with a canary in every text that is no id, time or word of the platform's, and in every float."""
    if isinstance(value, dict):
        return {key: with_canaries(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [with_canaries(one, name) for one in value]
    if isinstance(value, str) and not _KEPT.fullmatch(value) and name not in _NAMES:
        return f"{CANARY} {value}"
    return NUMBER if isinstance(value, float) else value


def leaky(function: Callable[..., Any]) -> Callable[..., Any]:
    """What it makes, with canaries."""
    return lambda *args, **kwargs: with_canaries(function(*args, **kwargs))


def struck(_: Any, strike: Any) -> web.Response:
    """A refusal that repeats what was asked, as platforms do."""
    detail = {"field": CANARY, "code": CANARY, "message": CANARY}
    error = {"code": "refused", "message": CANARY, "details": [detail], "request_id": "r-1"}
    headers = {} if strike.retry_after is None else {"Retry-After": strike.retry_after}
    return web.json_response({"error": error}, status=strike.status, headers={**headers, "X-Note": CANARY})


class Command:
    """A command as a process; kills what it started, and nothing else."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder.parent / f"{arguments[0]}.log"
        settings = {"LOG__LEVEL": "debug", "LOG__FORMAT": "json", "HEALTH__PORT": "0", "RETRY__BASE": "0.02"}
        env = {**os.environ, **{f"CONSUMER_{name}": value for name, value in settings.items()}}
        env |= {"HANDLERS_REPORT_CARDS_AS": "opened", "PYTHONPATH": str(_ROOT)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "consumer", *arguments],
                env=env,
                cwd=folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    async def logged(self, event: str) -> dict[str, Any]:
        """The first log line of this name, once it is there."""

        def there() -> list[dict[str, Any]]:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return [line for line in self.lines() if line.get("event") == event]

        await eventually(there, within=30, what=f"{event} in {self.log}")
        return there()[0]

    async def stopped(self) -> str:
        """Have it end cleanly; all that it wrote."""
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 30) == 0, self.log.read_text()[-3000:]
        return self.log.read_text()


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Command]:
    """A command for as long as the context lasts."""
    command = Command(folder, *arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()


async def test_nothing_of_a_body_a_token_or_a_key_is_written_down(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Canaries in all they are sent and answered, refusals and forgeries included: not one shows."""
    for name in ("nudge_card", "health_action", "lab_result", "daily_summary", "program"):
        monkeypatch.setattr(synthetic, name, leaky(getattr(synthetic, name)))
    for name in ("score", "biomarker", "archetype", "data_log"):
        monkeypatch.setattr(synthetic_sahha, name, leaky(getattr(synthetic_sahha, name)))
    monkeypatch.setattr(answers, "_struck", struck)
    folder, keys = tmp_path / "project", caller.sandbox.parts.credentials
    write_sandbox_project(folder, url=caller.sandbox.url, credentials=keys)
    with running(folder, "relay", "--port", "0") as relay, running(folder, "run") as worker:
        await worker.logged("started")
        await trouble_and_traffic(caller, folder, (await relay.logged("listening"))["port"])
        await handled(folder)
        port = (await worker.logged("health_server"))["port"]
        shown = [(await caller.raw("GET", f"http://127.0.0.1:{port}/{path}")).text for path in ("metrics", "readyz")]
        shown += [await worker.stopped(), await relay.stopped()]
    said = {line["event"] for line in worker.lines()}
    assert said >= {"source_paused", "handler_failed", "dead_lettered"}
    reasons = {line["reason"] for line in worker.lines() if line["event"] == "dead_lettered"}
    assert reasons >= {"unsigned", "bad_signature", "stale", "unknown_event", "unreadable"}
    assert CANARY in await asyncio.to_thread(everything, folder)  # it did go through
    secrets = [keys.tenant_key, keys.thrive_secret, *(getattr(keys.sahha, name) for name in keys.sahha.__slots__)]
    forbidden = [CANARY, str(NUMBER), _TOKEN, *secrets, *caller.sandbox.world.members]
    for text in shown:
        assert [line for line in text.splitlines() if any(word in line for word in forbidden)] == []


async def trouble_and_traffic(caller: Caller, folder: Path, relay_port: int) -> None:
    """Events and webhooks of every kind, and every kind of refusal in answer to the calls about them."""
    users = {"path": "/v1/users", "error_rate": 1, "times": 1}
    await caller.control(
        "/faults",
        rules=[
            {"path": "/v1/auth/token", "error_rate": 1, "status": 503, "retry_after": 0, "times": 1},
            {"path": "/v1/auth/token", "error_rate": 1, "status": 401, "times": 1},
            *({**users, "method": "GET", "status": status} for status in (401, 404, 422, 500)),
            *({**users, "method": "PATCH", "status": status} for status in (401, 409, 422)),
        ],
    )
    queue = {"path": str(folder / "queue" / "events.db")}
    body = {"queue_name": "all", "type": "local", "local": queue}
    assert (await caller.partner("POST", "/v1/admin/org/queues/all", json=body)).status == 201
    for contract in ("basic", "inline"):
        for stream in ("coaching-nudges", "lab-results", "daily-device-data", "program-updates"):
            assert (await caller.control("/events", stream=stream, contract=contract, count=3)).status == 202
    for kind in ("forged", "stale", "unknown"):
        assert (await caller.control("/events", kind=kind, contract="inline")).status == 202
    counts = caller.sandbox.thrive.publisher.counts
    await eventually(lambda: not any(one["buffered"] or one["later"] for one in counts().values()))
    await caller.control("/webhooks", url=f"http://127.0.0.1:{relay_port}/", retries=0)
    await caller.control("/webhooks/events", count=20, wait=True)
    for kind in ("forged", "tampered_external_id", "tampered_body", "missing_header", "unknown_type"):
        assert (await caller.control("/webhooks/events", kind=kind, count=3, wait=True)).status == 200


async def handled(folder: Path) -> None:
    """Wait until both queues are empty."""
    settings = load_settings(config=folder / "consumer.toml", env={}, cwd=folder).settings
    for name, path in (("events", "queue/events.db"), ("webhooks", "queue/webhooks.db")):
        source = build_source(settings.source(name).model_copy(update={"path": folder / path}))
        try:
            await source.open()
            async with asyncio.timeout(30):
                while (await source.depth()).total:
                    await asyncio.sleep(0.1)
        finally:
            await source.close()


def everything(folder: Path) -> str:
    """What the store and the dead letters hold."""
    files = [*folder.glob("consumer.db*"), *(folder / "dead-letters").glob("*.jsonl")]
    return "".join(file.read_bytes().decode(errors="replace") for file in files)
