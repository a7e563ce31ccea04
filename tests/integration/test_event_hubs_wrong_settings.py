"""What the commands say of an event hub that cannot be used: one line or one row, the right exit code, no secret."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from consumer.cli import main
from tests.conformance.rig import Rig, program
from tests.emulators.event_hubs_client import EventHubsControl, event_hubs_process
from tests.faults.harness import ROOT
from tests.faults.harness_azure import hub_rig
from tests.servers.azurite import KEY, Azurite, connection_string
from tests.servers.processes import free_port

WRONG_KEY = "a-wrong-key"
WRONG_STORE_KEY = "YS13cm9uZy1rZXk="
SECRETS = ("SAS_KEY_VALUE", WRONG_KEY, WRONG_STORE_KEY, KEY, "a secret of the tests")


@dataclass
class Case:
    """What is wrong, and what each command says of it."""

    words: str
    changes: dict[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ("run", "check")
    row: str = "queue"
    """The row of `consumer check` that says it."""


CASES = {
    "a wrong key": Case("access denied", {"CONNECTION_STRING": "{wrong_key}"}, ("check",)),
    "no such hub": Case("there is no such event hub", {"EVENT_HUB": "nothing"}, ("publish",)),
    "nobody listens": Case("source labs: ", {"CONNECTION_STRING": "{refused}"}, ("run",)),
    "no such container": Case("no container nothing", {"CHECKPOINTS__CONTAINER": "nothing"}),
    "a wrong key of the store": Case("access to container", {"CHECKPOINTS__CONNECTION_STRING": "{wrong_store}"}),
    "no store": Case("checkpoints: ", {"CHECKPOINTS__CONNECTION_STRING": "{no_store}"}, ("run",)),
    "no such consumer group": Case(
        "no such event hub or consumer group", {"CONSUMER_GROUP": "nothing"}, ("check",), row="consumer group"
    ),
}
_SLOW = {"a wrong key", "nobody listens", "no such consumer group"}
"""Said again by a process of its own, by the tests of other queues, or by that of the permissions."""
_ARGUMENTS = {"run": ("run",), "check": ("check", "--json"), "publish": ("publish", "labs", "event.json")}


@pytest.fixture(scope="module")
def hub() -> Iterator[EventHubsControl]:
    """A hub in a process of its own: commands have a loop of theirs."""
    with event_hubs_process(partitions=2) as control:
        yield control


@pytest.fixture
def rig(tmp_path: Path, hub: EventHubsControl, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A rig on it, in a project without handlers; what commands leave in this process is put back afterwards."""
    (tmp_path / "handlers_of_nothing.py").write_text("from consumer import DispatchTable\ntable = DispatchTable()\n")
    (tmp_path / "event.json").write_text(json.dumps(program("one")))
    path, handlers = list(sys.path), list(logging.getLogger().handlers)
    monkeypatch.chdir(tmp_path)
    yield asyncio.run(hub_rig(tmp_path, hub, azurite))
    sys.path[:] = path
    sys.modules.pop("handlers_of_nothing", None)
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()


def _environment(rig: Rig, **changes: str) -> dict[str, str]:
    return rig.environment(LOG__FORMAT="json", HANDLERS="handlers_of_nothing", **changes)


def _run(rig: Rig, command: str, **changes: str) -> Result:
    result = CliRunner().invoke(main, _ARGUMENTS[command], env=_environment(rig, **changes))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    assert "azure" not in result.stderr
    assert not any(secret in result.output for secret in SECRETS)
    return result


def _assert_said(case: Case, command: str, result: Result) -> None:
    """One line on standard error; from `check`, a row."""
    said = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert (result.exit_code, len(said)) == (1, 1), result.output
    if command == "check":
        (bad,) = (row for row in json.loads(result.stdout) if row["result"] == "failed")
        assert (bad["part"], bad["name"], case.words in bad["detail"]) == ("source labs", case.row, True), bad
    else:
        assert case.words in said[0]
        assert result.stdout == ""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.thorough if name in _SLOW else ()) for name in CASES],
)
def test_wrong(rig: Rig, hub: EventHubsControl, azurite: Azurite, name: str) -> None:
    """A wrong setting is said by each command that it concerns."""
    places = {
        "wrong_key": hub.connection_string.replace("SAS_KEY_VALUE", WRONG_KEY),
        "refused": f"Endpoint=sb://127.0.0.1:{free_port()};" + hub.connection_string.partition(";")[2],
        "wrong_store": connection_string(key=WRONG_STORE_KEY, blob=azurite.blob_url),
        "no_store": connection_string(blob=f"http://127.0.0.1:{free_port()}/devstoreaccount1"),
    }
    case = CASES[name]
    for command in case.commands:
        changes = {f"SOURCES__LABS__{key}": value.format(**places) for key, value in case.changes.items()}
        _assert_said(case, command, _run(rig, command, **changes))


def test_permissions(rig: Rig, hub: EventHubsControl) -> None:
    """Without the right to send, `publish` fails; without the right to listen, `check` does; with both, all is well."""
    hub.call("deny", role="send")
    _assert_said(Case("access denied"), "publish", _run(rig, "publish"))
    hub.call("clear")
    hub.call("deny", role="listen")
    _assert_said(Case("access denied", row="consumer group"), "check", _run(rig, "check"))
    hub.call("clear")
    good = _run(rig, "check")
    assert (good.exit_code, good.stderr) == (0, "")
    rows = [row for row in json.loads(good.stdout) if row["part"] == "source labs"]
    assert {row["name"]: row["result"] for row in rows} | {"hub": "ok"} == {row["name"]: "ok" for row in rows}
    assert {"hub", "consumer group", "checkpoints", "backlog"} <= {row["name"] for row in rows}
    assert _run(rig, "publish").exit_code == 0


def test_in_a_process_of_its_own(rig: Rig, hub: EventHubsControl) -> None:
    """Nothing that runs at the end of the interpreter adds to the one line."""
    wrong = hub.connection_string.replace("SAS_KEY_VALUE", WRONG_KEY)
    environment = {**os.environ, **_environment(rig, SOURCES__LABS__CONNECTION_STRING=wrong), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "consumer", "run"]
    done = subprocess.run(command, env=environment, cwd=rig.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert "access denied" in done.stderr
