"""Which worker a command means, and what is said of a control socket that cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from consumer.cli import main
from consumer.cli.service import open_control
from consumer.errors import SettingsError
from consumer.ops import control_folder
from consumer.ops.control import serve_control
from consumer.settings_loading import load_settings
from consumer.worker import Worker


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of ours, under a short name."""
    made = Path(tempfile.mkdtemp(prefix="hec-"))
    yield made
    shutil.rmtree(made)


async def _command(folder: Path, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env={"CONSUMER_CONTROL__PATH": str(folder)})


def _source(**changes: Any) -> dict[str, Any]:
    plain = {"name": "labs", "kind": "local", "state": "receiving", "why": None, "in_hand": 2, "oldest_age": 3.2}
    return plain | {"lanes_blocked": 1, "retrying_count": 1, "retrying": [], "to_skip": []} | changes


async def test_a_table(folder: Path) -> None:
    """A line for each source, and one for each event that waits; nothing in a name steers the terminal."""
    event = {"event_id": "e\x1b[1m", "event_type": None, "message_id": "m0", "failed_attempts": 2, "due_in": 4.4}

    async def answer(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"sources": [_source(state="paused", why="Unavailable", retrying=[event])]}

    async with serve_control(folder, answer):
        shown = (await _command(folder, "status")).stdout
    assert [line.split("\t") for line in shown.splitlines() if line] == [
        ["source", "state", "in hand", "oldest", "retrying", "lanes blocked"],
        ["labs", "paused: Unavailable", "2", "3 s", "1", "1"],
        ["source", "event", "type", "failed attempts", "next in", "message"],
        ["labs", "e\\x1b[1m", "-", "2", "4 s", "m0"],
    ]


async def test_two_workers(folder: Path) -> None:
    """A command wants to know which of two is meant, and finds it by its id."""

    def named(name: str) -> Any:
        async def answer(_: Mapping[str, Any]) -> dict[str, Any]:
            return {"say": name, "sources": [_source(name=name)]}

        return answer

    async with serve_control(folder, named("one")) as one, serve_control(folder, named("two")) as two:
        both = await _command(folder, "resume", "labs")
        assert both.exit_code == 1
        assert f"choose one with --pid: {two.stem}, {one.stem}" in both.stderr
        assert (await _command(folder, "resume", "labs", "--pid", two.stem)).stdout == "two\n"
        other = await _command(folder, "resume", "labs", "--pid", "1")
        assert (other.exit_code, other.stdout) == (1, "")
    none = await _command(folder, "resume", "labs")
    assert none.exit_code == 1
    assert f"no worker answers in {folder}" in none.stderr


async def test_a_folder_that_somebody_else_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen, it is an error; by default the events come first, and the log says that nobody can steer the worker."""
    squat = folder / "squat"
    squat.symlink_to(folder)
    monkeypatch.setattr("consumer.cli.service.default_folder", lambda: squat)

    async def opened(**environment: str) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await open_control(stack, load_settings(env=environment, cwd=folder), _no_worker())

    with pytest.raises(SettingsError, match=r"CONSUMER_CONTROL__PATH: .* is not a folder of our own"):
        await opened(CONSUMER_CONTROL__PATH=str(squat))
    with capture_logs() as logs:
        await opened()
    assert [line["event"] for line in logs] == ["control_socket_off"]
    with capture_logs() as logs:
        await opened(CONSUMER_CONTROL__ENABLED="false", CONSUMER_CONTROL__PATH=str(squat))
    assert logs == []


def test_no_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without a writable folder hears what to do."""

    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(control_folder.ControlError, match="mount /tmp or set TMPDIR"):
        control_folder.default_folder()


def _no_worker() -> Worker:
    return Worker.__new__(Worker)


@pytest.mark.parametrize("command", ["status", "pause", "resume", "skip"])
def test_help(command: str) -> None:
    """Each has its help, with an example."""
    shown = CliRunner().invoke(main, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: consumer {command}" in shown.stdout
    assert json.dumps(shown.stdout).isascii()
