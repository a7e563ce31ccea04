"""The control socket: whose it is, who may use it, and what it makes of nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.ops import control
from consumer.ops.control import Refused, ask, serve_control
from consumer.ops.control_folder import ControlError, check_folder, default_folder, make_folder, sockets

_NOBODY = 65_534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is not there yet; under a short name, since a socket's must be."""
    parent = Path(tempfile.mkdtemp(prefix="hec-"))
    yield parent / "control"
    shutil.rmtree(parent)


async def _echo(request: Mapping[str, Any]) -> dict[str, Any]:
    if request.get("command") == "refuse":
        raise Refused("not this", wrong=True)
    if request.get("command") == "fail":
        raise ValueError("a canary of the request")
    return {"heard": dict(request)}


async def _ask(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    return await asyncio.to_thread(ask, path, request)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _let_in(*paths: Path) -> None:
    for path in paths:
        path.chmod(0o777)


async def _raw(path: Path, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_request_and_its_answer(folder: Path) -> None:
    """The folder and the socket are for nobody else; both ways work; nothing is left at the end."""
    async with serve_control(folder, _echo) as path:
        assert (_mode(folder), _mode(path)) == (0o700, 0o600)
        assert path.name == f"{os.getpid()}.sock"
        assert await _ask(path, {"command": "é"}) == {"heard": {"command": "é"}}
        with pytest.raises(Refused, match="not this") as refused:
            await _ask(path, {"command": "refuse"})
        assert refused.value.wrong
    assert sockets(folder) == []
    with pytest.raises(ControlError, match="does not answer"):
        await _ask(path, {})


async def test_what_fails_inside_tells_nothing(folder: Path) -> None:
    """The text of an unexpected error goes neither to the asker nor to the log."""
    async with serve_control(folder, _echo) as path:
        with capture_logs() as logs, pytest.raises(Refused) as refused:
            await _ask(path, {"command": "fail"})
    assert [line["event"] for line in logs] == ["control_failed"]
    assert "canary" not in f"{refused.value}{logs}"


@pytest.mark.parametrize(
    "sent", [b"\n", b"nonsense\n", b"[1]\n", b"[" * 4000 + b"\n", b'{"a":"' + b"x" * 20_000 + b'"}\n', b"\xff\n"],
    ids=["empty", "nonsense", "list", "deep", "long", "bytes"],
)  # fmt: skip
async def test_nonsense(folder: Path, sent: bytes) -> None:
    """It is answered with what is expected, and the next request is heard."""
    async with serve_control(folder, _echo) as path:
        assert json.loads(await _raw(path, sent))["error"].startswith("expected one JSON object")
        assert await _ask(path, {"a": 1}) == {"heard": {"a": 1}}


async def test_a_client_that_never_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not keep its answer in the worker's memory for as long as it likes."""
    monkeypatch.setattr(control, "_ANSWER_WITHIN", 0.2)
    longest = 8 << 20

    async def much(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"much": "x" * longest}

    async with serve_control(folder, much) as path:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1024)
        writer.write(b"{}\n")
        await asyncio.sleep(0.5)
        got = b""
        with contextlib.suppress(ConnectionError):
            got = await reader.read()
        assert len(got) < longest
        writer.close()


async def test_the_longest_id(folder: Path) -> None:
    """In letters that JSON writes as twelve bytes each."""
    async with serve_control(folder, _echo) as path:
        request = {"command": "skip", "source": "labs", "event_id": "😀" * 512}
        assert await _ask(path, request) == {"heard": request}


async def test_two_workers_that_start_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes the other's socket for one that was left behind."""
    start = asyncio.start_unix_server
    first = True

    async def meanwhile(*args: Any, **kwargs: Any) -> asyncio.Server:
        nonlocal first
        if first:
            first = False
            async with serve_control(folder, _echo):
                pass
        return await start(*args, **kwargs)

    monkeypatch.setattr(asyncio, "start_unix_server", meanwhile)
    async with serve_control(folder, _echo) as path:
        assert await _ask(path, {"a": 1}) == {"heard": {"a": 1}}


async def test_a_second_worker_and_one_that_was_killed(folder: Path) -> None:
    """What a dead process left is removed; a living one's socket stays, also under the same id."""
    make_folder(folder)
    for name in ("1.sock", f"{os.getpid()}.sock"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / name))
    async with serve_control(folder, _echo) as first:
        assert sockets(folder) == [first]
        async with serve_control(folder, _echo) as second:
            assert second.name == f"{os.getpid()}-2.sock"
            assert await _ask(first, {"a": 1}) == await _ask(second, {"a": 1})


def test_a_folder_that_is_a_link(folder: Path) -> None:
    """Somebody may have put it there to have the socket elsewhere."""
    elsewhere = folder.with_name("elsewhere")
    make_folder(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(ControlError, match="not a folder of our own"):
        make_folder(folder)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o1777], ids=oct)
def test_a_folder_that_others_may_enter(folder: Path, mode: int) -> None:
    """Others could reach the socket, or put one of their own in its place."""
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ControlError, match="mode 0700"):
        make_folder(folder)


def test_a_folder_that_cannot_be(folder: Path) -> None:
    """One line says what is wrong with it."""
    with pytest.raises(ControlError, match="cannot make"):
        make_folder(folder / "below" / "what is not there")
    with pytest.raises(ControlError, match="too long"):
        make_folder(folder / ("x" * 100))
    folder.write_text("a file")
    with pytest.raises(ControlError, match="not a folder of our own"):
        make_folder(folder)
    with pytest.raises(ControlError, match="cannot look"):
        check_folder(folder.with_name("nothing"))


def test_the_default_folder() -> None:
    """Each user has one."""
    assert default_folder().name == f"health-event-consumer-{os.geteuid()}"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_a_folder_of_another_user(folder: Path) -> None:
    """Whoever made it first could take the socket away from under us."""
    make_folder(folder)
    os.chown(folder, _NOBODY, _NOBODY)
    with pytest.raises(ControlError, match="not a folder of our own"):
        make_folder(folder)


_AS_NOBODY = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(10)
    try:
        connection.connect(sys.argv[1])
        connection.sendall(b'{"command": "status"}\\n')
        print(connection.recv(1000))
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
async def test_another_user(folder: Path) -> None:
    """The folder keeps them out; with its mode widened by mistake, the socket asks who they are and hangs up."""

    def as_nobody(path: Path) -> str:
        command = [sys.executable, "-I", "-c", _AS_NOBODY, str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    heard: list[Mapping[str, Any]] = []

    async def execute(request: Mapping[str, Any]) -> dict[str, Any]:
        heard.append(request)
        return {}

    async with serve_control(folder, execute) as path:
        _let_in(folder.parent)
        assert await asyncio.to_thread(as_nobody, path) == "PermissionError"
        _let_in(folder, path)
        with capture_logs() as logs:
            assert await asyncio.to_thread(as_nobody, path) in ("b''", "ConnectionResetError", "BrokenPipeError")
        assert [line["event"] for line in logs] == ["control_refused"]
    assert heard == []
