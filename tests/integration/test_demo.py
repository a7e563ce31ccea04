"""`consumer demo`: the whole program, in a few seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import consumer

ROOT = Path(consumer.__file__).parent.parent


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONSUMER_")}
    return subprocess.run(
        [sys.executable, "-c", "from consumer.cli import main; main()", *arguments],
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One demo, kept, and what it says of itself."""
    folder = tmp_path_factory.mktemp("demo")
    result = run(folder, "demo", "--keep", "kept", "--events", "100", "--json")
    assert result.returncode == 0, result.stderr
    return folder / "kept", json.loads(result.stdout)


def test_everything_is_accounted_for(kept: tuple[Path, dict[str, Any]]) -> None:
    """Every message took effect, was a duplicate, or was put aside, each kind of trouble for its own reason."""
    _, said = kept
    put_aside = said["dead_letters"]
    assert sum(said["handled"].values()) + said["duplicates"] + sum(put_aside.values()) == said["messages"]
    assert set(said["handled"]) == {"LabResultEvent", "DailyDeviceEvent", "NudgeEvent", "ProgramEvent"}
    assert said["duplicates"] > 0
    assert said["retried"] > 0
    assert set(put_aside) == {
        "unsigned",
        "bad_signature",
        "stale",
        "unreadable",
        "invalid_event",
        "unknown_event",
        "rejected",
        "attempts_exhausted",
        "conflicting_duplicate",
    }
    assert all(said["store"].values())
    assert said["values"]


def test_the_dead_letters_are_there(kept: tuple[Path, dict[str, Any]]) -> None:
    """The kept folder holds a line for each event that was put aside."""
    folder, said = kept
    lines = [line for path in folder.glob("dead-letters/*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["reason"] for line in lines) == sorted(
        reason for reason, count in said["dead_letters"].items() for _ in range(count)
    )


def test_what_it_suggests_works(kept: tuple[Path, dict[str, Any]]) -> None:
    """In the kept folder the bug is gone, and replaying the events that met it makes them take effect."""
    folder, _ = kept
    assert run(folder, "dead-letters", "list").returncode == 0
    result = run(folder, "replay", "--reason", "attempts_exhausted", "--yes")
    assert result.returncode == 0, result.stderr
    assert "handled" in result.stdout


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """Without --keep nothing is left; people get a summary on stdout and the progress on stderr."""
    result = run(tmp_path, "demo", "--events", "40", "--seed", "7")
    assert result.returncode == 0, result.stderr
    assert "Took effect" in result.stdout
    assert "bad_signature" in result.stdout
    assert "messages settled" in result.stderr
    assert "messages settled" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_makes_the_same_events(tmp_path: Path, kept: tuple[Path, dict[str, Any]]) -> None:
    """Two demos with one seed end with the same store."""
    again = json.loads(run(tmp_path, "demo", "--events", "100", "--json").stdout)
    for name in ("messages", "handled", "store", "member", "values"):
        assert again[name] == kept[1][name]


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    """A folder that is not empty is refused, in one line."""
    (tmp_path / "mine.txt").write_text("")
    result = run(tmp_path, "demo", "--keep", ".")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
