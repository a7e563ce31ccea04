"""`consumer relay`: what it refuses to start with, where it listens, how it ends."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consumer.cli import main
from consumer.cli import relay as relay_command
from consumer.errors import SettingsError
from consumer.relay import Relay
from consumer.relay.limits import connection_limit
from tests.faults.harness_relay import RelayProcess
from tests.relay_rig import request, webhook

SCORES = {"SCORES__KIND": "local", "SCORES__PATH": "queue", "SCORES__PROVIDER": "sahha"}


def relay(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, **env: str) -> Result:
    """Run the command in this process; only for starts that fail."""
    monkeypatch.chdir(folder)
    return CliRunner().invoke(
        main,
        ["relay", *arguments],
        env={f"CONSUMER_{name}": value for name, value in {"HEALTH__ENABLED": "false", **env}.items()},
    )


def sources(**given: str) -> dict[str, str]:
    return {f"SOURCES__{name}": value for name, value in given.items()}


@pytest.mark.parametrize(
    ("arguments", "env", "text"),
    [
        ([], {}, "CONSUMER_RELAY__SOURCE: no source is Sahha's: set CONSUMER_SOURCES__<NAME>__PROVIDER=sahha"),
        (
            [],
            sources(**SCORES, OTHER__KIND="local", OTHER__PATH="other", OTHER__PROVIDER="sahha"),
            "CONSUMER_RELAY__SOURCE: expected one of other, scores",
        ),
        (
            ["--source", "labs"],
            sources(**SCORES, LABS__KIND="local", LABS__PATH="labs"),
            "CONSUMER_SOURCES__LABS__PROVIDER: expected sahha, whose webhooks the relay receives, and not thrive",
        ),
        (["--source", "score"], sources(**SCORES), "'score' is not a source"),
        (
            [],
            {**sources(**SCORES), "RELAY__VERIFY": "true"},
            "CONSUMER_SAHHA__SIGNATURE__SECRETS is not set (nor _FILE)",
        ),
        ([], {**sources(**SCORES), "RELAY__MAX_BODY_BYTES": "1MiB"}, "MAX_BODY_BYTES: expected 780096 or less"),
        ([], {**sources(**SCORES), "RELAY__TIMEOUT": "1m"}, "CONSUMER_RELAY__TIMEOUT: expected 15s or less"),
        (["--host", "192.0.2.1"], sources(**SCORES), "CONSUMER_RELAY__PORT: cannot listen on 192.0.2.1 port 8081"),
        (["--port", "70000"], sources(**SCORES), "Invalid value for '--port'"),
    ],
)
def test_wrong_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], env: dict[str, str], text: str
) -> None:
    """One line that says what is expected, exit code 2, no traceback."""
    result = relay(tmp_path, monkeypatch, *arguments, **env)
    assert result.exit_code == 2
    assert text in result.stderr
    assert "Traceback" not in result.output


def test_a_queue_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, exit code 1: only a person can help."""
    (tmp_path / "queue").write_text("no queue at all, but a text of some length")
    result = relay(tmp_path, monkeypatch, **sources(**SCORES))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: source scores: ")


def test_no_limit_of_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the system says as a negative number, is not the smallest one."""
    seen: list[int] = []

    class Looked(Relay):
        def __init__(self, *arguments: Any, open_files: int, **others: Any) -> None:
            seen.append(connection_limit(500, open_files))
            super().__init__(*arguments, open_files=open_files, **others)

        async def open(self) -> bool:
            raise SettingsError("seen enough")

    monkeypatch.setattr(relay_command, "Relay", Looked)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert relay(tmp_path, monkeypatch, **sources(**SCORES)).exit_code == 2
    assert seen == [1000]


async def test_a_relay_from_start_to_end(tmp_path: Path) -> None:
    """It says where it listens, answers, tells of its health, and ends with 0; the flags win over the environment."""
    with RelayProcess(tmp_path, "--port", "0", HEALTH__ENABLED="true", HEALTH__PORT="0") as process:
        port = await process.port()
        assert await process.get("/readyz") == (200, "ok\n")
        assert await process.ask(port, webhook(1)) == 200
        assert await process.ask(port, request(b"{}")) == 400
        _, metrics = await process.get("/metrics")
        assert 'health_consumer_relay_requests_total{status="200"} 1.0' in metrics
        process.send(signal.SIGINT)
        assert await process.ended() == 0
        (stopped,) = process.events("stopped")
        assert stopped["accepted"] == 1
        assert "u1" not in process.text


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Although a webhook is in hand: with 128 and its number."""
    (tmp_path / "stuck.py").write_text(
        "import asyncio\n"
        "from consumer.sources.local import LocalSource\n"
        "class Stuck(LocalSource):\n"
        "    async def send(self, messages):\n"
        "        await asyncio.sleep(60)\n"
    )
    changes = {"SOURCES__SCORES__KIND": "stuck:Stuck", "APP_DIR": str(tmp_path)}
    with RelayProcess(tmp_path, **changes) as process:
        port = await process.port()
        await process.leave(port, webhook(1))
        process.send(signal.SIGTERM)
        assert (await process.logged("draining"))["in_hand"] == 1
        process.send(signal.SIGTERM)
        assert await process.ended(within=5) == 128 + signal.SIGTERM


async def test_secrets_are_read_again(tmp_path: Path) -> None:
    """With verify on, a rotated secret in its file is used without a restart."""
    secrets = tmp_path / "secrets"
    secrets.write_text("an old one\n")
    changes = {"SAHHA__SIGNATURE__SECRETS": "", "SAHHA__SIGNATURE__SECRETS_FILE": str(secrets)}
    with RelayProcess(tmp_path, RELAY__VERIFY="true", **changes) as process:
        port = await process.port()
        assert await process.ask(port, webhook(1)) == 401
        secrets.write_text("an old one\na webhook secret of the tests\n")
        await process.logged("secrets_reloaded")
        assert await process.ask(port, webhook(1)) == 200
