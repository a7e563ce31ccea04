"""A member's dead letters, and those that are too old, go from object stores as they go from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.dead_letters.aging import purge_expired
from consumer.dead_letters.record import encode
from tests.integration.cli_project import Project, body, letter, opened_project, sign
from tests.servers.dead_letters import Shelf, new_shelf
from tests.servers.names import fresh_name

DAY = timedelta(days=1)
NOW = datetime.now(UTC)

project = pytest.fixture(opened_project)


@pytest.fixture(params=["s3", "blob"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    """An empty object store of either kind."""
    made = new_shelf(str(request.param), request, tmp_path)
    yield made
    made.close()


def named(age: timedelta, name: str) -> str:
    """The name of a segment begun so long ago."""
    return (NOW - age).strftime("%Y%m%dT%H%M%S.%fZ") + f"-{name}.jsonl"


def test_a_member_is_forgotten(project: Project, shelf: Shelf) -> None:
    """What is theirs goes from every object, with the fates; an object with nothing else goes as a whole."""
    # Their member is the remainder of the number by three: u1 is forgotten.
    forged = letter(4, message=json.dumps({"body": body(4)}).encode(), user_id=None, reason="unsigned", proven=False)
    stale = letter(5, message=sign(body(2, friend="u1")), user_id=None, reason="stale")
    shelf.put(named(DAY, "a"), b"".join(map(encode, (letter(1), letter(2), forged, stale))))
    shelf.put(named(DAY, "b"), encode(letter(7)))
    segments = {entry.record.id: entry.segment for entry in shelf.entries()}
    for one in (letter(1), letter(2), letter(7)):
        shelf.archive().record_fates(segments[one.id], {one.id: "failed"})
    assert len(shelf.names()) == 4
    project.env |= shelf.env
    result = project.run("forget", "--no-handlers", "--yes", "--json", "-", stdin="u1\n")
    assert result.exit_code == 0
    (erased,) = json.loads(result.stdout)["erased"]
    assert (erased["where"], erased["count"]) == ("dead letters", 3)
    assert shelf.ids() == [letter(2).id, stale.id]
    assert len(shelf.names()) == 2


def freeze(shelf: Shelf, name: str) -> None:
    """Move an object to where it cannot be read before it is restored, as a lifecycle rule may."""
    settings = shelf.settings
    key = settings.prefix.rstrip("/") + "/" + name
    if settings.kind == "s3":
        import boto3  # as below

        with closing(boto3.client("s3", endpoint_url=settings.endpoint_url)) as s3:
            place = {"Bucket": settings.bucket, "Key": key}
            s3.copy_object(**place, CopySource=place, StorageClass="GLACIER")
        return
    from azure.storage.blob import ContainerClient  # as below

    assert settings.connection_string is not None
    string = settings.connection_string.get_secret_value()
    with ContainerClient.from_connection_string(string, settings.container or "") as container:
        container.get_blob_client(key).set_standard_blob_tier("Archive")


def test_a_segment_in_cold_storage_keeps_nothing_else(project: Project, shelf: Shelf) -> None:
    """It is told of as one that cannot be read, and the others are gone through, also when what is too old goes."""
    shelf.put(named(90 * DAY, "a"), encode(letter(1, ago=90 * DAY)))
    freeze(shelf, named(90 * DAY, "a"))
    shelf.put(named(80 * DAY, "b"), encode(letter(2, ago=80 * DAY)))
    shelf.put(named(DAY, "c"), encode(letter(4)))
    purged = purge_expired(shelf.archive(), 60 * DAY.total_seconds(), now=NOW)
    assert (purged.removed, [one.place for one in purged.problems]) == (1, [0])
    project.env |= shelf.env
    result = project.run("forget", "--no-handlers", "--yes", "--json", "-", stdin="u1\n")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["erased"][0]["count"], answer["left"][0]["count"]) == (1, 1, 1)
    assert "restore it" in result.stderr


def test_what_is_too_old_goes(shelf: Shelf) -> None:
    """Objects begun lately are not even looked at."""
    shelf.put(named(90 * DAY, "a"), encode(letter(1, ago=90 * DAY)))
    shelf.put(named(61 * DAY, "b"), encode(letter(2, ago=61 * DAY)) + encode(letter(3, ago=59 * DAY)))
    shelf.put("unproven-" + named(70 * DAY, "c"), encode(letter(4, ago=70 * DAY)))
    shelf.put(named(DAY, "d"), encode(letter(5, ago=90 * DAY)))
    assert purge_expired(shelf.archive(), 60 * DAY.total_seconds(), now=NOW).removed == 3
    assert shelf.ids() == [letter(3).id, letter(5).id]
    assert len(shelf.names()) == 2


def test_a_dead_letter_queue_is_searched_when_it_is_named(
    project: Project, moto_url: str, aws_environment: None
) -> None:
    """What a redrive policy moved there is opened again, so who only mentions the member keeps what is theirs."""
    import boto3  # half a second that no other test should pay

    with closing(boto3.client("sqs", endpoint_url=moto_url)) as sqs:
        dead = sqs.create_queue(QueueName=fresh_name("dead"))["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1000})
        labs = sqs.create_queue(QueueName=fresh_name("labs"), Attributes={"RedrivePolicy": policy})["QueueUrl"]
        theirs, friends = sign(body(1)), sign(body(2, friend="u1"))
        for message in (theirs, friends, b'{"user_id": "u1", "half'):
            sqs.send_message(QueueUrl=dead, MessageBody=message.decode())
        del project.env["CONSUMER_SOURCES__LABS__PATH"]
        settings = {"KIND": "sqs", "QUEUE_URL": labs, "ENDPOINT_URL": moto_url, "POLL_WAIT": "1"}
        project.env |= {f"CONSUMER_SOURCES__LABS__{name}": value for name, value in settings.items()}
        result = project.run("forget", "--no-handlers", "--yes", "--json", "--queue", "labs", "-", stdin="u1\n")
        assert (result.exit_code, [one["count"] for one in json.loads(result.stdout)["erased"]]) == (0, [0, 2])
        (left,) = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]
        assert left["Body"].encode() == friends
