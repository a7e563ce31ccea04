"""`consumer publish`: bodies signed and put on a configured queue."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.integration.cli_project import Project, body, opened_project, sign

project = pytest.fixture(opened_project)


def queued(project: Project) -> list[bytes]:
    """What is on the queue, in order."""
    database = sqlite3.connect(project.folder / "queue.db")
    try:
        return [message for (message,) in database.execute("SELECT body FROM bodies ORDER BY seq")]
    finally:
        database.close()


def handled(project: Project) -> list[str]:
    project.run("run", "--until-idle", "--idle-after", "0.2s")
    return sorted(project.effects())


def test_what_is_published_is_handled(project: Project, tmp_path: Path) -> None:
    """Files of one body, files of one in each line and standard input are signed so that the worker takes them."""
    pretty = tmp_path / "one.json"
    pretty.write_text(json.dumps(json.loads(body(1)), indent=2) + "\n")
    (tmp_path / "more.jsonl").write_text(f"{body(2)}\n\n{body(3)}")
    result = project.run("publish", "labs", str(pretty), str(tmp_path / "more.jsonl"), "-", stdin=body(4))
    assert (result.exit_code, result.stdout) == (0, "4 messages sent to labs\n")
    assert handled(project) == ["e1", "e2", "e3", "e4"]


@pytest.mark.parametrize("stdin", [f"{body(1)}\n{body(2)}\n", json.dumps(json.loads(body(1)), indent=2)])
def test_standard_input_is_one_body_or_one_a_line(project: Project, stdin: str) -> None:
    """A body over several lines is one body; bodies of a line each are as many."""
    assert project.run("publish", "LABS", "-", stdin=stdin).exit_code == 0
    assert len(queued(project)) == len(handled(project)) == stdin.count("event_id")


def test_as_object(project: Project, tmp_path: Path) -> None:
    """With --as-object the body is an object of the envelope, and its signature holds as well."""
    (tmp_path / "one.json").write_text(body(1))
    assert project.run("publish", "labs", "--as-object", str(tmp_path / "one.json")).exit_code == 0
    assert isinstance(json.loads(queued(project)[0])["body"], dict)
    assert handled(project) == ["e1"]


def test_many_are_sent_in_batches(project: Project, tmp_path: Path) -> None:
    """More bodies than fit into one call all arrive, in order."""
    (tmp_path / "many.jsonl").write_text("\n".join(body(number) for number in range(250)))
    assert project.run("publish", "labs", str(tmp_path / "many.jsonl")).stdout == "250 messages sent to labs\n"
    sent = [json.loads(json.loads(message)["body"])["event_id"] for message in queued(project)]
    assert sent == [f"e{number}" for number in range(250)]


def test_raw_sends_the_very_bytes(project: Project, tmp_path: Path) -> None:
    """A captured message goes out as it is, white space included, signed or not."""
    message = b"  " + sign(body(1)) + b"\n"
    (tmp_path / "captured").write_bytes(message)
    (tmp_path / "nonsense").write_bytes(b"\xff\x00")
    result = project.run("publish", "labs", "--raw", str(tmp_path / "captured"), str(tmp_path / "nonsense"))
    assert result.exit_code == 0
    assert queued(project) == [message, b"\xff\x00"]
    assert handled(project) == ["e1"]


def test_ordering_key_and_delay(project: Project, tmp_path: Path) -> None:
    """The lane and the delay are the messages'."""
    (tmp_path / "one.json").write_text(body(1))
    path = str(tmp_path / "one.json")
    assert project.run("publish", "labs", path, "--ordering-key", "a", "--delay", "1h").exit_code == 0
    database = sqlite3.connect(tmp_path / "queue.db")
    ((lane, delay),) = database.execute("SELECT lane, round(visible_at - sent_at) FROM messages")
    database.close()
    assert (lane, delay) == ("a", 3600)


@pytest.mark.parametrize("wrong", ["[1]", '"text"', '{"a": ', "", '{"event_id": "a", "event_id": "b"}'])
def test_what_is_no_body_is_refused(project: Project, tmp_path: Path, wrong: str) -> None:
    """One line that is no JSON object, or an ambiguous one, is named, and nothing of any file is sent."""
    (tmp_path / "good.json").write_text(body(1))
    (tmp_path / "bad.jsonl").write_text(f"{body(2)}\n{wrong or 'null'}\n")
    result = project.run("publish", "labs", str(tmp_path / "good.json"), str(tmp_path / "bad.jsonl"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {tmp_path}/bad.jsonl:2: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "queue.db").exists()
    (tmp_path / "bad.json").write_text(wrong)
    assert project.run("publish", "labs", str(tmp_path / "bad.json")).exit_code == 1


def test_standard_input_breaks_off(project: Project) -> None:
    """When standard input goes wrong after some were sent, it is said how many."""
    lines = "\n".join([*(body(number) for number in range(100)), "[]"])
    result = project.run("publish", "labs", "-", stdin=lines)
    assert result.exit_code == 1
    assert "standard input:101: " in result.stderr
    assert "(100 messages were sent before)" in result.stderr


def test_wrong_usage(project: Project, tmp_path: Path) -> None:
    """No such source, file, secret or delay: exit code 2."""
    (tmp_path / "one.json").write_text(body(1))
    path = str(tmp_path / "one.json")
    assert "labs" in project.run("publish", "lab", path).stderr
    assert project.run("publish", "lab", path).exit_code == 2
    assert project.run("publish", "labs").exit_code == 2
    assert project.run("publish", "labs", "none.json").exit_code == 2
    assert project.run("publish", "labs", path, "--delay", "soon").exit_code == 2
    del project.env["CONSUMER_THRIVE__SIGNATURE__SECRETS"]
    assert project.run("publish", "labs", path).exit_code == 2
    assert project.run("publish", "labs", path, "--raw").exit_code == 0


def test_queue_out_of_reach(project: Project, tmp_path: Path) -> None:
    """A queue that cannot be used is one line and exit code 1."""
    (tmp_path / "one.json").write_text(body(1))
    (tmp_path / "file").touch()
    env = {"CONSUMER_SOURCES__LABS__PATH": str(tmp_path / "file" / "queue.db")}
    result = project.run("publish", "labs", str(tmp_path / "one.json"), env=env)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_no_secret_on_the_command_line(project: Project) -> None:
    """Secrets come from the settings alone."""
    assert project.run("publish", "labs", "-", "--secret", "x", stdin=body(1)).exit_code == 2


def test_help_has_an_example(project: Project) -> None:
    """The help shows how it is used."""
    assert "Example: " in project.run("publish", "--help").stdout


_OWN_SOURCE = """
from consumer.sources.local import LocalSource

class Whole(LocalSource):
    pass

class Part:
    def __init__(self, settings):
        pass
    async def open(self):
        pass

class Broken:
    def __init__(self, settings):
        raise KeyError("glucose-5.4-canary")
"""


def test_a_source_of_ones_own(project: Project) -> None:
    """A class in the handlers' folder serves `publish` as it serves `run`; one that cannot is told in one line."""
    module = f"partner_sources_{id(project)}"
    (project.folder / f"{module}.py").write_text(_OWN_SOURCE)

    def published(name: str) -> tuple[int, str]:
        result = project.run(
            "publish", "labs", "-", stdin=body(1), env={"CONSUMER_SOURCES__LABS__KIND": f"{module}:{name}"}
        )
        return result.exit_code, result.output

    assert published("Whole") == (0, "1 message sent to labs\n")
    where = f"Error: CONSUMER_SOURCES__LABS__KIND: {module}:"
    for name, why in (("Part", "is not a source: it has no receive, interrupt, "), ("Broken", "raised KeyError at ")):
        code, told = published(name)
        assert code == 2
        assert told.startswith(f"{where}{name} {why}")


def test_a_run_ends_with_what_became_of_events(project: Project) -> None:
    """The last line of the log counts what was handled, seen before, tried again and put aside."""
    project.run("publish", "labs", "-", stdin=f"{body(1)}\n{body(2)}\n{body(1)}\n")
    project.run("publish", "labs", "--raw", "-", stdin="{}")
    told = project.run("run", "--until-idle", "--idle-after", "0.2s").stderr.splitlines()[-1]
    counts = {"handled": 2, "duplicates": 1, "retried": 0, "dead_letters": 1}
    assert json.loads(told).items() >= ({"event": "stopped"} | counts).items()
