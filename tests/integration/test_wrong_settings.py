"""A worker that cannot run says why in one line and exits with the right code: 2 for settings, 1 for the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.rig import Rig
from tests.faults.harness import Stub, stub_process
from tests.servers.forked import fork
from tests.servers.processes import free_port


@dataclass
class Case:
    """What is wrong, and what is said."""

    code: int
    words: str
    changes: dict[str, str] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)
    handlers: str = "from consumer import DispatchTable\ntable = DispatchTable()\n"
    arguments: tuple[str, ...] = ()


_SQS = {
    "SOURCES__LABS__KIND": "sqs",
    "SOURCES__LABS__REGION": "us-east-1",
}

CASES = {
    "an unknown setting": Case(2, "CONSUMER_MAX_IN_FLIGTH", {"MAX_IN_FLIGTH": "5"}),
    "a wrong value": Case(2, "CONSUMER_MAX_IN_FLIGHT", {"MAX_IN_FLIGHT": "many"}),
    "an unknown kind": Case(2, "CONSUMER_SOURCES__LABS__KIND", {"SOURCES__LABS__KIND": "kafka"}),
    "no secret": Case(2, "CONSUMER_THRIVE__SIGNATURE__SECRETS", without={"THRIVE__SIGNATURE__SECRETS"}),
    "no source": Case(2, "no source", without={"SOURCES__LABS__KIND", "SOURCES__LABS__PATH"}),
    "another source": Case(2, "labz", arguments=("--source", "labz")),
    "no handlers": Case(2, "no module nowhere", {"HANDLERS": "nowhere"}),
    "no table": Case(2, "no DispatchTable named table", handlers="pass\n"),
    "a missing import": Case(2, "needs the module not_installed", handlers="import not_installed\n"),
    "handlers that do not parse": Case(2, "SyntaxError", handlers="def f(:\n"),
    "a sync handler": Case(
        2,
        "async def",
        handlers="from consumer import DispatchTable\nfrom consumer.events import ProgramEvent\n"
        "table = DispatchTable()\n@table.on(ProgramEvent)\ndef f(event, context): pass\n",
    ),
    "a handler for another type": Case(
        2,
        "does not take LabResultEvent",
        handlers="from consumer import Context, DispatchTable\n"
        "from consumer.events import LabResultEvent, ProgramEvent\ntable = DispatchTable()\n"
        "@table.on(LabResultEvent)\nasync def f(event: ProgramEvent, context: Context) -> None: pass\n",
    ),
    "a wrong file of secrets": Case(
        2,
        "CONSUMER_THRIVE__SIGNATURE__SECRETS_FILE",
        {"THRIVE__SIGNATURE__SECRETS_FILE": "/nonexistent/secret"},
        without={"THRIVE__SIGNATURE__SECRETS"},
    ),
    "timers that contradict": Case(2, "VISIBILITY_TIMEOUT", {"SOURCES__LABS__VISIBILITY_TIMEOUT": "1s"}),
    "a database that is not there": Case(
        1, "database", {"DATABASE__URL": "postgresql://postgres@127.0.0.1:{free}/none"}
    ),
    "a database folder that is not there": Case(2, "database.url", {"DATABASE__URL": "sqlite:////nonexistent/a.db"}),
    "a dead-letter folder that is a file": Case(1, "dead-letter store", {"DEAD_LETTERS__PATH": "/dev/null"}),
    "a queue that is a folder": Case(1, "labs", {"SOURCES__LABS__PATH": "/"}),
    "an unreachable queue": Case(
        1,
        "source labs: SQS GetQueueAttributes failed for now",
        {
            **_SQS,
            "SOURCES__LABS__QUEUE_URL": "http://127.0.0.1:{free}/0/labs",
            "SOURCES__LABS__ENDPOINT_URL": "http://127.0.0.1:{free}",
        },
    ),
    "a queue that does not exist": Case(
        1,
        "the queue does not exist",
        {
            **_SQS,
            "SOURCES__LABS__QUEUE_URL": "{stub}/000000000000/none",
            "SOURCES__LABS__ENDPOINT_URL": "{stub}",
        },
    ),
    "wrong credentials": Case(
        1,
        "credentials are wrong",
        {
            **_SQS,
            "SOURCES__LABS__QUEUE_URL": "{stub}/000000000000/guarded",
            "SOURCES__LABS__ENDPOINT_URL": "{stub}",
        },
    ),
    "a port that is taken": Case(
        2, "CONSUMER_HEALTH__PORT", {"HEALTH__ENABLED": "true", "HEALTH__PORT": "{stub_port}"}
    ),
}


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    """One stub for all cases; every request to it fails for its credentials or for want of a queue."""
    with stub_process() as found:
        yield found


@pytest.mark.parametrize("case", CASES)
def test_wrong(tmp_path: Path, aws_environment: None, stub: Stub, case: str) -> None:
    """One line on standard error that names what is wrong, no traceback, nothing on standard output."""
    wrong = CASES[case]
    (tmp_path / "handlers.py").write_text(wrong.handlers)
    port = stub.url.rpartition(":")[2]
    places = {"free": str(free_port()), "stub": stub.url, "stub_port": port}
    rig = Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue")}, without=wrong.without)
    rig.changes.update({name: value.format(**places) for name, value in wrong.changes.items()})
    if case == "wrong credentials":
        stub.fault("bad_token")
    environment = {**os.environ, **rig.environment(LOG__FORMAT="json")}
    out, err = tmp_path / "out", tmp_path / "err"
    code = fork(["run", *wrong.arguments], env=environment, cwd=tmp_path, out=out, err=err).wait()
    stub.heal()
    text = err.read_text()
    said = [line for line in text.splitlines() if not line.startswith("{")]
    assert (code, len(said)) == (wrong.code, 1), text
    assert wrong.words in said[0]
    assert "Traceback" not in text
    assert out.read_text() == ""
    assert "a secret of the tests" not in text
