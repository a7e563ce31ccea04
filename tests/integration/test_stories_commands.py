"""The README's three commands as processes: a sandbox, a registration, a worker; and what the platform then says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.processes import free_port

_ROOT = Path(__file__).parents[2]
_BURST = 12


def environment() -> dict[str, str]:
    """No settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONSUMER_")}
    quiet = {"CONSUMER_HEALTH__ENABLED": "false", "HANDLERS_REPORT_CARDS_AS": "opened"}
    return {**kept, **quiet, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}


def consumer(folder: Path, *arguments: str) -> str:
    """Run a command to its end; what it answered."""
    ended = subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@contextlib.contextmanager
def sandbox(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`consumer sandbox try-it`, once it has said what to do next."""
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "sandbox", "try-it", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Sahha's webhooks"):  # the last one
                break
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def nudges(project: Path) -> dict[str, str]:
    """The status of each card in the store."""
    with contextlib.closing(sqlite3.connect(project / "consumer.db")) as database:
        rows = database.execute("SELECT nudge_id, status FROM nudges WHERE kind = 'card'").fetchall()
    return dict(rows)


@pytest.mark.thorough
def test_three_commands(tmp_path: Path) -> None:
    """Events flow, basic nudges are fetched, and `consumer thrive cards list` shows that their cards were opened."""
    project = tmp_path / "try-it"
    chosen = ("--contract", "basic", "--rate", "0", "--burst", str(_BURST), "--members", "1")
    with sandbox(tmp_path, "--port", str(free_port()), *chosen):
        consumer(project, "thrive", "queues", "register", "all", "--source", "events")
        consumer(project, "run", "--source", "events", "--until-idle")
        stored = nudges(project)
        assert stored
        assert set(stored.values()) == {"opened"}
        with contextlib.closing(sqlite3.connect(project / "consumer.db")) as database:
            ((member,),) = database.execute("SELECT DISTINCT user_id FROM nudges").fetchall()
            ((handled,),) = database.execute("SELECT count(*) FROM consumer_inbox").fetchall()
        listed = json.loads(consumer(project, "thrive", "cards", "list", member, "--status", "opened", "--json"))
    assert {one["card_item_id"] for one in listed} == set(stored)
    assert handled == _BURST
    letters = [line for file in (project / "dead-letters").glob("*.jsonl") for line in file.read_text().splitlines()]
    assert [json.loads(line)["reason"] for line in letters] == ["unsigned"]
