"""`consumer init`: a project that works as it is written."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import consumer
from consumer.cli.init import command
from consumer.project import shipped_handlers, write_project
from consumer.settings_loading import load_settings

ROOT = Path(consumer.__file__).parent.parent
FILES = {
    ".dockerignore",
    ".gitignore",
    "Dockerfile",
    "README.md",
    "consumer.toml",
    "handlers/__init__.py",
    "handlers/fetching.py",
    "handlers/forgetting.py",
    "handlers/sahha_store.py",
    "handlers/sahha_tables.py",
    "handlers/store.py",
    "handlers/tables.py",
    "handlers/upserts.py",
    "pytest.ini",
    "requirements-dev.txt",
    "requirements.txt",
    "samples/lab-result.json",
    "secrets/thrive",
    "tests/test_handlers.py",
}


def init(folder: Path | str) -> str:
    result = CliRunner().invoke(command, [str(folder)])
    assert result.exit_code == 0, result.output
    return result.output


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def inside(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter in a project, with this package importable and no settings from outside."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONSUMER_")}
    env |= {"PYTHONPATH": str(ROOT), "CONSUMER_HEALTH__ENABLED": "false"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def consumer_command(folder: Path, *arguments: str) -> str:
    result = inside(folder, "-c", "from consumer.cli import main; main()", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_what_is_written(tmp_path: Path) -> None:
    """A new folder gets a whole project, whose secret is its owner's alone and different each time."""
    said = init(tmp_path / "one")
    init(tmp_path / "two")
    written = files(tmp_path / "one")
    assert set(written) == FILES
    assert all(name in said for name in FILES)
    secret = tmp_path / "one" / "secrets" / "thrive"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert len(written["secrets/thrive"].strip()) == 64
    assert written["secrets/thrive"] != files(tmp_path / "two")["secrets/thrive"]
    assert f"=={consumer.__version__}\n" in written["requirements-dev.txt"]
    assert f"CONSUMER=health-event-consumer:{consumer.__version__}\n" in written["Dockerfile"]
    assert not re.search("^[^#]", written["requirements.txt"], re.MULTILINE)  # the image has the consumer already
    assert not any("@VERSION@" in text for text in written.values())


def test_the_handlers_are_the_shipped_ones(tmp_path: Path) -> None:
    """The project's handlers are a copy of those this package is tested with."""
    init(tmp_path)
    for path in shipped_handlers().glob("*.py"):
        assert (tmp_path / "handlers" / path.name).read_text() == path.read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second run changes nothing and says what it kept; what is missing is written."""
    init(tmp_path)
    (tmp_path / "consumer.toml").write_text("# mine\n")
    (tmp_path / "Dockerfile").unlink()
    before = files(tmp_path)
    said = init(tmp_path)
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"Dockerfile"}
    written, kept = said.split("Kept as it was:")
    assert "Dockerfile" in written
    assert "consumer.toml" in kept
    assert "handlers" in kept


@pytest.mark.parametrize("mine", ["handlers/__init__.py", "handlers.py"])
def test_handlers_that_exist_are_not_mixed_with(tmp_path: Path, mine: str) -> None:
    """Somebody's handlers stay alone: none of the shipped files, nor their test, is put beside them."""
    path = tmp_path / mine
    path.parent.mkdir(exist_ok=True)
    path.write_text("table = None\n")
    init(tmp_path)
    assert {name for name in files(tmp_path) if "handlers" in name} == {mine}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A file where the folder should be is wrong usage; one where a folder of the project should be is one line."""
    (tmp_path / "file").write_text("")
    assert CliRunner().invoke(command, [str(tmp_path / "file")]).exit_code == 2
    (tmp_path / "samples").write_text("")
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)


def test_its_settings_are_right(tmp_path: Path) -> None:
    """The settings are valid as they are, and with any of the commented queues in the place of the local one."""
    init(tmp_path)
    path = tmp_path / "consumer.toml"
    settings = load_settings(env={}, cwd=tmp_path).settings
    assert settings.source("events").kind == "local"
    assert len(settings.thrive.signature.secrets) == 1
    local = '[sources.events]\nkind = "local"\npath = "queue/events.db"\n'
    text = path.read_text()
    assert local in text
    blocks = re.findall(r"(?:^# (?:\[|[a-z_.]+ = ).*\n)+", text, flags=re.MULTILINE)
    queues = [block for block in blocks if block.startswith("# [sources.events]")]
    for block, kind in zip(queues, ("sqs", "storage_queue", "event_hubs"), strict=True):
        path.write_text(text.replace(local, uncommented(block)))
        assert tomllib.loads(path.read_text())["sources"]["events"]["kind"] == kind
        assert load_settings(env={}, cwd=tmp_path).settings.source("events").kind == kind
    (key,) = [block for block in blocks if block.startswith("# [thrive]")]
    path.write_text(text.replace(key, uncommented(key)))
    (tmp_path / "secrets" / "thrive-tenant-key").write_text("a key\n")
    assert load_settings(env={}, cwd=tmp_path).settings.thrive.tenant_key is not None
    assert len(blocks) == len(queues) + 3  # and those of the second source and of the dead letters


def uncommented(block: str) -> str:
    return re.sub("^# ", "", block, flags=re.MULTILINE)


def test_a_source_of_sahhas_is_there_for_the_asking(tmp_path: Path) -> None:
    """Its settings are a comment, which is as good as those of a project that is written with it."""
    init(tmp_path / "one")
    text = (tmp_path / "one" / "consumer.toml").read_text()
    assert list(load_settings(env={}, cwd=tmp_path / "one").settings.sources) == ["events"]
    assert not (tmp_path / "one" / "secrets" / "sahha").exists()
    written = write_project(tmp_path / "two", sahha=True).written
    assert set(written) == FILES | {"secrets/sahha"}
    settings = load_settings(env={}, cwd=tmp_path / "two").settings
    assert {name: settings.source(name).provider for name in settings.sources} == {
        "events": "thrive",
        "webhooks": "sahha",
    }
    assert len(settings.sahha.signature.secrets) == 1
    assert stat.S_IMODE((tmp_path / "two" / "secrets" / "sahha").stat().st_mode) == 0o600
    lines = (tmp_path / "two" / "consumer.toml").read_text().splitlines()
    assert [line.removeprefix("# ") for line in lines] == [line.removeprefix("# ") for line in text.splitlines()]


def test_its_test_passes(tmp_path: Path) -> None:
    """`pytest` in a new project passes."""
    init(tmp_path)
    result = inside(tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cloudcoil")  # see pyproject.toml
    assert result.returncode == 0, result.stdout
    assert "7 passed" in result.stdout


def test_it_handles_an_event(tmp_path: Path) -> None:
    """What it says comes next works: publish the sample, run until idle, and the values are in the database."""
    init(tmp_path)
    consumer_command(tmp_path, "publish", "events", "samples/lab-result.json")
    consumer_command(tmp_path, "run", "--until-idle", "--idle-after", "0.3s")
    code = (
        "import sqlite3; print(sqlite3.connect('consumer.db').execute('SELECT count(*) FROM lab_values').fetchone()[0])"
    )
    assert int(inside(tmp_path, "-c", code).stdout) > 10
    assert not list(tmp_path.glob("dead-letters/*.jsonl"))
