"""`consumer check`: one line for everything that would keep the worker from running, whatever else fails."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from consumer.database import Database
from consumer.parked import ParkedEvents, Parking
from consumer.sources.base import Message
from tests.integration.cli_project import Project, opened_project

project = pytest.fixture(opened_project)


def check(project: Project, *arguments: str, **env: str) -> tuple[int, dict[str, str], dict[str, str]]:
    """The exit code; what failed or warns, by part and check, with its detail; and all results."""
    result = project.run("check", "--json", *arguments, env=env)
    rows = json.loads(result.stdout)
    bad = {f"{row['part']}: {row['name']}": row["detail"] for row in rows if row["result"] == "failed"}
    return result.exit_code, bad, {f"{row['part']}: {row['name']}": row["result"] for row in rows}


def test_all_is_well(project: Project) -> None:
    """A project that could run: exit code 0, and nothing the worker would make is made but queue and folder."""
    code, bad, results = check(project)
    assert (code, bad) == (0, {})
    assert results["source labs: secrets"] == results["database: connection"] == "ok"
    assert not (project.folder / "consumer.db").exists()
    assert list((project.folder / "dead-letters").iterdir()) == []


def test_it_is_a_table(project: Project) -> None:
    """Without --json there is a line for each check."""
    result = project.run("check")
    assert result.exit_code == 0
    header, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert header == ["part", "check", "result", "detail"]
    assert len(rows) > 8
    assert all(len(row) == 4 for row in rows)


def test_types_without_a_handler_are_a_warning(project: Project) -> None:
    """A shipped event type that nobody handles is worth knowing, and no reason not to run."""
    _, _, results = check(project)
    assert results["handlers: routes"] == "warning"
    project.handlers(
        module="from consumer import DispatchTable\nfrom consumer.events import *\ntable = DispatchTable()\n"
        "table.ignore(LabResultEvent, DailyDeviceEvent, NudgeEvent, ProgramEvent)\n"
        "@table.on(UnknownEvent)\nasync def other(event, context): ...\n"
    )
    assert check(project)[2]["handlers: routes"] == "ok"


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("import no_such_library", "needs the module no_such_library"),
        ("1 / 0", "fails on import: ZeroDivisionError"),
        ("tables = 1", "no DispatchTable named table"),
        (
            (
                "from consumer import DispatchTable\nfrom consumer.events import NudgeEvent\ntable = DispatchTable()\n"
                "@table.on(NudgeEvent)\ndef handle(event, context): ..."
            ),
            "a handler is an `async def` function",
        ),
        (
            (
                "from consumer import DispatchTable, Context\nfrom consumer.events import NudgeEvent, ProgramEvent\n"
                "table = DispatchTable()\n"
                "@table.on(NudgeEvent)\nasync def handle(event: ProgramEvent, context: Context): ..."
            ),
            "does not take NudgeEvent",
        ),
    ],
)
def test_handlers(project: Project, module: str, text: str) -> None:
    """What is wrong with the handlers is one line, and the other parts are still checked."""
    project.handlers(module=module)
    code, bad, results = check(project)
    assert code == 1
    assert list(bad) == ["handlers: import"]
    assert text in bad["handlers: import"]
    assert "\n" not in bad["handlers: import"]
    assert results["source labs: queue file"] == "ok"


def test_missing_module(project: Project) -> None:
    """Handlers that are not there are named."""
    assert "no module nowhere" in check(project, CONSUMER_HANDLERS="nowhere")[1]["handlers: import"]


def test_event_types_claimed_twice(project: Project) -> None:
    """Event types that two classes claim are found before any event is."""
    code, bad, _ = check(project, CONSUMER_THRIVE__EVENT_TYPES__NUDGE='["lab.*"]')
    assert (code, list(bad)) == (1, ["handlers: event types"])


def test_no_secret(project: Project) -> None:
    """A source without a secret could not tell who sent its messages."""
    del project.env["CONSUMER_THRIVE__SIGNATURE__SECRETS"]
    code, bad, _ = check(project)
    assert (code, list(bad)) == (1, ["source labs: secrets"])
    assert "CONSUMER_THRIVE__SIGNATURE__SECRETS" in bad["source labs: secrets"]


def test_bad_queue_path(project: Project, tmp_path: Path) -> None:
    """A queue that cannot be made where it should be is found."""
    (tmp_path / "file").touch()
    code, bad, _ = check(project, CONSUMER_SOURCES__LABS__PATH=str(tmp_path / "file" / "queue.db"))
    assert (code, list(bad)) == (1, ["source labs: queue"])


def test_unreachable_sqs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that does not answer is one line; the other source and everything else is still checked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    env = {
        "CONSUMER_SOURCES__CLOUD__KIND": "sqs",
        "CONSUMER_SOURCES__CLOUD__QUEUE_URL": "http://127.0.0.1:9/000000000000/labs",
        "CONSUMER_SOURCES__CLOUD__REGION": "us-east-1",
    }
    code, bad, results = check(project, **env)
    assert (code, list(bad)) == (1, ["source cloud: queue"])
    assert results["source labs: queue file"] == "ok"
    assert check(project, "--source", "labs", **env)[0] == 0


def test_no_region(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue whose URL names no region needs one from somewhere: the setting to give is named, with exit code 2."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    env = {
        "CONSUMER_SOURCES__CLOUD__KIND": "sqs",
        "CONSUMER_SOURCES__CLOUD__QUEUE_URL": "http://127.0.0.1:9/000000000000/labs",
    }
    line = "sources.cloud.region: missing, since the queue's URL names none: set it, or AWS_DEFAULT_REGION"
    assert check(project, **env)[1] == {"source cloud: queue": line}
    result = project.run("publish", "cloud", "-", stdin="{}", env=env)
    assert (result.exit_code, result.stderr) == (2, f"Error: {line}\n")
    result = project.run("run", "--source", "cloud", env=env)
    assert (result.exit_code, result.stderr) == (2, f"Error: {line}\n")


def test_timers_of_a_source(project: Project) -> None:
    """A source shows the timers that matter to it: no heartbeat where there are no leases."""
    account = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=aaaa;BlobEndpoint=http://127.0.0.1:9/a"
    hub = (
        "Endpoint=sb://127.0.0.1:9;SharedAccessKeyName=a;SharedAccessKey=b;EntityPath=labs;UseDevelopmentEmulator=true"
    )
    env = {
        "CONSUMER_SOURCES__HUB__KIND": "event_hubs",
        "CONSUMER_SOURCES__HUB__CONNECTION_STRING": hub,
        "CONSUMER_SOURCES__HUB__CHECKPOINTS__CONTAINER": "labs",
        "CONSUMER_SOURCES__HUB__CHECKPOINTS__CONNECTION_STRING": account,
    }
    rows = json.loads(project.run("check", "--json", env=env).stdout)
    timers = {row["part"]: row["detail"] for row in rows if row["name"] == "timers"}
    assert timers["source labs"] == "visibility 1m, heartbeat 30s, poll wait 10s, handler 30s"
    assert timers["source hub"] == "checkpoint 5s, ownership 10s, poll wait 10s, handler 30s"


async def _park(url: str, **counts: int) -> None:
    database = Database(url)
    try:
        await database.open()
        for source, count in counts.items():
            events = [
                Parking(
                    Message(body=b"{}", message_id=f"0-{number}", receipt=None, accepted_at=datetime.now(UTC)),
                    lane=None,
                    position=number,
                    delay=60,
                )
                for number in range(count)
            ]
            await ParkedEvents(database, source, owner="test").park(events)
    finally:
        await database.close()


def test_parked_events_that_nobody_will_take(project: Project) -> None:
    """Events that wait in the database for a source that is not configured any more are a warning, by source."""
    project.run("migrate")
    asyncio.run(_park(project.env["CONSUMER_DATABASE__URL"], labs=2, old=3, older=1))
    rows = json.loads(project.run("check", "--json").stdout)
    assert [(row["result"], row["detail"]) for row in rows if row["name"] == "parked events"] == [
        ("warning", "3 events of source old wait in the database, and no source of that name is configured"),
        ("warning", "1 event of source older waits in the database, and no source of that name is configured"),
    ]
    assert check(project)[0] == 0


def test_unwritable_dead_letters(project: Project, tmp_path: Path) -> None:
    """A place where no dead letter could be kept is found."""
    (tmp_path / "file").touch()
    code, bad, _ = check(project, CONSUMER_DEAD_LETTERS__PATH=str(tmp_path / "file" / "letters"))
    assert (code, list(bad)) == (1, ["dead letters: store"])


def test_wrong_recipient(project: Project) -> None:
    """A recipient that is no key is found, one that is a key is counted."""
    assert list(check(project, CONSUMER_DEAD_LETTERS__RECIPIENTS="age1nonsense")[1]) == ["dead letters: recipients"]
    key = str(pyrage.x25519.Identity.generate().to_public())
    code, _, results = check(
        project, CONSUMER_DEAD_LETTERS__RECIPIENTS=key, CONSUMER_DEAD_LETTERS__IDENTITY_FILE="/nowhere"
    )
    assert (code, results["dead letters: recipients"], results["dead letters: identity"]) == (0, "ok", "warning")


def test_database(project: Project, tmp_path: Path) -> None:
    """A database that does not answer fails; one that was migrated says so."""
    code, bad, _ = check(project, CONSUMER_DATABASE__URL="postgresql://u:hunter2@127.0.0.1:9/x")
    assert code == 1
    assert [name.partition(":")[0] for name in bad] == ["database"]
    assert list(bad.values()) == ["cannot connect: connection refused at 127.0.0.1:9"]
    assert check(project, CONSUMER_DATABASE__URL=f"sqlite:///{tmp_path}/none/consumer.db")[0] == 1
    project.run("migrate")
    assert check(project)[2]["database: tables"] == "ok"


def test_everything_wrong_at_once(project: Project, tmp_path: Path) -> None:
    """However much is wrong, all of it is told."""
    (tmp_path / "file").touch()
    del project.env["CONSUMER_THRIVE__SIGNATURE__SECRETS"]
    code, bad, _ = check(
        project,
        CONSUMER_HANDLERS="nowhere",
        CONSUMER_SOURCES__LABS__PATH=str(tmp_path / "file" / "q"),
        CONSUMER_DEAD_LETTERS__PATH=str(tmp_path / "file" / "d"),
        CONSUMER_DATABASE__URL=f"sqlite:///{tmp_path}/none/consumer.db",
    )
    assert (code, len(bad)) == (1, 5)


def test_a_source_of_ones_own_that_breaks(project: Project) -> None:
    """A source class that raises what it likes, or is not there, is one line too."""
    name = project.env["CONSUMER_HANDLERS"]
    project.handlers(module="class Broken:\n    def __init__(self, settings): raise KeyError('x')\n")
    broken = project.env["CONSUMER_HANDLERS"]
    for kind in (f"{broken}:Broken", f"{broken}:Missing", "nowhere:Source"):
        code, bad, _ = check(project, CONSUMER_HANDLERS=name, CONSUMER_SOURCES__OWN__KIND=kind)
        assert (code, [one.partition(":")[0] for one in bad]) == (1, ["source own"])


def test_port_in_use(project: Project) -> None:
    """A health port that is taken, perhaps by a running worker, is a warning."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        code, _, results = check(project, CONSUMER_HEALTH__ENABLED="true", CONSUMER_HEALTH__PORT=port)
    assert (code, results["health: server"]) == (0, "warning")


def test_wrong_settings_and_usage(project: Project) -> None:
    """Settings that cannot be read, or a source that is not there: one line, exit code 2."""
    for result in (
        project.run("check", env={"CONSUMER_MAX_ATTEMPTS": "many"}),
        project.run("check", env={"CONSUMER_INBOX__RETENTION": "1d"}),
        project.run("check", "--source", "lab"),
    ):
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_no_source(project: Project) -> None:
    """A worker without a source could not run."""
    for name in [name for name in project.env if name.startswith("CONSUMER_SOURCES")]:
        del project.env[name]
    assert list(check(project)[1]) == ["settings: sources"]


def test_help_has_an_example(project: Project) -> None:
    """The help shows how it is used."""
    assert "Example: consumer check" in project.run("check", "--help").stdout
