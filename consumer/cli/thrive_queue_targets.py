"""What Thrive has to be told of a queue, worked out from the source that reads it. Pure.

The fields are those of `POST /v1/admin/org/queues/{queue_name}`; which of them Thrive reads, and under which name it
takes a SAS token, is not published. So everything here can be changed and added to by hand.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from consumer.errors import SettingsError
from consumer.settings import SourceSettings
from consumer.settings_azure import event_hub_of, namespace_host
from consumer.sources.sqs import endpoint_of, region_of

__all__ = ["KINDS", "Target", "is_loopback", "missing", "target_of"]

KINDS: Final = ("aws_sqs", "azure_event_hubs", "azure_storage_queue", "local")
"""What a stream can be sent to; `local` is known to the sandbox only."""

_PUBLIC_CLOUD: Final = ".servicebus.windows.net"
_DEVELOPMENT_ACCOUNT: Final = "devstoreaccount1"
"""The account of every Azurite."""
_ACCOUNT_AND_NAME: Final = re.compile(r"/(?:[^/]+/)*?(\d{12})/([A-Za-z0-9_-]+(?:\.fifo)?)")
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "aws_sqs": ("queue_arn",),
    "azure_event_hubs": ("namespace", "event_hub_name"),
    "azure_storage_queue": ("account_name", "queue_name"),
    "local": ("path",),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of `KINDS`, and the fields of its block; their values may be secrets."""

    kind: str
    fields: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Target({self.kind}: {', '.join(self.fields)})"


def target_of(source: SourceSettings, base_url: str) -> Target:
    """What `source` reads, as Thrive names it; what cannot be worked out is left out.

    For a `base_url` on this machine, which is a sandbox's, it says as well how to reach emulators: an SQS endpoint,
    and a connection string if it is an emulator's. Those of real Azure queues are never sent.

    Raises SettingsError for a source Thrive cannot send to.
    """
    if source.provider != "thrive":
        raise SettingsError(
            f"sources.{source.name}.provider: its queue carries {source.provider.capitalize()}'s events"
        )
    loopback = is_loopback(base_url)
    if source.kind == "sqs":
        return Target("aws_sqs", _sqs(source, loopback=loopback))
    if source.kind == "event_hubs":
        return Target("azure_event_hubs", _event_hubs(source, loopback=loopback))
    if source.kind == "storage_queue":
        return Target("azure_storage_queue", _storage_queue(source, loopback=loopback))
    if source.kind != "local":
        raise SettingsError(f"sources.{source.name}.kind: what your own class reads is for you to say, with --type")
    if not loopback:
        raise SettingsError(f"sources.{source.name}.kind: Thrive cannot reach a local queue, only a sandbox can")
    return Target("local", {} if source.path is None else {"path": str(source.path.absolute())})


def missing(kind: str, fields: Mapping[str, Any]) -> list[str]:
    """The fields a kind has to have and `fields` lacks, as `aws_sqs.queue_arn`."""
    return [f"{kind}.{name}" for name in _NEEDED.get(kind, ()) if not fields.get(name)]


def is_loopback(url: str) -> bool:
    """Whether a URL is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sqs(source: SourceSettings, *, loopback: bool) -> dict[str, Any]:
    url = source.queue_url or ""
    region = source.region or region_of(url)
    place = _ACCOUNT_AND_NAME.fullmatch(urlsplit(url).path)
    endpoint = source.endpoint_url or endpoint_of(url)
    fields: dict[str, Any] = {}
    if region is not None and place is not None:
        account, name = place.groups()
        fields["queue_arn"] = f"arn:{_partition(region)}:sqs:{region}:{account}:{name}"
    if region is not None:
        fields["region"] = region
    if loopback and endpoint is not None:
        fields |= {"endpoint_url": endpoint, "queue_url": url}
    return fields


def _partition(region: str) -> str:
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _event_hubs(source: SourceSettings, *, loopback: bool) -> dict[str, Any]:
    parts = _parts(source.connection_string)
    host = urlsplit(parts.get("endpoint", "")).hostname or namespace_host(source.namespace or "")
    emulated = parts.get("usedevelopmentemulator") == "true" or is_loopback(f"sb://{host}")
    fields = {"namespace": host.removesuffix(_PUBLIC_CLOUD), "event_hub_name": event_hub_of(source)}
    return _reached(fields, source, emulated=loopback and emulated)


def _storage_queue(source: SourceSettings, *, loopback: bool) -> dict[str, Any]:
    parts = _parts(source.connection_string)
    endpoint = source.account_url or parts.get("queueendpoint", "")
    account = parts.get("accountname") or _account(endpoint)
    emulated = account == _DEVELOPMENT_ACCOUNT or is_loopback(endpoint)
    fields = {"account_name": account, "queue_name": source.queue}
    return _reached(fields, source, emulated=loopback and emulated)


def _reached(fields: dict[str, Any], source: SourceSettings, *, emulated: bool) -> dict[str, Any]:
    if not emulated or source.connection_string is None:
        return fields
    return fields | {"connection_string": source.connection_string.get_secret_value()}


def _account(endpoint: str) -> str:
    """The account in an endpoint: the host's first part, or, as emulators have it, the path's."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if ".queue." in host:
        return host.partition(".")[0]
    return parts.path.strip("/").partition("/")[0]


def _parts(string: SecretStr | None) -> dict[str, str]:
    """The parts of a connection string, which the settings have checked, by their names in small letters."""
    if string is None:
        return {}
    pairs = (part.partition("=") for part in string.get_secret_value().strip().split(";"))
    return {name.strip().lower(): value for name, _, value in pairs}
