"""`consumer demo`: the whole program, in a few seconds."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore
from azure.storage.queue import QueueClient

import consumer
from tests.emulators.event_hubs_client import event_hubs_process
from tests.faults.harness import stub_process
from tests.servers.azurite import Azurite
from tests.servers.forked import fork
from tests.servers.names import fresh_name

ROOT = Path(consumer.__file__).parent.parent


SECRET = "a secret of the tests"
NEEDS_A_KEY = {"priority_lists", "priorities"}
"""Tables that nothing is in while nothing can be fetched."""
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


OFFLINE = """
import sys
def refuse(event, _):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        raise SystemExit(f"{event} was called")
sys.addaudithook(refuse)
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a demo."""

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, *arguments: str, before: str = "", **settings: str) -> Result:
    """Run it as a process of its own; with `before`, one that runs that first."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONSUMER_")}
    env |= AWS | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)} | settings
    if not before:
        said = Path(tempfile.mkdtemp(prefix="said-", dir=folder.parent))
        out, err = said / "out", said / "err"
        code = fork(arguments, env=env, cwd=folder, out=out, err=err).wait(120)
        return Result(code, out.read_text(), err.read_text())
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\nfrom consumer.cli import main; main()", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One demo, kept, and what it says of itself."""
    folder = tmp_path_factory.mktemp("demo")
    result = run(folder, "demo", "--keep", "kept", "--events", "100", "--json")
    assert result.returncode == 0, result.stderr
    return folder / "kept", json.loads(result.stdout)


def accounted(said: dict[str, Any]) -> int:
    return sum(said["handled"].values()) + int(said["duplicates"]) + sum(said["dead_letters"].values())


def test_everything_is_accounted_for(kept: tuple[Path, dict[str, Any]]) -> None:
    """Every message took effect, was a duplicate, or was put aside; of both platforms, each kind for its own reason."""
    _, said = kept
    assert accounted(said) == said["messages"] == sum(one["messages"] for one in said["providers"])
    thrive, sahha = said["providers"]
    assert (thrive["provider"], sahha["provider"]) == ("thrive", "sahha")
    assert (thrive["source"], thrive["kind"]) == (said["source"], said["kind"]) == ("events", "local")
    assert set(thrive["handled"]) == {"LabResultEvent", "DailyDeviceEvent", "NudgeEvent", "ProgramEvent"}
    assert set(sahha["handled"]) == {"ScoreEvent", "BiomarkerEvent", "ArchetypeEvent", "DataLogEvent"}
    for one in (thrive, sahha):
        assert accounted(one) == one["messages"]
        assert one["duplicates"] > 0
        assert one["retried"] > 0
        assert set(one["dead_letters"]) == {
            "unsigned",
            "bad_signature",
            "stale",
            "unreadable",
            "invalid_event",
            "unknown_event",
            "rejected",
            "attempts_exhausted",
            "conflicting_duplicate",
        }
    assert {name for name, count in said["store"].items() if not count} == NEEDS_A_KEY
    assert said["values"]


def test_a_score_computed_again_counts(kept: tuple[Path, dict[str, Any]]) -> None:
    """The demo's one score that comes again with a newer time, before its older self, is kept as it was last."""
    _, said = kept
    assert said["scored_member"] == "member-01"
    (sleep,) = [score for score in said["scores"] if score["type"] == "sleep"]
    assert (sleep["score"], sleep["state"]) == (0.82, "high")


def test_the_dead_letters_are_there(kept: tuple[Path, dict[str, Any]]) -> None:
    """The kept folder holds a line for each event that was put aside."""
    folder, said = kept
    lines = [line for path in folder.glob("dead-letters/*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["reason"] for line in lines) == sorted(
        reason for reason, count in said["dead_letters"].items() for _ in range(count)
    )


def test_what_it_suggests_works(kept: tuple[Path, dict[str, Any]]) -> None:
    """In the kept folder the bug is gone, and replaying the events that met it makes them take effect."""
    folder, _ = kept
    assert run(folder, "dead-letters", "list").returncode == 0
    result = run(folder, "replay", "--reason", "attempts_exhausted", "--yes")
    assert result.returncode == 0, result.stderr
    assert "handled" in result.stdout


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """Without --keep nothing is left, and no network was touched; the summary is on stdout, progress on stderr."""
    result = run(tmp_path, "demo", "--events", "40", "--seed", "7", before=OFFLINE)
    assert result.returncode == 0, result.stderr
    for part in ("Took effect, of Thrive's", "Took effect, of Sahha's", "latest scores of member-01"):
        assert part in result.stdout
    assert "bad_signature" in result.stdout
    assert "messages settled" in result.stderr
    assert "messages settled" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_makes_the_same_events(tmp_path: Path, kept: tuple[Path, dict[str, Any]]) -> None:
    """Two demos with one seed end with the same store."""
    again = json.loads(run(tmp_path, "demo", "--events", "100", "--json").stdout)
    for name in ("messages", "handled", "store", "member", "values", "scored_member", "scores"):
        assert again[name] == kept[1][name]


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    """A folder that is not empty is refused, in one line."""
    (tmp_path / "mine.txt").write_text("")
    result = run(tmp_path, "demo", "--keep", ".")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def source(**settings: str) -> dict[str, str]:
    """A source `labs` of the user's, and the secret it is signed with."""
    named = {f"CONSUMER_SOURCES__LABS__{name}": value for name, value in settings.items()}
    return named | {"CONSUMER_THRIVE__SIGNATURE__SECRETS": SECRET, "CONSUMER_SAHHA__SIGNATURE__SECRETS": SECRET}


def through(folder: Path, **settings: str) -> dict[str, Any]:
    """The answer of a small demo through that source, in which everything is accounted for."""
    result = run(folder, "demo", "--source", "labs", "--events", "40", "--json", **source(**settings))
    assert result.returncode == 0, result.stderr
    assert SECRET not in result.stdout + result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    assert accounted(said) == said["messages"]
    assert said["dead_letters"].keys() >= {"unsigned", "bad_signature", "stale", "unreadable", "attempts_exhausted"}
    sahha = settings.get("PROVIDER") == "sahha"
    assert [one["provider"] for one in said["providers"]] == ["sahha" if sahha else "thrive"]
    filled = {name for name, count in said["store"].items() if count}
    assert filled == {name for name in said["store"].keys() - NEEDS_A_KEY if name.startswith("sahha_") == sahha}
    return said


def test_through_a_source_in_a_file(tmp_path: Path) -> None:
    """The source of a TOML file is gone through, is empty afterwards, and nothing else of the user's is touched."""
    (tmp_path / "mine.toml").write_text(
        f"[sources.labs]\nkind = 'local'\npath = 'q'\n[thrive.signature]\nsecrets = '{SECRET}'\n"
    )
    result = run(tmp_path, "demo", "--source", "Labs", "--config", "mine.toml", "--events", "40")
    assert result.returncode == 0, result.stderr
    assert "through source labs (local)" in result.stdout
    assert "consumer run --source labs" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml", "q"}


def test_through_a_source_of_sahhas(tmp_path: Path) -> None:
    """A source of Sahha's is gone through with webhooks, and only with them."""
    said = through(tmp_path, KIND="local", PATH="q", PROVIDER="sahha")
    assert (said["source"], said["kind"], said["member"], said["values"]) == ("labs", "local", None, [])
    assert said["scores"]


def test_events_of_others_are_not_taken(tmp_path: Path) -> None:
    """A queue that holds something is refused in one line, and holds the same afterwards."""
    settings = source(KIND="local", PATH="q")
    (tmp_path / "theirs.json").write_text("{}")
    assert run(tmp_path, "publish", "labs", "theirs.json", **settings).returncode == 0
    before = (tmp_path / "q").read_bytes()
    result = run(tmp_path, "demo", "--source", "labs", **settings)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: source labs is not empty (it holds 1), and the demo would take what is not its own\n"
    )
    assert (tmp_path / "q").read_bytes() == before


def test_a_source_that_cannot_be_gone_through(tmp_path: Path) -> None:
    """No such source, no secret, a file of settings for an embedded demo: one line, exit code 2."""
    settings = source(KIND="local", PATH="q")
    unsigned = {name: value for name, value in settings.items() if "SOURCES" in name}
    for result in (
        run(tmp_path, "demo", "--source", "lab", **settings),
        run(tmp_path, "demo", "--source", "labs", **unsigned),
        run(tmp_path, "demo", "--source", "labs", **unsigned, CONSUMER_SOURCES__LABS__PROVIDER="sahha"),
        run(tmp_path, "demo", "--config", "consumer.toml"),
    ):
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


def test_through_sqs(tmp_path: Path) -> None:
    """A queue of SQS is gone through and empty afterwards."""
    with stub_process() as stub:
        url = stub.create_queue("demo")
        said = through(tmp_path, KIND="sqs", QUEUE_URL=url, ENDPOINT_URL=stub.url, REGION="us-east-1")
        assert (said["source"], said["kind"]) == ("labs", "sqs")
        counts = stub.counts("demo")
        assert [counts[name] for name in ("ready", "delayed", "in_flight")] == [0, 0, 0]


@pytest.mark.thorough
def test_through_storage_queue(tmp_path: Path, azurite: Azurite) -> None:
    """A Storage Queue is gone through and empty afterwards."""
    string = azurite.connection_string
    with QueueClient.from_connection_string(string, fresh_name()) as queue:
        queue.create_queue()
        through(tmp_path, KIND="storage_queue", QUEUE=queue.queue_name, CONNECTION_STRING=string)
        assert queue.get_queue_properties().approximate_message_count == 0


@pytest.mark.thorough
async def test_through_an_event_hub(tmp_path: Path, azurite: Azurite) -> None:
    """An event hub is gone through, from its first event on, whatever the setting says of later ones."""
    string, container = azurite.connection_string, fresh_name()
    store = BlobCheckpointStore.from_connection_string(string, container)
    async with store, store._container_client as client:
        await client.create_container()
    with event_hubs_process(partitions=2) as hub:
        settings = {
            "KIND": "event_hubs",
            "CONNECTION_STRING": hub.connection_string,
            "EVENT_HUB": "events",
            "START_AT": "latest",
            "CHECKPOINTS__CONNECTION_STRING": string,
            "CHECKPOINTS__CONTAINER": container,
            "CHECKPOINTS__OWNERSHIP_INTERVAL": "1s",
        }
        assert (await asyncio.to_thread(lambda: through(tmp_path, **settings)))["kind"] == "event_hubs"
