"""`consumer settings`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consumer.cli.settings import command

CANARY = "canary-7f3a"
ENV = {
    "CONSUMER_SOURCES__LABS__KIND": "partner.queues:Kafka",
    "CONSUMER_SOURCES__LABS__OPTIONS__TOKEN": CANARY,
    "CONSUMER_SOURCES__LABS__CONNECTION_STRING": CANARY,
    "CONSUMER_SOURCES__LABS__ENDPOINT_URL": f"https://user:{CANARY}@host/path?sig={CANARY}",
    "CONSUMER_THRIVE__SIGNATURE__SECRETS": f'["{CANARY}", "{CANARY}"]',
    "CONSUMER_DATABASE__URL": f"postgresql://user:{CANARY}@host/name",
    "CONSUMER_MAX_ATTEMPTS": "3",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(command, arguments, env=ENV if env is None else env)


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_no_secret_is_printed(folder: Path, arguments: tuple[str, ...]) -> None:
    """Whatever may be a secret is masked in every form of the output."""
    result = run(*arguments)
    assert result.exit_code == 0
    assert CANARY not in result.output
    assert "********" in result.output


def test_json_has_each_value_with_its_origin(folder: Path) -> None:
    """Programs can read what holds, how the environment spells it, and where it came from."""
    (folder / "consumer.toml").write_text("drain_timeout = '1m30s'\n", encoding="utf-8")
    lines = {line["setting"]: line for line in json.loads(run("--json").stdout)}
    assert lines["drain_timeout"] == {
        "setting": "drain_timeout",
        "environment": "CONSUMER_DRAIN_TIMEOUT",
        "value": "1m30s",
        "origin": "consumer.toml",
    }
    assert lines["thrive.signature.secrets"]["value"] == "********, ********"
    assert lines["database.url"]["value"] == "postgresql://********"
    assert lines["sources.labs.endpoint_url"]["value"] == "https://********@host/path?********"
    assert lines["sources.labs.max_attempts"]["value"] == "3"
    assert lines["sources.labs.max_attempts"]["origin"] == "environment CONSUMER_MAX_ATTEMPTS"
    assert lines["dead_letters.max_age"]["value"] == "60d"
    assert "sources.labs.queue_url" not in lines


def test_wrong_setting_is_one_line_and_exit_2(folder: Path) -> None:
    """A wrong setting is named on standard error, without a traceback."""
    result = run(env={"CONSUMER_MAX_ATTEMPTS": CANARY})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: CONSUMER_MAX_ATTEMPTS: expected a whole number, 1 or more\n"


def test_named_config_is_read(folder: Path) -> None:
    """--config names the file, and its settings say so."""
    (folder / "other.toml").write_text("max_attempts = 4\n", encoding="utf-8")
    assert "4" in next(
        line for line in run("--config", "other.toml", env={}).stdout.splitlines() if "other.toml" in line
    )


def test_reference_needs_no_settings(folder: Path) -> None:
    """The table for the documentation does not depend on what is configured, not even when that is wrong."""
    result = run("--markdown", env={"CONSUMER_NONSENSE": "x"})
    assert result.exit_code == 0
    assert "| `CONSUMER_SOURCES__<NAME>__KIND` | `sources.<name>.kind` |" in result.stdout


def test_help_has_an_example() -> None:
    """--help shows how the command is used."""
    assert "Example: " in run("--help").stdout
