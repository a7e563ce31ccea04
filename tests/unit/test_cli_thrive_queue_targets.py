"""What Thrive is told of a queue, worked out from the source that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumer.cli.thrive_queue_targets import is_loopback, missing, target_of
from consumer.errors import SettingsError
from consumer.settings import SourceSettings

PRODUCTION = "https://api.thriveaihealth.com"
SANDBOX = "http://127.0.0.1:8090"
KEY = "c2VjcmV0LWtleS1jYW5hcnk="


def source(**values: Any) -> SourceSettings:
    return SourceSettings(**({"name": "events"} | values))


def hub(**values: Any) -> SourceSettings:
    checkpoints = {"connection_string": "UseDevelopmentStorage=true", "container": "checkpoints"}
    return source(kind="event_hubs", checkpoints=checkpoints, **values)


@pytest.mark.parametrize(
    ("url", "region", "expected"),
    [
        (
            "https://sqs.eu-west-1.amazonaws.com/123456789012/labs",
            None,
            {"queue_arn": "arn:aws:sqs:eu-west-1:123456789012:labs", "region": "eu-west-1"},
        ),
        (
            "https://sqs.us-gov-west-1.amazonaws.com/123456789012/labs.fifo",
            None,
            {"queue_arn": "arn:aws-us-gov:sqs:us-gov-west-1:123456789012:labs.fifo", "region": "us-gov-west-1"},
        ),
        (
            "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/labs",
            None,
            {"queue_arn": "arn:aws-cn:sqs:cn-north-1:123456789012:labs", "region": "cn-north-1"},
        ),
        (
            "https://queue.amazonaws.com/123456789012/labs",
            "us-east-1",
            {"queue_arn": "arn:aws:sqs:us-east-1:123456789012:labs", "region": "us-east-1"},
        ),
        ("http://127.0.0.1:9324/queue/labs", "us-east-1", {"region": "us-east-1"}),
        ("http://127.0.0.1:5000/123456789012/labs", None, {}),
    ],
)
def test_sqs(url: str, region: str | None, expected: dict[str, str]) -> None:
    """The ARN comes from region, account and name; what the URL does not tell is left out."""
    target = target_of(source(kind="sqs", queue_url=url, region=region), PRODUCTION)
    assert (target.kind, target.fields) == ("aws_sqs", expected)


def test_sqs_emulator_for_a_sandbox() -> None:
    """On this machine the emulator's address is told as well; to Thrive itself it never is."""
    url = "http://localhost:5000/000000000000/labs"
    emulated = source(kind="sqs", queue_url=url, region="eu-west-1")
    arn = {"queue_arn": "arn:aws:sqs:eu-west-1:000000000000:labs", "region": "eu-west-1"}
    assert target_of(emulated, SANDBOX).fields == arn | {"endpoint_url": "http://localhost:5000", "queue_url": url}
    assert target_of(emulated, PRODUCTION).fields == arn
    given = source(kind="sqs", queue_url=url, region="eu-west-1", endpoint_url="http://127.0.0.1:5001")
    assert target_of(given, SANDBOX).fields["endpoint_url"] == "http://127.0.0.1:5001"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"namespace": "acme", "event_hub": "labs"}, {"namespace": "acme", "event_hub_name": "labs"}),
        (
            {"namespace": "acme.servicebus.windows.net", "event_hub": "labs"},
            {"namespace": "acme", "event_hub_name": "labs"},
        ),
        (
            {"namespace": "acme.servicebus.usgovcloudapi.net", "event_hub": "labs"},
            {"namespace": "acme.servicebus.usgovcloudapi.net", "event_hub_name": "labs"},
        ),
        (
            {
                "connection_string": "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=read;"
                f"SharedAccessKey={KEY};EntityPath=labs"
            },
            {"namespace": "acme", "event_hub_name": "labs"},
        ),
    ],
)
@pytest.mark.parametrize("base_url", [PRODUCTION, SANDBOX])
def test_event_hubs(values: dict[str, str], expected: dict[str, str], base_url: str) -> None:
    """Namespace and hub, from either way of configuring them; a real hub's key is told to nobody."""
    target = target_of(hub(**values), base_url)
    assert (target.kind, target.fields) == ("azure_event_hubs", expected)


def test_event_hubs_emulator_for_a_sandbox() -> None:
    """The emulator's connection string, key and all, goes to a sandbox on this machine and nowhere else."""
    string = f"Endpoint=sb://localhost:5672;SharedAccessKeyName=root;SharedAccessKey={KEY};UseDevelopmentEmulator=true;"
    emulated = hub(connection_string=string, event_hub="labs")
    names = {"namespace": "localhost", "event_hub_name": "labs"}
    assert target_of(emulated, SANDBOX).fields == names | {"connection_string": string}
    assert target_of(emulated, PRODUCTION).fields == names


@pytest.mark.parametrize(
    ("values", "account"),
    [
        ({"account_url": "https://acme.queue.core.windows.net"}, "acme"),
        ({"account_url": "http://127.0.0.1:10001/devstoreaccount1"}, "devstoreaccount1"),
        ({"connection_string": f"DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={KEY}"}, "acme"),
        (
            {
                "connection_string": "QueueEndpoint=https://acme.queue.core.windows.net/;SharedAccessSignature=sv=1&sig=x"
            },
            "acme",
        ),
    ],
)
@pytest.mark.parametrize("base_url", [PRODUCTION, SANDBOX])
def test_storage_queue(values: dict[str, str], account: str, base_url: str) -> None:
    """Account and queue, from a connection string or a URL; a real account's key or SAS is told to nobody."""
    target = target_of(source(kind="storage_queue", queue="labs", **values), base_url)
    assert (target.kind, target.fields) == (
        "azure_storage_queue",
        {"account_name": account, "queue_name": "labs"},
    )


def test_storage_queue_emulator_for_a_sandbox() -> None:
    """Azurite's connection string goes to a sandbox on this machine and nowhere else."""
    emulated = source(kind="storage_queue", queue="labs", connection_string="UseDevelopmentStorage=true")
    names = {"account_name": "devstoreaccount1", "queue_name": "labs"}
    assert target_of(emulated, PRODUCTION).fields == names
    fields = target_of(emulated, SANDBOX).fields
    assert fields.items() > names.items()
    assert fields["connection_string"].startswith("DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;")


def test_local_queues_are_for_sandboxes(tmp_path: Path) -> None:
    """A sandbox gets the file's absolute path; Thrive is not asked to reach a file."""
    local = source(kind="local", path=tmp_path / "queue.db")
    target = target_of(local, SANDBOX)
    assert (target.kind, target.fields) == ("local", {"path": str(tmp_path / "queue.db")})
    relative = target_of(source(kind="local", path=Path("queue.db")), SANDBOX)
    assert relative.fields["path"] == str(Path.cwd() / "queue.db")
    with pytest.raises(SettingsError, match=r"^sources\.events\.kind: "):
        target_of(local, PRODUCTION)


def test_what_cannot_be_worked_out_is_said() -> None:
    """A class of one's own, and a queue of another provider, are refused in one line."""
    with pytest.raises(SettingsError, match="with --type"):
        target_of(source(kind="acme.sources:Kafka"), PRODUCTION)
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/labs"
    with pytest.raises(SettingsError, match="Sahha"):
        target_of(source(kind="sqs", queue_url=url, provider="sahha"), PRODUCTION)


def test_missing_fields_are_named() -> None:
    """What a kind has to have is named as `--set` takes it; extra fields do not matter."""
    assert missing("aws_sqs", {"region": "eu-west-1"}) == ["aws_sqs.queue_arn"]
    assert missing("azure_event_hubs", {"namespace": ""}) == [
        "azure_event_hubs.namespace",
        "azure_event_hubs.event_hub_name",
    ]
    assert missing("local", {"path": "/q", "more": 1}) == []


def test_secrets_do_not_show() -> None:
    """Printing a target shows the names of its fields alone."""
    emulated = source(kind="storage_queue", queue="labs", connection_string="UseDevelopmentStorage=true")
    assert (
        repr(target_of(emulated, SANDBOX)) == "Target(azure_storage_queue: account_name, queue_name, connection_string)"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (SANDBOX, True),
        ("http://localhost:1", True),
        ("http://[::1]:1/x", True),
        (PRODUCTION, False),
        ("https://127.0.0.1.evil.example", False),
        ("https://localhost.example", False),
    ],
)
def test_this_machine(url: str, expected: bool) -> None:
    """Only names and addresses of the machine itself count."""
    assert is_loopback(url) is expected
