"""What the sources on Azure need, what cannot work, and what is made of it."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest
from azure.eventhub import parse_connection_string
from azure.storage.queue import QueueServiceClient

from consumer.errors import SettingsError
from consumer.settings import SourceSettings
from consumer.settings_azure import event_hub_of, namespace_host
from consumer.settings_loading import Loaded, load_settings

DAY = 86_400
CANARY = "canary-7f3a"
KEY = "Y2FuYXJ5LTdmM2E="
STORAGE = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net"
HUBS = f"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey={CANARY}"

QUEUE = {"KIND": "storage_queue", "QUEUE": "labs", "CONNECTION_STRING": STORAGE}
HUB = {
    "KIND": "event_hubs",
    "EVENT_HUB": "labs",
    "CONNECTION_STRING": HUBS,
    "CHECKPOINTS__CONTAINER": "checkpoints",
    "CHECKPOINTS__CONNECTION_STRING": STORAGE,
}


def load(base: dict[str, str], changes: dict[str, str | None], **other: str) -> Loaded:
    """Settings with one source, of which these are changed; None takes one away."""
    source = {name: value for name, value in (base | changes).items() if value is not None}
    env = {f"CONSUMER_SOURCES__LABS__{name}": value for name, value in source.items()}
    return load_settings(env=env | {f"CONSUMER_{name}": value for name, value in other.items()}, cwd=Path("/nowhere"))


def refused(base: dict[str, str], changes: dict[str, str | None], **other: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(base, changes, **other)
    told = "".join(traceback.format_exception(caught.value))
    assert CANARY not in told
    assert KEY not in told
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (QUEUE, {}),
        (QUEUE, {"CONNECTION_STRING": f"{STORAGE};QueueEndpoint=http://127.0.0.1:10001/acc;"}),
        (
            QUEUE,
            {"CONNECTION_STRING": "QueueEndpoint=https://acc.queue.core.windows.net;SharedAccessSignature=sv=x&sig=y"},
        ),
        (QUEUE, {"CONNECTION_STRING": "AccountName=acc;SharedAccessSignature=sv=x&sig=y"}),
        (QUEUE, {"CONNECTION_STRING": "UseDevelopmentStorage=true"}),
        (QUEUE, {"CONNECTION_STRING": None, "ACCOUNT_URL": "https://acc.queue.core.windows.net"}),
        (QUEUE, {"CONNECTION_STRING": None, "ACCOUNT_URL": "http://127.0.0.1:10001/devstoreaccount1"}),
        (QUEUE, {"CONNECTION_STRING": None, "ACCOUNT_URL": "http://localhost:10001/devstoreaccount1"}),
        (QUEUE, {"VISIBILITY_TIMEOUT": "7d"}),
        (QUEUE, {"NAMESPACE": "tenant of ours"}),
        (HUB, {}),
        (HUB, {"EVENT_HUB": None, "CONNECTION_STRING": f"{HUBS};EntityPath=labs"}),
        (HUB, {"CONNECTION_STRING": f"{HUBS};EntityPath=LABS"}),
        (HUB, {"CONNECTION_STRING": f"{HUBS};UseDevelopmentEmulator=true;"}),
        (HUB, {"CONNECTION_STRING": "Endpoint=sb://ns.servicebus.windows.net;SharedAccessSignature=sr=x"}),
        (HUB, {"CONNECTION_STRING": None, "NAMESPACE": "ns"}),
        (HUB, {"CONNECTION_STRING": None, "NAMESPACE": "ns.servicebus.usgovcloudapi.net"}),
        (HUB, {"NAMESPACE": "ns"}),
        (HUB, {"NAMESPACE": "NS.servicebus.windows.net"}),
        (
            HUB,
            {"CHECKPOINTS__CONNECTION_STRING": None, "CHECKPOINTS__ACCOUNT_URL": "https://acc.blob.core.windows.net"},
        ),
        (HUB, {"CHECKPOINTS__CONNECTION_STRING": "UseDevelopmentStorage=true"}),
        (HUB, {"ORDER_BY": "member", "PREFETCH": "5000", "RETENTION": "1d"}),
        (HUB, {"VISIBILITY_TIMEOUT": "1s"}),
    ],
)
def test_what_can_work_is_accepted(base: dict[str, str], changes: dict[str, str | None]) -> None:
    """Every way into an account or a namespace that the SDKs know."""
    load(base, changes).settings.validate_timers()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"QUEUE": None}, "QUEUE: missing, expected a name of 3 to 63 lower-case letters"),
        ({"QUEUE": "Labs"}, "QUEUE: expected a name of 3 to 63 lower-case letters"),
        ({"CONNECTION_STRING": None}, "CONNECTION_STRING: missing, expected it or account_url"),
        ({"ACCOUNT_URL": "https://acc"}, "ACCOUNT_URL: expected either this or connection_string, not both"),
        ({"CONNECTION_STRING": CANARY}, "CONNECTION_STRING: expected a connection string, NAME=VALUE;"),
        ({"CONNECTION_STRING": f"AccountKey={KEY}"}, "CONNECTION_STRING: expected a connection string"),
        ({"CONNECTION_STRING": f"{STORAGE};AccountName=b"}, "CONNECTION_STRING: expected a connection string"),
        ({"CONNECTION_STRING": "AccountName=acc"}, "CONNECTION_STRING: expected a connection string"),
        ({"CONNECTION_STRING": f"SharedAccessSignature=sig={CANARY}"}, "CONNECTION_STRING: expected a connection"),
        ({"CONNECTION_STRING": "UseDevelopmentStorage=false"}, "CONNECTION_STRING: expected a connection string"),
        ({"CONNECTION_STRING": f"AccountName=a;AccountKey={CANARY}"}, "CONNECTION_STRING: expected an AccountKey in"),
        ({"CONNECTION_STRING": HUBS}, "CONNECTION_STRING: expected a connection string"),
        ({"ORDER_BY": "partition"}, "ORDER_BY: expected key, since only event_hubs has another order"),
        ({"VISIBILITY_TIMEOUT": "8d"}, "VISIBILITY_TIMEOUT: expected 7d or less"),
        ({"VISIBILITY_TIMEOUT": "1s"}, "VISIBILITY_TIMEOUT: expected 2s or more"),
    ],
)
def test_a_storage_queue_that_cannot_work_is_refused(changes: dict[str, str | None], line: str) -> None:
    """One line names the setting and what is expected of it; no part of a connection string is in it."""
    assert refused(QUEUE, changes).startswith(f"CONSUMER_SOURCES__LABS__{line}")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"EVENT_HUB": None}, "EVENT_HUB: missing, expected the hub's name, or EntityPath"),
        ({"CONNECTION_STRING": None}, "CONNECTION_STRING: missing, expected it or namespace"),
        ({"CONNECTION_STRING": None, "NAMESPACE": "https://ns"}, "NAMESPACE: expected a host name: NAME or NAME.serv"),
        ({"NAMESPACE": "other"}, "NAMESPACE: expected the one in the connection string"),
        ({"CONNECTION_STRING": STORAGE}, "CONNECTION_STRING: expected a connection string, NAME=VALUE;"),
        ({"CONNECTION_STRING": HUBS.replace("sb://", "https://")}, "CONNECTION_STRING: expected a connection string"),
        ({"CONNECTION_STRING": HUBS.replace("Name=listen", "Name=")}, "CONNECTION_STRING: expected a connection str"),
        ({"CONNECTION_STRING": HUBS.rpartition(";")[0]}, "CONNECTION_STRING: expected a connection string"),
        ({"CONNECTION_STRING": f"{HUBS};EntityPath=vitals"}, "EVENT_HUB: expected what EntityPath"),
        ({"CONNECTION_STRING": f"{HUBS};UseDevelopmentEmulator=True"}, "CONNECTION_STRING: expected UseDevelopmentEm"),
        ({"CHECKPOINTS__CONTAINER": None}, "CHECKPOINTS__CONTAINER: missing, expected a name"),
        ({"CHECKPOINTS__CONNECTION_STRING": None}, "CHECKPOINTS__CONNECTION_STRING: missing, expected it or checkp"),
        ({"CHECKPOINTS__ACCOUNT_URL": "https://acc"}, "CHECKPOINTS__ACCOUNT_URL: expected either this or checkp"),
        ({"CHECKPOINTS__CONNECTION_STRING": HUBS}, "CHECKPOINTS__CONNECTION_STRING: expected a connection string"),
        (
            {"CHECKPOINTS__CONNECTION_STRING": "QueueEndpoint=https://a;SharedAccessSignature=sig=x"},
            "CHECKPOINTS__CONNECTION_STRING: expected a connection string",
        ),
        ({"PREFETCH": "0"}, "PREFETCH: expected a whole number from 1 to 5000"),
        ({"PREFETCH": "5001"}, "PREFETCH: expected a whole number from 1 to 5000"),
        ({"START_AT": "newest"}, "START_AT: expected earliest, latest or a time with its zone"),
        ({"START_AT": "2026-03-16T08:00:00"}, "START_AT: expected earliest, latest or a time with its zone"),
        ({"ORDER_BY": "hub"}, "ORDER_BY: expected key or partition or member"),
        ({"RETENTION": "30m"}, "RETENTION: expected 1h to 90d"),
        ({"CHECKPOINTS__INTERVAL": "0"}, "CHECKPOINTS__INTERVAL: expected a duration such as"),
    ],
)
def test_an_event_hub_that_cannot_work_is_refused(changes: dict[str, str | None], line: str) -> None:
    """One line names the setting and what is expected of it; no part of a connection string is in it."""
    assert refused(HUB, changes).startswith(f"CONSUMER_SOURCES__LABS__{line}")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("acc.queue.core.windows.net", "expected the account's URL, https://..."),
        ("https://[", "expected the account's URL, https://..."),
        ("https://acc:port", "expected the account's URL, https://..."),
        ("http://acc.queue.core.windows.net", "expected https://, since this host is not the machine itself"),
        (f"https://acc.queue.core.windows.net?sv=1&sig={CANARY}", "expected a URL without a SAS token or password"),
        (f"https://user:{CANARY}@acc.queue.core.windows.net", "expected a URL without a SAS token or password"),
    ],
)
def test_an_account_url_is_no_secret_and_not_in_the_clear(url: str, text: str) -> None:
    """A URL that holds a credential, or would send one unencrypted, is refused without being repeated."""
    queue = refused(QUEUE, {"CONNECTION_STRING": None, "ACCOUNT_URL": url})
    assert queue.startswith(f"CONSUMER_SOURCES__LABS__ACCOUNT_URL: {text}")
    hub = refused(HUB, {"CHECKPOINTS__CONNECTION_STRING": None, "CHECKPOINTS__ACCOUNT_URL": url})
    assert hub.startswith(f"CONSUMER_SOURCES__LABS__CHECKPOINTS__ACCOUNT_URL: {text}")


def test_what_is_missing_is_named_as_the_file_has_it(tmp_path: Path) -> None:
    """A key below the source's own table is spelled with it."""
    (tmp_path / "consumer.toml").write_text(
        f"[sources.labs]\nkind = 'event_hubs'\nevent_hub = 'labs'\nconnection_string = '{HUBS}'\n"
    )
    with pytest.raises(SettingsError, match=r"^sources\.labs\.checkpoints\.container in consumer\.toml: missing"):
        load_settings(env={}, cwd=tmp_path)


def test_start_at_is_a_word_or_a_moment(tmp_path: Path) -> None:
    """Text from the environment and TOML's own times are the same moment; settings show it as it could be given."""
    moment = datetime(2026, 3, 16, 8, tzinfo=UTC)
    for text in ("2026-03-16T08:00:00Z", "2026-03-16T10:00:00+02:00"):
        assert load(HUB, {"START_AT": text}).settings.source("labs").start_at == moment
    assert load(HUB, {"START_AT": "Latest"}).settings.source("labs").start_at == "latest"
    assert load(HUB, {}).settings.source("labs").start_at == "earliest"
    (tmp_path / "consumer.toml").write_text("[sources.labs]\nkind = 'a:B'\nstart_at = 2026-03-16T08:00:00Z\n")
    assert load_settings(env={}, cwd=tmp_path).settings.source("labs").start_at == moment


def test_defaults_of_a_hub() -> None:
    """What the README's table promises."""
    source = load(HUB, {}).settings.source("labs")
    assert (source.order_by, source.prefetch, source.retention) == ("key", 300, None)
    assert (source.checkpoints.interval, source.checkpoints.ownership_interval) == (5.0, 10.0)


def test_the_inbox_outlasts_the_hub() -> None:
    """What a hub keeps, if that is told, counts for how long the inbox has to remember; else seven days do."""
    load(HUB, {}, INBOX__RETENTION="70d")
    load(HUB, {"RETENTION": "1d"}, INBOX__RETENTION="64d")
    line = refused(HUB, {"RETENTION": "90d"})
    assert line.startswith("CONSUMER_INBOX__RETENTION: expected at least sources.labs.signature.max_age + 90d")
    assert "+ 24h (the queue's own retention)" in refused(HUB, {"RETENTION": "1d"}, INBOX__RETENTION="63d")
    assert "+ 7d (the queue's own retention)" in refused(QUEUE, {}, INBOX__RETENTION="69d")


def test_development_storage_is_spelt_out() -> None:
    """`UseDevelopmentStorage=true` becomes the account every Azurite has, for the queue and for the checkpoints."""
    source = load(QUEUE, {"CONNECTION_STRING": "usedevelopmentstorage=true;"}).settings.source("labs")
    assert source.connection_string is not None
    client = QueueServiceClient.from_connection_string(source.connection_string.get_secret_value())
    assert client.url.rstrip("/") == "http://127.0.0.1:10001/devstoreaccount1"
    client.close()
    hub = load(HUB, {"CHECKPOINTS__CONNECTION_STRING": "UseDevelopmentStorage=true"}).settings.source("labs")
    assert hub.checkpoints.connection_string == source.connection_string


def test_a_hub_has_one_name_and_a_namespace_one_host() -> None:
    """Whichever setting names them."""
    named = SourceSettings.model_validate({"name": "labs", **_lower(HUB)})
    path = SourceSettings.model_validate(
        {"name": "labs", **_lower(HUB), "event_hub": None, "connection_string": f"{HUBS};EntityPath=vitals"}
    )
    assert (event_hub_of(named), event_hub_of(path)) == ("labs", "vitals")
    assert path.connection_string is not None
    assert parse_connection_string(path.connection_string.get_secret_value()).eventhub_name == "vitals"
    assert namespace_host("ns") == namespace_host("ns.servicebus.windows.net") == "ns.servicebus.windows.net"


def _lower(settings: dict[str, str]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name, value in settings.items():
        section, _, rest = name.lower().partition("__")
        if rest:
            inner = tree.setdefault(section, {})
            assert isinstance(inner, dict)
            inner[rest] = value
        else:
            tree[section] = value
    return tree
