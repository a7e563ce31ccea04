"""Keys of the inbox, and what the URL of its database may be."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError, OperationalError

from consumer.cli.migrate import command
from consumer.database import Database, classify
from consumer.errors import DatabaseConflict, DatabaseUnavailable, SettingsError
from consumer.inbox import Inbox, body_hash, event_key
from consumer.migrations import migrate
from consumer.parking import ParkedLanes

_TEXTS = st.lists(st.text(max_size=6) | st.sampled_from(["", "1:", "1:a,", ",", "a", "11"]), min_size=2, max_size=5)


@given(one=_TEXTS, other=_TEXTS)
def test_different_parts_never_share_a_key(one: list[str], other: list[str]) -> None:
    """Two lists of parts have the same key exactly when they are the same list."""
    assert (event_key(*one) == event_key(*other)) == (one == other)


def test_a_key_never_changes() -> None:
    """The key of an event is the same in every release, or everything in an inbox would be handled again."""
    assert event_key("", "thrive", "evt_1") == sha256(b"0:,6:thrive,5:evt_1,").digest()


def test_half_a_surrogate_pair_has_a_key() -> None:
    """An event id that JSON can hold and UTF-8 cannot still has a key."""
    assert len(event_key("", "thrive", "\ud800")) == 32
    assert len(body_hash(b"")) == 32


async def test_an_event_named_like_a_parked_lane_is_not_parked(tmp_path: Path) -> None:
    """What is remembered of a lane is not found under an event's id, whatever source and namespace are called."""
    database = Database(f"sqlite:///{tmp_path / 'consumer.db'}")
    await database.open()
    try:
        await migrate(database)
        inbox = Inbox(database)
        lanes = ParkedLanes(inbox, "thrive")
        await lanes.park("a")
        assert await lanes.holds("a")
        assert await inbox.lookup([event_key("lane", "thrive", "a")]) == {}
    finally:
        await database.close()


@pytest.mark.parametrize("url", ["sqlite:///x.db", "sqlite+aiosqlite:///x.db"])
def test_sqlite_urls(url: str) -> None:
    """Both ways to write a SQLite URL mean the same, with one writer."""
    database = Database(url)
    assert (database.dialect, database.writers) == ("sqlite", 1)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_postgresql_urls(scheme: str) -> None:
    """Every common way to write a PostgreSQL URL means asyncpg."""
    database = Database(f"{scheme}://user:secret@localhost/name?sslmode=require&prepared_statement_cache_size=0")
    assert (database.dialect, database.writers) == ("postgresql", 8)
    assert "secret" not in repr(database.engine)


@pytest.mark.parametrize(
    "url", ["", "x", "mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "sqlite:///a?mode=memory", "sqlite:///"]
)
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    """A URL that cannot hold an inbox is a wrong setting, and its password is not in the text."""
    with pytest.raises(SettingsError, match=r"^database\.url: ") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the text says what to install."""
    monkeypatch.setattr("consumer.database.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'health-event-consumer\[postgres\]'"):
        Database("postgresql://localhost/name")


async def test_a_missing_folder_is_a_wrong_setting(tmp_path: Path) -> None:
    """A SQLite file in a folder that does not exist is refused at start."""
    database = Database(f"sqlite:///{tmp_path}/nowhere/x.db")
    with pytest.raises(SettingsError, match="folder"):
        await database.open()
    await database.close()


async def test_the_files_are_private(sqlite_database: Database, tmp_path: Path) -> None:
    """The database, its log and its shared memory are readable by their owner only, whatever the umask."""
    await sqlite_database.ping()
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)}
    assert modes == {"consumer.db": 0o600, "consumer.db-wal": 0o600, "consumer.db-shm": 0o600}


async def test_a_lost_file_system_is_own_trouble(tmp_path: Path) -> None:
    """A path that is no database is `DatabaseUnavailable`, with a class and a code for a text."""
    (tmp_path / "x.db").write_bytes(b"patient: Jane Doe\n" * 400)
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(DatabaseUnavailable) as caught:
        await database.open()
    await database.close()
    assert "SQLITE_NOTADB" in str(caught.value)
    assert "Jane" not in repr(caught.value) + repr(caught.value.__cause__)


def _sqlite_error(code: int) -> OperationalError:
    error = sqlite3.OperationalError("Jane Doe")
    error.sqlite_errorcode = code  # type: ignore[misc]
    return OperationalError("INSERT", ("Jane Doe",), error)


def _sqlstate_error(state: str) -> OperationalError:
    error = Exception("Jane Doe")
    error.sqlstate = state  # type: ignore[attr-defined]
    return OperationalError("INSERT", ("Jane Doe",), error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_sqlite_error(sqlite3.SQLITE_BUSY), DatabaseConflict),
        (_sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), DatabaseConflict),
        (_sqlite_error(sqlite3.SQLITE_FULL), DatabaseUnavailable),
        (_sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), DatabaseUnavailable),
        (_sqlite_error(sqlite3.SQLITE_CANTOPEN), DatabaseUnavailable),
        (_sqlite_error(sqlite3.SQLITE_READONLY), DatabaseUnavailable),
        (_sqlite_error(sqlite3.SQLITE_CONSTRAINT), None),
        (_sqlite_error(sqlite3.SQLITE_ERROR), None),
        *[(_sqlstate_error(state), DatabaseConflict) for state in ("40001", "40P01", "40003")],
        *[(_sqlstate_error(state), DatabaseUnavailable) for state in ("08006", "53300", "57P01", "58030", "25006")],
        *[(_sqlstate_error(state), None) for state in ("23505", "22001", "42P01", "25P02", "XX000")],
        (IntegrityError("INSERT", (), sqlite3.IntegrityError("Jane Doe")), None),
        (OSError("Jane Doe"), None),
        (TimeoutError("Jane Doe"), None),
        (ValueError("Jane Doe"), None),
        (DatabaseConflict("again"), DatabaseConflict),
    ],
    ids=repr,
)
def test_whose_fault_an_error_is(error: BaseException, kind: type[BaseException] | None) -> None:
    """Trouble of the database is told from a handler's mistake, and its text holds no text of the error."""
    found = classify(error)
    assert type(found) is (kind or type(None))
    assert "Jane" not in str(found)


def test_a_wrapped_error_is_still_the_databases() -> None:
    """A handler that turns a database error into one of its own does not take the blame for it."""
    mine = RuntimeError("could not store")
    mine.__cause__ = _sqlstate_error("57P01")
    assert isinstance(classify(mine), DatabaseUnavailable)


def test_migrate_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` fails before `migrate` has run and passes after it; running it again does nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSUMER_DATABASE__URL", f"sqlite:///{tmp_path}/consumer.db")
    run = CliRunner().invoke
    before = run(command, ["--check"])
    assert (before.exit_code, "run `consumer migrate`" in before.output) == (1, True)
    done = json.loads(run(command, ["--json"]).output)
    assert (done["current"], done["needed"], done["applied"], done["problem"]) == (1, 1, [1], None)
    assert run(command, []).output == "the tables are at version 1\n"
    assert run(command, ["--check"]).exit_code == 0


def test_migrate_command_without_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting exits 2 and an unreachable database 1, each with one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSUMER_DATABASE__URL", f"sqlite:///{tmp_path}/nowhere/consumer.db")
    assert CliRunner().invoke(command, []).exit_code == 2
    monkeypatch.setenv("CONSUMER_DATABASE__URL", "postgresql://localhost:1/name")
    result = CliRunner().invoke(command, [])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
