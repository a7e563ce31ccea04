"""`consumer thrive queues`: where Thrive sends the events of a stream."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from tests.emulators.sqs_stub import SqsStub
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.integration.cli_platforms import CommandLine, command_line
from tests.servers.azurite import ACCOUNT
from tests.servers.scripted import Scripted, answering, scripted

if TYPE_CHECKING:
    from consumer.sandbox.server import Sandbox

commands = pytest.fixture(command_line)

KEY = "tenant-key-canary"
SAS = "sas-token-canary"
BUFFERED = "  No queue is registered for this stream: its events are buffered\n"
URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/labs"


@pytest.fixture
def thrive(commands: CommandLine, sandbox: Sandbox) -> CommandLine:
    """A command line for the sandbox's Thrive, with a local source `labs`."""
    commands.env |= {
        "CONSUMER_THRIVE__BASE_URL": sandbox.url,
        "CONSUMER_THRIVE__TENANT_KEY": sandbox.tenant_key,
        "CONSUMER_THRIVE__SIGNATURE__SECRETS": sandbox.thrive_secret,
        "CONSUMER_SOURCES__LABS__KIND": "local",
        "CONSUMER_SOURCES__LABS__PATH": "queue.db",
    }
    commands.secrets += [sandbox.tenant_key, sandbox.thrive_secret]
    return commands


def asking(commands: CommandLine, server: Scripted, **source: str) -> None:
    """Point the command line at a scripted Thrive, with a source `labs`."""
    commands.secrets += [KEY, SAS]
    commands.env |= {"CONSUMER_THRIVE__BASE_URL": server.url, "CONSUMER_THRIVE__TENANT_KEY": KEY}
    commands.env |= {f"CONSUMER_SOURCES__LABS__{key}": value for key, value in source.items()}


def sent(server: Scripted) -> Any:
    """The body of the last request."""
    return json.loads(server.requests[-1].body)


async def test_a_queue_is_registered_shown_replaced_and_removed(thrive: CommandLine) -> None:
    """The whole life of a registration, from a configured source; the test message is on the queue at once."""
    told = await thrive.failed("thrive", "queues", "show", "lab-results")
    assert told == f"Error: not configured\n{BUFFERED}"
    made = await thrive.run("thrive", "queues", "register", "lab-results", "--source", "labs")
    assert made.exit_code == 0
    assert str(thrive.folder / "queue.db") in made.stdout
    assert "unsigned" in made.stderr
    with sqlite3.connect(thrive.folder / "queue.db") as database:
        assert database.execute("SELECT count(*) FROM bodies").fetchone()[0] >= 1
    database.close()
    shown = await thrive.json("thrive", "queues", "show", "lab-results")
    assert (shown["queue_name"], shown["type"]) == ("lab-results", "local")
    again = await thrive.failed("thrive", "queues", "register", "lab-results", "--source", "labs")
    assert again == "Error: already configured: use `consumer thrive queues replace lab-results ...`\n"
    other = str(thrive.folder / "other.db")
    replaced = await thrive.json(
        "thrive", "queues", "replace", "lab-results", "--type", "local", "--set", f"local.path={other}"
    )
    assert replaced["local"]["path"] == other
    gone = await thrive.run("thrive", "queues", "remove", "lab-results")
    assert (gone.exit_code, gone.stdout) == (
        0,
        "removed: events of lab-results are buffered from now on, unless another queue takes them\n",
    )
    told = await thrive.failed("thrive", "queues", "remove", "lab-results")
    assert told == f"Error: not configured: there is nothing to remove\n{BUFFERED}"
    told = await thrive.failed("thrive", "queues", "replace", "lab-results", "--source", "labs")
    assert told == f"Error: not configured: use `consumer thrive queues register lab-results ...`\n{BUFFERED}"


async def test_a_stream_without_a_queue_of_its_own_where_one_is_registered_for_all(thrive: CommandLine) -> None:
    """Where its events go the platform says, and nothing else does."""
    assert (await thrive.run("thrive", "queues", "register", "all", "--source", "labs")).exit_code == 0
    words = "  No queue is registered for this stream: its events go to the queue registered for all\n"
    for verb, first in (("show", "not configured"), ("remove", "not configured: there is nothing to remove")):
        assert await thrive.failed("thrive", "queues", verb, "lab-results") == f"Error: {first}\n{words}"


async def test_the_providers_error_is_shown(thrive: CommandLine) -> None:
    """A queue that cannot be published to is refused with what went wrong, and nothing is stored."""
    (thrive.folder / "file").touch()
    told = await thrive.failed(
        "thrive", "queues", "register", "lab-results", "--type", "local", "--set", f"local.path={thrive.folder}/file/q"
    )
    lines = told.splitlines()
    assert lines[0].startswith("Error: POST /v1/admin/org/queues/{queue_name}: HTTP 400, invalid_request")
    assert lines[1].startswith("  ")
    assert "not configured" in await thrive.failed("thrive", "queues", "show", "lab-results")


async def test_the_body_is_worked_out_from_a_source(commands: CommandLine) -> None:
    """An SQS queue's ARN and region; fields given by hand are put beside or over them, secrets come from files."""
    (commands.folder / "sas").write_text(f"{SAS}\n")
    async with scripted(answering(web.json_response({"data": {"queue_name": "lab", "type": "aws_sqs"}}))) as server:
        asking(commands, server, KIND="sqs", QUEUE_URL=URL)
        register = ("thrive", "queues", "register", "lab", "--source", "labs")
        given = ("--set", "aws_sqs.role_arn=arn:aws:iam::1:role/r", "--set", "aws_sqs.region=eu-west-2")
        more = ("--set", "note.a=1", "--set-file", "aws_sqs.token=sas")
        assert (await commands.run(*register, *given, *more)).exit_code == 0
    assert sent(server) == {
        "queue_name": "lab",
        "type": "aws_sqs",
        "aws_sqs": {
            "queue_arn": "arn:aws:sqs:eu-west-1:123456789012:labs",
            "region": "eu-west-2",
            "role_arn": "arn:aws:iam::1:role/r",
            "token": SAS,
        },
        "note": {"a": 1},
    }
    assert [server.requests[-1].method, server.requests[-1].target] == ["POST", "/v1/admin/org/queues/lab"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("azure_event_hubs", ("namespace", "event_hub_name")),
        ("azure_storage_queue", ("account_name", "queue_name")),
        ("aws_sqs", ("queue_arn",)),
    ],
)
async def test_the_body_is_given_by_hand(commands: CommandLine, kind: str, names: tuple[str, ...]) -> None:
    """Every kind, with whatever fields Thrive turns out to want; without what a kind needs nothing is sent."""
    (commands.folder / "sas").write_text(SAS)
    pairs = [part for name in names for part in ("--set", f"{kind}.{name}=x-{name}")]
    async with scripted(answering(web.json_response({"data": {"queue_name": "lab", "type": kind}}))) as server:
        asking(commands, server)
        lacking = await commands.failed("thrive", "queues", "register", "lab", "--type", kind, *pairs[2:], code=2)
        assert f"{kind}.{names[0]}" in lacking
        assert not server.requests
        done = await commands.run(
            "thrive", "queues", "register", "lab", "--type", kind, *pairs, "--set-file", f"{kind}.sas_token=sas"
        )
    assert done.exit_code == 0
    block = {name: f"x-{name}" for name in names} | {"sas_token": SAS}
    assert sent(server) == {"queue_name": "lab", "type": kind, kind: block}


async def test_the_body_is_a_file(commands: CommandLine) -> None:
    """It is sent as it is, and goes with no other description."""
    body = {"queue_name": "lab", "type": "new_kind", "new_kind": {"secret": SAS}}
    (commands.folder / "body.json").write_text(json.dumps(body))
    async with scripted(answering(web.json_response({"data": {"queue_name": "lab", "type": "new_kind"}}))) as server:
        asking(commands, server)
        assert (await commands.run("thrive", "queues", "replace", "lab", "--body", "body.json")).exit_code == 0
        assert sent(server) == body
        assert server.requests[-1].method == "PUT"
        both = ("--body", "body.json", "--type", "local")
        assert "--body" in await commands.failed("thrive", "queues", "replace", "lab", *both, code=2)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--source", "labs", "--type", "aws_sqs"),
        ("--type", "kafka"),
        ("--set", "aws_sqs.queue_arn=x"),
        ("--type", "aws_sqs", "--set", SAS),
        ("--type", "aws_sqs", "--set", f"aws_sqs={SAS}"),
        ("--source", "no-such-source"),
    ],
)
async def test_contradictions_are_wrong_usage(commands: CommandLine, arguments: tuple[str, ...]) -> None:
    """Exit code 2, and nothing of what was given by value is repeated."""
    async with scripted(answering(web.Response(status=500))) as server:
        asking(commands, server, KIND="sqs", QUEUE_URL=URL)
        await commands.failed("thrive", "queues", "register", "lab", *arguments, code=2)
    assert not server.requests


async def test_an_azure_queue_without_a_sas_token(commands: CommandLine) -> None:
    """When Thrive refuses it, the likeliest reason stands below its own words."""
    refusal = {"error": {"code": "invalid_request", "message": "401 Unauthorized", "details": [], "request_id": None}}
    pairs = ("--set", "azure_storage_queue.account_name=a", "--set", "azure_storage_queue.queue_name=q")
    async with scripted(answering(web.json_response(refusal, status=400))) as server:
        asking(commands, server)
        register = ("thrive", "queues", "register", "lab", "--type", "azure_storage_queue", *pairs)
        told = (await commands.failed(*register)).splitlines()
    assert told[1] == "  401 Unauthorized"
    assert told[2].startswith("no SAS token was sent: --set-file azure_storage_queue.sas_token=FILE")


async def test_a_local_queue_is_a_sandboxs(commands: CommandLine) -> None:
    """Thrive itself is never asked to write a file on this machine."""
    commands.env |= {
        "CONSUMER_THRIVE__TENANT_KEY": KEY,
        "CONSUMER_SOURCES__LABS__KIND": "local",
        "CONSUMER_SOURCES__LABS__PATH": "queue.db",
    }
    told = await commands.failed("thrive", "queues", "register", "lab", "--source", "labs", code=2)
    assert told == "Error: sources.labs.kind: Thrive cannot reach a local queue, only a sandbox can\n"


async def test_an_emulated_sqs_queue(thrive: CommandLine, sqs_stub: SqsStub) -> None:
    """The sandbox is told where the emulator is, and publishes its test message there; the ARN is worked out."""
    thrive.env |= {
        "CONSUMER_SOURCES__LABS__KIND": "sqs",
        "CONSUMER_SOURCES__LABS__QUEUE_URL": sqs_stub.create_queue("labs"),
        "CONSUMER_SOURCES__LABS__REGION": "us-east-1",
    }
    del thrive.env["CONSUMER_SOURCES__LABS__PATH"]
    made = await thrive.json("thrive", "queues", "register", "all", "--source", "labs")
    assert made["aws_sqs"]["queue_arn"] == "arn:aws:sqs:us-east-1:000000000000:labs"
    assert sqs_stub.described()["labs"]["ready"] == 1


async def test_an_emulated_storage_queue(thrive: CommandLine, storage_stub: StorageQueueStub) -> None:
    """The sandbox gets the emulator's connection string, which nobody gets to see again."""
    thrive.env |= {
        "CONSUMER_SOURCES__LABS__KIND": "storage_queue",
        "CONSUMER_SOURCES__LABS__CONNECTION_STRING": storage_stub.connection_string,
        "CONSUMER_SOURCES__LABS__QUEUE": "labs",
    }
    del thrive.env["CONSUMER_SOURCES__LABS__PATH"]
    thrive.secrets.append(storage_stub.connection_string)
    made = await thrive.json("thrive", "queues", "register", "all", "--source", "labs")
    assert made["azure_storage_queue"] == {"account_name": ACCOUNT, "queue_name": "labs"}
    assert storage_stub.described()["labs"]["messages"] == 1
