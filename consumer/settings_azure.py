"""What the settings of the Azure kinds have to be: one way in, and URLs and connection strings that can work.

Pure, and no text repeats a value: connection strings are secrets. What a connection string needs is what the parsers
of azure-storage-queue, azure-eventhub and azure-eventhub-checkpointstoreblob-aio take.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from consumer.settings_dead_letters import DeadLetterSettings
    from consumer.settings_sources import CheckpointSettings, SourceSettings

__all__ = ["QUEUE_NAME", "azure_problems", "blob_problems", "event_hub_of", "expand_development", "namespace_host"]

_Problem = tuple[str, str]
_Service = Literal["queue", "blob"]

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE | re.ASCII)
_NAME: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
QUEUE_NAME: Final = _NAME
"""What a Storage Queue may be called; containers have the same rule."""
_NAMED: Final = "3 to 63 lower-case letters, digits and single dashes"
_PUBLIC_CLOUD: Final = ".servicebus.windows.net"
_STORAGE: Final = "AccountName and AccountKey, SharedAccessSignature and {endpoint}, or UseDevelopmentStorage=true"
_EVENT_HUBS: Final = "Endpoint=sb://..., and SharedAccessKeyName and SharedAccessKey, or SharedAccessSignature"
_MALFORMED: Final = "expected a connection string, NAME=VALUE;NAME=VALUE, with {needed}"

# The account and key of every Azurite, published by Microsoft.
_DEVELOPMENT: Final = SecretStr(
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"
)


def expand_development(string: SecretStr | None) -> SecretStr | None:
    """A connection string with `UseDevelopmentStorage=true` spelt out, which not every SDK and release knows."""
    if string is not None and (_parts(string) or {}) == {"usedevelopmentstorage": "true"}:
        return _DEVELOPMENT
    return string


def namespace_host(namespace: str) -> str:
    """The host of an Event Hubs namespace, which may be given without `.servicebus.windows.net`."""
    return namespace if "." in namespace else f"{namespace}{_PUBLIC_CLOUD}"


def event_hub_of(source: SourceSettings) -> str:
    """The hub's name: `event_hub`, or the connection string's EntityPath; empty if neither names one."""
    return source.event_hub or (_parts(source.connection_string) or {}).get("entitypath", "")


def azure_problems(source: SourceSettings) -> Iterator[_Problem]:
    """Yield (key below the source, what is expected) for what an Azure kind lacks or cannot use."""
    if source.kind == "storage_queue":
        yield from _storage_queue(source)
    elif source.kind == "event_hubs":
        yield from _event_hubs(source)
    if source.kind != "event_hubs" and source.order_by != "key":
        yield "order_by", "expected key, since only event_hubs has another order"


def blob_problems(letters: DeadLetterSettings) -> Iterator[_Problem]:
    """Yield (key below dead_letters, what is expected) for what a store of blobs lacks or cannot use."""
    yield from _named("container", letters.container)
    yield from _account(letters, "", "blob")


def _storage_queue(source: SourceSettings) -> Iterator[_Problem]:
    yield from _named("queue", source.queue)
    yield from _account(source, "", "queue")


def _event_hubs(source: SourceSettings) -> Iterator[_Problem]:
    string, namespace = source.connection_string, source.namespace
    if string is not None:
        yield from _hub_string(source, string)
    elif namespace is None:
        yield "connection_string", "missing, expected it or namespace (for DefaultAzureCredential)"
    elif not _HOST.fullmatch(namespace):
        yield "namespace", f"expected a host name: NAME or NAME{_PUBLIC_CLOUD}"
    if not event_hub_of(source):
        yield "event_hub", "missing, expected the hub's name, or EntityPath in the connection string"
    yield from _named("checkpoints.container", source.checkpoints.container)
    yield from _account(source.checkpoints, "checkpoints.", "blob")


def _named(key: str, name: str | None) -> Iterator[_Problem]:
    if name is None or not _NAME.fullmatch(name):
        yield key, f"{'missing, ' if name is None else ''}expected a name of {_NAMED}"


def _account(
    settings: SourceSettings | CheckpointSettings | DeadLetterSettings, prefix: str, service: _Service
) -> Iterator[_Problem]:
    """Exactly one way into a storage account, and one that can work."""
    string, url = settings.connection_string, settings.account_url
    if string is not None and url is not None:
        yield f"{prefix}account_url", f"expected either this or {prefix}connection_string, not both"
    elif string is not None:
        text = _wrong_storage_string(_parts(string), service)
        if text is not None:
            yield f"{prefix}connection_string", text
    elif url is not None:
        text = _wrong_account_url(url)
        if text is not None:
            yield f"{prefix}account_url", text
    else:
        yield f"{prefix}connection_string", f"missing, expected it or {prefix}account_url (for DefaultAzureCredential)"


def _wrong_storage_string(parts: Mapping[str, str] | None, service: _Service) -> str | None:
    endpoint = f"{service.capitalize()}Endpoint"
    malformed = _MALFORMED.format(needed=_STORAGE.format(endpoint=endpoint))
    if parts is None or "usedevelopmentstorage" in parts:
        # The one good way to give the latter has been spelt out by now.
        return malformed
    if "accountkey" in parts:
        if "accountname" not in parts:
            return malformed
        return None if _is_base64(parts["accountkey"]) else "expected an AccountKey in base64, as the portal shows it"
    reached = endpoint.lower() in parts or "accountname" in parts
    return None if "sharedaccesssignature" in parts and reached else malformed


def _hub_string(source: SourceSettings, string: SecretStr) -> Iterator[_Problem]:
    parts = _parts(string) or {}
    endpoint = _split(parts.get("endpoint", ""))
    keys = "sharedaccesskeyname" in parts, "sharedaccesskey" in parts
    signed = all(keys) or (not any(keys) and "sharedaccesssignature" in parts)
    if endpoint is None or endpoint.scheme != "sb" or not endpoint.hostname or not signed:
        yield "connection_string", _MALFORMED.format(needed=_EVENT_HUBS)
        return
    if parts.get("usedevelopmentemulator", "false") not in {"true", "false"}:
        # The SDK compares with `true` and says nothing of the rest: TLS stays on, and an emulator never answers.
        yield "connection_string", "expected UseDevelopmentEmulator=true, in small letters: the SDK ignores others"
    entity = parts.get("entitypath")
    if source.event_hub and entity and entity.lower() != source.event_hub.lower():
        yield "event_hub", "expected what EntityPath in the connection string says, or one of the two"
    if source.namespace and namespace_host(source.namespace).lower() not in _spellings(endpoint.hostname):
        yield "namespace", "expected the one in the connection string, or only one of the two"


def _spellings(host: str) -> set[str]:
    return {host, namespace_host(host)}


def _wrong_account_url(url: str) -> str | None:
    parts = _split(url)
    if parts is None or parts.scheme not in {"https", "http"} or not parts.hostname:
        return "expected the account's URL, https://..."
    if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        return "expected a URL without a SAS token or password: that is a secret, and belongs in connection_string"
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        return "expected https://, since this host is not the machine itself"
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _parts(string: SecretStr | None) -> dict[str, str] | None:
    """The parts of a connection string by their names in small letters; None if it is not one."""
    if string is None:
        return None
    pairs = [part.partition("=") for part in string.get_secret_value().strip().rstrip(";").split(";")]
    parts = {name.strip().lower(): value for name, _, value in pairs}
    return parts if len(parts) == len(pairs) and all(name and value for name, value in parts.items()) else None
