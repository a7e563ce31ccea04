"""Dead letters on SQS queues, from the command line, against two servers that play SQS."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.cli_project import Project, body, opened_project, sign

project = pytest.fixture(opened_project)


@dataclass
class Queues:
    """Queues on one server: a plain client, and where it is."""

    sqs: Any
    url: str

    def make(self, *, fifo: bool = False, **attributes: str) -> str:
        """Make a queue and return its URL."""
        name = f"q-{uuid.uuid4().hex[:12]}{'.fifo' if fifo else ''}"
        given = {**attributes, **({"FifoQueue": "true"} if fifo else {})}
        return str(self.sqs.create_queue(QueueName=name, Attributes=given)["QueueUrl"])

    def redriving(self, target: str, *, after: int = 1000, fifo: bool = False) -> str:
        """Make a queue whose redrive policy names another."""
        arn = self.sqs.get_queue_attributes(QueueUrl=target, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": after})
        return self.make(fifo=fifo, RedrivePolicy=policy, VisibilityTimeout="0" if after == 1 else "30")

    def send(self, queue: str, message: bytes, **more: Any) -> None:
        """Put a message on a queue."""
        self.sqs.send_message(QueueUrl=queue, MessageBody=message.decode(), **more)

    def count(self, queue: str) -> int:
        """How many messages a queue holds, in flight or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


@pytest.fixture(params=["moto", pytest.param("fauxqs", marks=pytest.mark.thorough)])
def queues(request: pytest.FixtureRequest, aws_environment: None) -> Iterator[Queues]:
    """A server that plays SQS."""
    yield from _queues(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def moto_queues(moto_url: str, aws_environment: None) -> Iterator[Queues]:
    """The server that gives several messages of a group at once."""
    yield from _queues(moto_url)


def _queues(url: str) -> Iterator[Queues]:
    import boto3  # half a second that no other test should pay

    client = boto3.client("sqs", endpoint_url=url)
    try:
        yield Queues(client, url)
    finally:
        client.close()


def on(project: Project, queues: Queues, queue: str, **more: str) -> None:
    """Have the project's source be this queue."""
    del project.env["CONSUMER_SOURCES__LABS__PATH"]
    settings = {"KIND": "sqs", "QUEUE_URL": queue, "ENDPOINT_URL": queues.url, "POLL_WAIT": "1", **more}
    project.env |= {f"CONSUMER_SOURCES__LABS__{name}": value for name, value in settings.items()}


def listed(project: Project, *arguments: str) -> list[dict[str, Any]]:
    """What `dead-letters list` answers."""
    result = project.run("dead-letters", "list", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_put_aside_listed_shown_and_replayed(project: Project, queues: Queues) -> None:
    """What a broken handler put on the DLQ is listed, shown and replayed in place, once in effect, and then gone."""
    target = queues.make()
    on(project, queues, queues.redriving(target))
    project.env |= {"CONSUMER_DEAD_LETTERS__KIND": "queue", "CONSUMER_MAX_ATTEMPTS": "1"}
    for number in range(3):
        queues.send(project.env["CONSUMER_SOURCES__LABS__QUEUE_URL"], sign(body(number)))
    queues.send(project.env["CONSUMER_SOURCES__LABS__QUEUE_URL"], b"hello")
    project.handlers("raise ValueError(event.model_extra['note'])")
    assert project.run("run", "--until-idle", "--idle-after", "0.2s").exit_code == 0
    assert queues.count(target) == 4
    found = listed(project)
    assert sorted(one["reason"] for one in found) == ["attempts_exhausted"] * 3 + ["unreadable"]
    assert {one["event_type"] for one in found} == {"lab.result.ready", None}
    assert [one["reason"] for one in listed(project, "--reason", "unreadable")] == ["unreadable"]
    shown = project.run("dead-letters", "show", found[0]["id"], "--json")
    assert json.loads(shown.stdout)["id"] == found[0]["id"]
    project.handlers("await keep(event, context)")
    code, answer = project.replay()
    assert (code, answer["fates"]) == (1, {"handled": 3, "unreadable": 1})
    assert sorted(project.effects()) == ["e0", "e1", "e2"]
    assert queues.count(target) == 1
    purged = project.run("dead-letters", "purge", "--reason", "unreadable", "--yes", "--json")
    assert json.loads(purged.stdout)["removed"] == 1
    assert queues.count(target) == 0


def test_what_a_redrive_policy_moved(project: Project, moto_queues: Queues) -> None:
    """With dead letters in files, --queue reads and replays what SQS itself moved away; an old one is stale."""
    queues = moto_queues
    target = queues.make()
    queue = queues.redriving(target, after=1)
    on(project, queues, queue)
    queues.send(queue, sign(body(1)))
    deadline = time.monotonic() + 10
    while not queues.count(target) and time.monotonic() < deadline:
        queues.sqs.receive_message(QueueUrl=queue)
    queues.send(target, sign(body(2), ago=timedelta(days=9)))
    assert [one["reason"] for one in listed(project, "--queue", "labs")] == ["redriven"] * 2
    assert listed(project) == []
    code, answer = project.replay("--queue", "labs", "--dry-run")
    assert (code, answer["lines"]) == (0, 2)
    assert project.replay("--queue", "labs")[1]["fates"] == {"handled": 1, "stale": 1}
    assert project.effects() == ["e1"]
    assert project.replay("--queue", "labs", "--accept-stale")[1]["fates"] == {"handled": 1}
    assert (project.effects(), queues.count(target)) == (["e1", "e2"], 0)


def test_a_queue_does_not_know_users(project: Project, moto_queues: Queues) -> None:
    """Who asks for a user's dead letters is not told that there are none: nobody can know."""
    target = moto_queues.make()
    on(project, moto_queues, moto_queues.redriving(target))
    project.env["CONSUMER_DEAD_LETTERS__KIND"] = "queue"
    moto_queues.send(target, sign(body(1)))
    for command in ("dead-letters list", "dead-letters export -", "dead-letters purge --yes", "replay --yes"):
        result = project.run(*command.split(), "--user", "u1")
        assert (result.exit_code, "redriven" in result.stdout) == (1, False), command
        assert "--user: a dead-letter queue does not say" in result.stderr
    assert moto_queues.count(target) == 1


def test_a_group_is_replayed_in_order(project: Project, moto_queues: Queues) -> None:
    """A FIFO queue gives the first ten of a group: a replay goes on with the next, as long as they are handled."""
    queues = moto_queues
    target = queues.make(fifo=True)
    on(project, queues, queues.redriving(target, fifo=True))
    project.env["CONSUMER_DEAD_LETTERS__KIND"] = "queue"
    for number in range(12):
        queues.send(target, sign(body(number)), MessageGroupId="one", MessageDeduplicationId=str(number))
    result = project.run("dead-letters", "list", "--json")
    assert len(json.loads(result.stdout)) == 10
    assert "there is more" in result.stderr
    code, answer = project.replay()
    assert (code, answer["fates"]) == (0, {"handled": 12})
    assert project.effects() == [f"e{number}" for number in range(12)]
    assert queues.count(target) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dead-letters", "list", "--queue", "labs"], "source labs is local, which has no dead-letter queue"),
        (["replay", "--yes", "--queue", "lab"], "did you mean labs?"),
        (["replay", "--yes", "--queue", "labs", "."], "--queue and PATHs exclude each other"),
    ],
    ids=["local", "unknown", "paths"],
)
def test_queues_that_cannot_be_read(project: Project, arguments: list[str], said: str) -> None:
    """A source without a dead-letter queue is refused in one line, with exit code 2."""
    result = project.run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
