"""A partner's project in a folder of its own, used through the real command line."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from click.testing import CliRunner, Result

from consumer.cli import main
from consumer.dead_letters.file_fates import read_fates
from consumer.dead_letters.record import DeadLetter, encode, record_id
from consumer.signatures import ThriveSignature

__all__ = ["CANARY", "SECRET", "Project", "assert_discreet", "body", "letter", "opened_project", "sign", "stop"]

CANARY = "glucose-5.4-canary"
SECRET = "signing-secret-canary"
_ROOT = Path(__file__).parents[2]
_numbers = itertools.count()

_HANDLERS = """
import asyncio, os, pathlib
from sqlalchemy import text
from consumer import Context, DispatchTable, Reject, Retry, Unavailable
from consumer.events import LabResultEvent

table = DispatchTable()

async def keep(event, context):
    await context.session.execute(text("CREATE TABLE IF NOT EXISTS effects (id TEXT, value TEXT)"))
    await context.session.execute(text("INSERT INTO effects VALUES (:i, :v)"), {{"i": event.event_id, "v": "x"}})

@table.on(LabResultEvent)
async def store(event: LabResultEvent, context: Context) -> None:
    {code}
"""


def body(number: int, **more: Any) -> str:
    """The body of a lab event with a value that must never show."""
    return json.dumps(
        {
            "event_id": f"e{number}",
            "event_type": "lab.result.ready",
            "user_id": f"u{number % 3}",
            "note": CANARY,
            **more,
        }
    )


def sign(text: str, *, ago: timedelta = timedelta(), secret: str = SECRET) -> bytes:
    """A signed envelope, `ago` old."""
    return ThriveSignature(secrets=[secret]).sign(text, signed_at=datetime.now(UTC) - ago)


def letter(
    number: int,
    *,
    message: bytes | None = None,
    ago: timedelta = timedelta(minutes=5),
    reason: str = "attempts_exhausted",
    lane: str | None = None,
    **more: Any,
) -> DeadLetter:
    """A dead letter of a lab event, accepted and put aside `ago`."""
    at = datetime.now(UTC) - ago
    values: dict[str, Any] = {
        "id": record_id("labs", f"m{number}"),
        "provider": "thrive",
        "source": "labs",
        "reason": reason,
        "attempts": 8,
        "accepted_at": at,
        "first_received_at": at,
        "dead_lettered_at": at + timedelta(milliseconds=number),
        "message": sign(body(number), ago=ago) if message is None else message,
        "event_type": "lab.result.ready",
        "user_id": f"u{number % 3}",
        "attributes": {"message_id": f"m{number}", "ordering_key": lane, "headers": {}},
    }
    return DeadLetter(**(values | more))


class Project:
    """A folder with handlers, a local queue `labs`, a SQLite database and dead letters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segment = folder / "dead-letters" / "20260101T000000.000000Z-1-aa.jsonl"
        self.env = {
            "CONSUMER_SOURCES__LABS__KIND": "local",
            "CONSUMER_SOURCES__LABS__PATH": str(folder / "queue.db"),
            "CONSUMER_THRIVE__SIGNATURE__SECRETS": SECRET,
            "CONSUMER_DATABASE__URL": f"sqlite:///{folder}/consumer.db",
            "CONSUMER_DEAD_LETTERS__PATH": str(folder / "dead-letters"),
            "CONSUMER_APP_DIR": str(folder),
            "CONSUMER_HEALTH__ENABLED": "false",
            "CONSUMER_LOG__FORMAT": "json",
        }
        self.handlers("await keep(event, context)")

    def handlers(self, code: str = "", *, module: str | None = None) -> None:
        """Deploy handlers: what the one for lab results does, or a whole module; each under a new name."""
        name = f"partner_{os.getpid()}_{next(_numbers)}"
        text = module if module is not None else _HANDLERS.format(code=code.replace("\n", "\n    "))
        (self.folder / f"{name}.py").write_text(text)
        self.env["CONSUMER_HANDLERS"] = name

    def put_aside(self, *letters: DeadLetter, seal: Callable[[bytes], bytes] | None = None) -> None:
        """Add dead letters to the one segment."""
        self.segment.parent.mkdir(exist_ok=True)
        with self.segment.open("ab") as file:
            file.writelines(encode(one, seal=seal) for one in letters)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | bytes | None = None) -> Result:
        """Run a command: whatever becomes of it, no traceback, no secret and no health data shows."""
        result = CliRunner().invoke(main, arguments, env=self.env | dict(env or {}), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert_discreet(result.output)
        return result

    def replay(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Replay without being asked: the exit code and the answer."""
        result = self.run("replay", "--json", *([] if "--dry-run" in arguments else ["--yes"]), *arguments, env=env)
        return result.exit_code, json.loads(result.stdout) if result.stdout else {}

    def start(self, *arguments: str, stdin: int | None = None, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Run a command in a process of its own."""
        code = "from consumer.cli import main; main(prog_name='consumer')"
        environment = os.environ | self.env | {"PYTHONPATH": str(_ROOT)}
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            cwd=self.folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def effects(self) -> list[str]:
        """The events that took effect, in order, as often as they did."""
        try:
            database = sqlite3.connect(f"file:{self.folder}/consumer.db?mode=ro", uri=True)
        except sqlite3.OperationalError:
            return []
        try:
            return [identity for (identity,) in database.execute("SELECT id FROM effects ORDER BY rowid")]
        except sqlite3.OperationalError:
            return []
        finally:
            database.close()

    def wait_for_effects(self, count: int) -> None:
        """Return once so many events took effect."""
        deadline = time.monotonic() + 20
        while len(self.effects()) < count:
            assert time.monotonic() < deadline, "no effects"
            time.sleep(0.02)

    def fates(self) -> list[str]:
        """The fates of the segment's lines, sorted."""
        return sorted(read_fates(self.segment).values())

    def files(self) -> dict[str, bytes]:
        """Every file in the folder, handlers aside, with what is in it."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}


def opened_project(tmp_path: Path) -> Iterator[Project]:
    """A fixture: a project whose handlers work; what commands leave in this process is put back afterwards."""
    path, modules, handlers = list(sys.path), set(sys.modules), list(logging.getLogger().handlers)
    yield Project(tmp_path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("partner_"):
            del sys.modules[name]
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()


def assert_discreet(text: str) -> None:
    """Nothing of an event's content, no secret, no traceback."""
    assert CANARY not in text
    assert SECRET not in text
    assert "Traceback" not in text


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal and wait: the exit code and what was written."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert_discreet(out + err)
    return process.returncode, out + err
