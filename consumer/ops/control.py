"""A worker's control socket: one JSON line in, one out, for the same user on the same machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from consumer.failures import describe
from consumer.ops.control_folder import ControlError, check_folder, is_one_of_us, make_folder, sockets

__all__ = ["LONGEST_ANSWER", "Execute", "Refused", "ask", "serve_control"]

_log = structlog.get_logger("control")

Execute = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Does what a request asks for, and answers. Raises `Refused`."""

_LONGEST_REQUEST: Final = 16_384
LONGEST_ANSWER: Final = 16 << 20
_ASK_WITHIN: Final = 5.0
_ANSWER_WITHIN: Final = 20.0
_NAMES: Final = 9
"""Workers of one process id that may share a folder, as containers with a volume in common may."""


class Refused(Exception):
    """What was asked for cannot be done; the text says why. `wrong` says that it was asked wrongly."""

    def __init__(self, text: str, *, wrong: bool = False) -> None:
        super().__init__(text)
        self.wrong = wrong


@asynccontextmanager
async def serve_control(folder: Path, execute: Execute) -> AsyncIterator[Path]:
    """Serve in a folder of our own, which is made if it is not there; yields the socket's path.

    Raises `ControlError` when the folder is not ours alone, or cannot be used.
    """
    make_folder(folder)
    await asyncio.to_thread(_remove_stale, folder)
    listener, path = _listen(folder)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await _serve_one(reader, writer, execute)
            writer.close()
        except (OSError, TimeoutError):
            writer.transport.abort()  # closing would wait for whoever does not read

    server = await asyncio.start_unix_server(connected, sock=listener, limit=_LONGEST_REQUEST)
    try:
        yield path
    finally:
        server.close()
        with contextlib.suppress(OSError):
            path.unlink()


def ask(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """A worker's answer to a request. Raises `Refused`, and `ControlError` when there is no answer."""
    check_folder(path.parent)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_WITHIN + 5)
        try:
            connection.connect(str(path))
            if not is_one_of_us(connection):
                raise ControlError(f"{path} is another user's")
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(connection)
            answer = json.loads(line)
        except (OSError, ValueError):
            raise ControlError(f"the worker at {path} does not answer") from None
    if not isinstance(answer, dict) or "error" in answer:
        said = answer if isinstance(answer, dict) else {}
        raise Refused(str(said.get("error")), wrong=bool(said.get("wrong")))
    return answer


def _read_line(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        return stream.readline(LONGEST_ANSWER)


def _listen(folder: Path) -> tuple[socket.socket, Path]:
    """A socket in the folder, under the name of this process or one like it that is free."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        for number in range(1, _NAMES + 1):
            path = folder / f"{os.getpid()}{'' if number == 1 else f'-{number}'}.sock"
            if path.exists():
                continue  # whoever has it answers, or it would have been removed
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen()  # at once: one that refuses is taken for a dead process's, and removed
            return listener, path
    except OSError as error:
        listener.close()
        raise ControlError(f"cannot listen in {folder}: {error.strerror or error}") from None
    listener.close()
    raise ControlError(f"cannot listen in {folder}: its sockets for process {os.getpid()} are taken")


def _remove_stale(folder: Path) -> None:
    """Remove what processes left that were killed."""
    for path in sockets(folder):
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.settimeout(1.0)
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


async def _serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, execute: Execute) -> None:
    if not is_one_of_us(writer.get_extra_info("socket")):
        _log.warning("control_refused", reason="another user")
        return
    try:
        async with asyncio.timeout(_ASK_WITHIN):
            request = json.loads(await reader.readline())
    except (ValueError, RecursionError):
        request = None
    if isinstance(request, dict):
        answer = await _answer(request, execute)
    else:
        answer = {"error": f"expected one JSON object in one line of {_LONGEST_REQUEST} bytes", "wrong": True}
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


async def _answer(request: dict[str, Any], execute: Execute) -> dict[str, Any]:
    try:
        return await execute(request)
    except Refused as refused:
        return {"error": str(refused), "wrong": refused.wrong}
    except Exception as error:  # noqa: BLE001 - its text may hold anything; the worker goes on
        _log.error("control_failed", **describe(error))
        return {"error": "internal error, see the worker's log", "wrong": False}
