"""The AWS policies in deploy/ let each part do its work, and `consumer check` names every permission one may lack.

moto evaluates IAM policies here. It knows neither resources nor the batch calls' sharing of one permission, so the
statements are widened to every resource, and an action to its batch form.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from azure.core.exceptions import ResourceExistsError

from tests.integration.cli_project import Project, opened_project
from tests.servers.fixtures import NewQueue, OpenSource
from tests.servers.fixtures_azure import OpenStorageQueue
from tests.servers.moto import moto_server

DEPLOY = Path(__file__).parents[2] / "deploy"
BATCHED = ("sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:SendMessage")

project = pytest.fixture(opened_project)
_users = itertools.count(1)

User = Callable[[set[str]], dict[str, str]]


def policy(name: str) -> list[str]:
    """The actions a policy in deploy/aws allows."""
    statements = json.loads((DEPLOY / "aws" / f"{name}.json").read_text())["Statement"]
    actions = [one["Action"] if isinstance(one["Action"], list) else [one["Action"]] for one in statements]
    return sorted(set(itertools.chain.from_iterable(actions)))


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, str, User]]:
    """A moto server that denies what is not allowed; a queue on it; and what makes a user who may do something."""
    with moto_server() as url:
        common: dict[str, Any] = {"endpoint_url": url, "region_name": "us-east-1"}
        anybody = {**common, "aws_access_key_id": "any", "aws_secret_access_key": "any"}
        queue = boto3.client("sqs", **anybody).create_queue(QueueName="labs")["QueueUrl"]
        iam = boto3.client("iam", **anybody)

        def make(client: Any, actions: set[str]) -> dict[str, str]:
            name = f"user-{next(_users)}"
            allowed = sorted(actions | {f"{one}Batch" for one in actions.intersection(BATCHED)})
            document = {"Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}], "Version": "2012-10-17"}
            client.create_user(UserName=name)
            client.put_user_policy(UserName=name, PolicyName="its", PolicyDocument=json.dumps(document))
            key = client.create_access_key(UserName=name)["AccessKey"]
            return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

        admin = make(iam, {"iam:*"})
        request = urllib.request.Request(
            f"{url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).close()
        guarding = boto3.client("iam", **common, **{name.lower(): value for name, value in admin.items()})
        yield url, queue, lambda actions: make(guarding, actions)


def settings(url: str, queue: str, *, provider: str = "thrive") -> dict[str, str]:
    return {
        "CONSUMER_SOURCES__LABS__KIND": "sqs",
        "CONSUMER_SOURCES__LABS__QUEUE_URL": queue,
        "CONSUMER_SOURCES__LABS__ENDPOINT_URL": url,
        "CONSUMER_SOURCES__LABS__REGION": "us-east-1",
        "CONSUMER_SOURCES__LABS__PROVIDER": provider,
        "CONSUMER_SAHHA__SIGNATURE__SECRETS": "a-secret-of-sahha",
    }


def failures(project: Project, env: dict[str, str], *arguments: str) -> dict[str, str]:
    """What failed, by the name of the check, with its detail."""
    rows = json.loads(project.run("check", "--json", *arguments, env=env).stdout)
    return {row["name"]: row["detail"] for row in rows if row["result"] != "ok" and row["part"].startswith("source")}


def test_the_consumers_policy_is_enough(
    project: Project, aws_environment: None, guarded: tuple[str, str, User]
) -> None:
    """With what deploy/aws/consumer.json allows, nothing is missing."""
    url, queue, user = guarded
    assert failures(project, settings(url, queue) | user(set(policy("consumer")))) == {}


@pytest.mark.parametrize("missing", ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"])
def test_check_names_what_the_consumer_may_not(
    project: Project, aws_environment: None, guarded: tuple[str, str, User], missing: str
) -> None:
    """Without one of the permissions a consumer needs, `check` fails and names that one alone."""
    url, queue, user = guarded
    found = failures(project, settings(url, queue) | user(set(policy("consumer")) - {f"sqs:{missing}"}))
    assert list(found) == [f"sqs:{missing}"]
    assert f"sqs:{missing}" in found[f"sqs:{missing}"] or "access denied" in found[f"sqs:{missing}"]


def test_check_warns_of_what_the_consumer_can_do_without(
    project: Project, aws_environment: None, guarded: tuple[str, str, User]
) -> None:
    """The queue's attributes are worth knowing, and no reason not to run."""
    url, queue, user = guarded
    found = failures(project, settings(url, queue) | user(set(policy("consumer")) - {"sqs:GetQueueAttributes"}))
    assert "sqs:GetQueueAttributes" in found.pop("queue")
    assert not found


def test_the_relay_needs_to_send_and_no_more(
    project: Project, aws_environment: None, guarded: tuple[str, str, User]
) -> None:
    """With deploy/aws/relay.json the relay could run and the worker could not; without SendMessage it is named."""
    url, queue, user = guarded
    env = settings(url, queue, provider="sahha")
    relay = user(set(policy("relay")))
    assert failures(project, env | relay, "--for", "relay") == {}
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage"} <= set(failures(project, env | relay))
    found = failures(project, env | user({"sqs:GetQueueAttributes"}), "--for", "relay")
    assert "sqs:SendMessage" in found["sqs:SendMessage"]


async def test_looking_sends_and_receives_nothing(
    new_queue: NewQueue, sqs_client: Any, sqs_endpoint: Any, open_source: OpenSource
) -> None:
    """A message on the queue is where it was, as often received as before, and nothing was added."""
    queue = await new_queue()
    await sqs_client.send_message(QueueUrl=queue, MessageBody="x")
    source = await open_source(queue, sqs_endpoint.url)
    found = [*await source.check(), *await source.check_sending()]
    assert [one.name for one in found if not one.ok] == []
    assert (await source.depth()).total == 1
    reply = await sqs_client.receive_message(QueueUrl=queue, MessageSystemAttributeNames=["All"])
    assert reply["Messages"][0]["Attributes"]["ApproximateReceiveCount"] == "1"


async def test_sending_to_a_storage_queue_is_tried_without_sending(
    storage_account: str, open_storage_queue: OpenStorageQueue
) -> None:
    """What the service refuses for what it is, it would take from whoever may send; the queue stays empty."""
    from azure.storage.queue.aio import QueueClient  # only here

    async with QueueClient.from_connection_string(storage_account, "permissions") as client:
        with contextlib.suppress(ResourceExistsError):
            await client.create_queue()
    source = await open_storage_queue(storage_account, "permissions")
    assert [(one.name, one.ok) for one in await source.check_sending()] == [("Put Message", True)]
    assert (await source.depth()).total == 0


@pytest.mark.parametrize("path", sorted((DEPLOY / "azure").glob("*.json")), ids=lambda path: path.stem)
def test_azure_roles_are_custom_roles(path: Path) -> None:
    """Each has what `az role definition create` asks for, and nothing as wide as a wildcard."""
    role = json.loads(path.read_text())
    assert set(role) == {
        *("Name", "IsCustom", "Description", "Actions", "NotActions"),
        *("DataActions", "NotDataActions", "AssignableScopes"),
    }
    assert role["DataActions"]
    assert not any("*" in one for one in role["Actions"] + role["DataActions"])
    assert path.name in (DEPLOY.parent / "docs" / "permissions.md").read_text()
