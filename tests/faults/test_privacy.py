"""Health data stays out of sight: whatever is in a message, and whatever handlers do with it."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from consumer.sources.base import Outgoing
from tests.conformance.rig import Rig, lab_result, program, signed
from tests.faults.harness import WorkerProcess

CANARY = "canary-5b"

FAILING = (
    "value",
    "key",
    "odd",
    "cause",
    "group",
    "pydantic",
    "integrity",
    "statement",
    "timeout",
    "exit",
)
QUIET = ("logs", "stray", "callback")


def _with_canaries(value: Any) -> Any:
    """The same with a canary in every text."""
    if isinstance(value, dict):
        return {key: _with_canaries(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_canaries(one) for one in value]
    return f"{CANARY} {value}" if isinstance(value, str) else value


def _body(body: dict[str, Any]) -> dict[str, Any]:
    kept = {key: body[key] for key in ("event_id", "event_type", "occurred_at")}
    return {**body, "user_id": f"{CANARY} user", "extra": {CANARY: CANARY}, **kept}


def _messages() -> tuple[list[Outgoing], Counter[str]]:
    bodies = [_body(program(f"{way}-1")) for way in (*FAILING, *QUIET, "reject")]
    rich = lab_result("fine-1")
    bodies.append({**_body(rich), "data": {**rich["data"], "note": CANARY}})
    messages = [signed(body) for body in bodies]
    reasons: Counter[str] = Counter(attempts_exhausted=len(FAILING), rejected=1)
    wrong = [
        (signed({**_body(program("invalid-1")), "target": CANARY}), "invalid_event"),
        (signed({**_body(program("invalid-2")), "occurred_at": CANARY}), "invalid_event"),
        (signed({**_body(lab_result("invalid-3")), "data": [CANARY]}), "invalid_event"),
        (signed({**_body(program("unknown-1")), "event_type": "never.heard.of"}), "unknown_event"),
        (signed(_body(program("forged-1")), secret=CANARY), "bad_signature"),
        (signed(_body(program("stale-1")), signed_at=datetime.now(UTC) - timedelta(days=9)), "stale"),
        (json.dumps({"body": CANARY, "signed_at": CANARY}).encode(), "unsigned"),
        (json.dumps({"body": CANARY, "signed_at": CANARY, "signature": CANARY}).encode(), "bad_signature"),
        (signed(_body(program("time-1")), signed_at=CANARY), "unreadable"),
        (f"{{'{CANARY}'".encode(), "unreadable"),
        (f"[{CANARY}]".encode(), "unreadable"),
    ]
    reasons.update(reason for _, reason in wrong)
    messages += [raw for raw, _ in wrong]
    return [Outgoing(raw, headers={"X-Note": CANARY}) for raw in messages], reasons


async def test_no_canary_anywhere(stub_rig: Rig) -> None:
    """At the most talkative log level no log, metric, probe or kept error holds anything of a message."""
    messages, reasons = _messages()
    await stub_rig.publish(messages)
    changes = {
        "HANDLERS": "leaky",
        "HANDLER_CANARY": CANARY,
        "LOG__LEVEL": "debug",
        "MAX_ATTEMPTS": "2",
        "HEALTH__ENABLED": "true",
        "HEALTH__PORT": "0",
    }
    with WorkerProcess(stub_rig, **changes) as worker:
        await worker.logged("dead_lettered", sum(reasons.values()))
        port = (await worker.logged("health_server"))["port"]
        await asyncio.sleep(0.5)
        shown = [await asyncio.to_thread(_fetch, f"http://127.0.0.1:{port}/{path}") for path in ("metrics", "livez")]
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert stub_rig.reasons() == reasons
    for text in (worker.text, *shown):
        leaks = [line for line in text.splitlines() if CANARY in line]
        assert leaks == []
    assert CANARY not in json.dumps([record["error"] for record in stub_rig.dead_letters()])
    unproven = [one for one in stub_rig.dead_letters() if one["reason"] in ("unsigned", "bad_signature", "stale")]
    assert all(one["event_id"] is one["event_type"] is one["user_id"] is None for one in unproven)


def _fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as reply:
        return str(reply.read().decode())
