"""What the SDK's exceptions say in one line: a condition or a code, and never the service's own text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.eventhub._pyamqp.error import AMQPLinkError, AuthenticationException, ErrorCondition
from azure.eventhub.exceptions import AuthenticationError, ConnectError, ConnectionLostError, EventHubError
from azure.storage.blob import StorageErrorCode

from consumer.errors import SourceError, SourceRefused, SourceUnavailable
from consumer.sources.event_hubs_errors import PartitionTaken, condition_of, hub_trouble, store_trouble

CANARY = "canary words of the service"


def link_error(condition: Any) -> AMQPLinkError:
    return AMQPLinkError(condition, description=CANARY.encode(), message=CANARY)


def hub_error(condition: Any, kind: type[EventHubError] = EventHubError) -> EventHubError:
    return kind(CANARY, link_error(condition))  # type: ignore[arg-type]  # as the SDK itself calls it


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (hub_error(ErrorCondition.LinkStolen), "link:stolen"),
        (hub_error(b"com.microsoft:auth-failed"), "auth-failed"),
        (hub_error(b"no-colon"), "EventHubError"),
        (link_error(ErrorCondition.NotFound), "not-found"),
        (link_error(b"com.microsoft:timeout"), "timeout"),
        (EventHubError(CANARY), "EventHubError"),
        (ConnectionLostError(CANARY), "ConnectionLostError"),
        (link_error(f"amqp:{CANARY}".encode()), "AMQPLinkError"),
        (link_error(b"\xff\xfe"), "AMQPLinkError"),
        (link_error(b"amqp:" + b"x" * 100), "AMQPLinkError"),
        (ServiceRequestError(CANARY), "ServiceRequestError"),
        (TimeoutError(CANARY), "TimeoutError"),
        (ValueError(CANARY), "ValueError"),
    ],
)
def test_conditions(error: Exception, condition: str) -> None:
    """A condition is told without its namespace; what is no condition gives way to the class's name."""
    assert condition_of(error) == condition


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (hub_error(ErrorCondition.NotFound), SourceRefused, "there is no such event hub (not-found)"),
        (hub_error(b"com.microsoft:entity-not-found"), SourceRefused, "there is no such event hub"),
        (hub_error(b"com.microsoft:entity-disabled"), SourceRefused, "does not allow it (entity-disabled)"),
        (hub_error(ErrorCondition.NotAllowed), SourceRefused, "does not allow it (not-allowed)"),
        (hub_error(ErrorCondition.UnauthorizedAccess), SourceRefused, "access denied"),
        (hub_error(b"com.microsoft:auth-failed"), SourceRefused, "access denied"),
        (AuthenticationError(CANARY), SourceRefused, "access denied"),
        (AuthenticationException(b"amqp:x", description=CANARY), SourceRefused, "access denied"),
        (ClientAuthenticationError(CANARY), SourceRefused, "no Azure credential works here"),
        (hub_error(ErrorCondition.LinkStolen), PartitionTaken, "another consumer took the partition (link:stolen)"),
        (hub_error(b"com.microsoft:server-busy"), SourceUnavailable, "receiving: server-busy"),
        (ConnectError(CANARY), SourceUnavailable, "receiving: ConnectError"),
        (TimeoutError(), SourceUnavailable, "receiving: TimeoutError"),
        (ValueError(CANARY), SourceUnavailable, "receiving: ValueError"),
    ],
)
def test_trouble_with_the_hub(error: Exception, kind: type[SourceError], words: str) -> None:
    """What a person has to see to is refused, the rest is tried again; one line, without the service's text."""
    trouble = hub_trouble("labs", "receiving", error)
    assert type(trouble) is kind
    assert words in str(trouble)
    assert str(trouble).startswith("source labs: receiving: ")
    assert "canary" not in str(trouble)
    assert "\n" not in str(trouble)


def test_a_consumer_group_is_named() -> None:
    """What is missing may be the consumer group that was asked for."""
    error = hub_trouble("labs", "receiving", hub_error(ErrorCondition.NotFound), group="partners")
    assert "no such event hub or consumer group partners" in str(error)


def test_what_is_understood_stays() -> None:
    """An error of our own is passed on as it is."""
    error = SourceUnavailable("source labs is not open")
    assert hub_trouble("labs", "receiving", error) is error


def reply(status: int, code: Any = None, kind: type[HttpResponseError] = HttpResponseError) -> HttpResponseError:
    """An error of the storage SDK, after a reply of the service."""
    error = kind(CANARY)
    error.status_code = status
    error.error_code = code  # type: ignore[attr-defined]  # as the storage SDK adds it
    error.response = SimpleNamespace(status_code=status, reason=CANARY)  # type: ignore[assignment]  # all that is read
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            reply(404, StorageErrorCode.CONTAINER_NOT_FOUND, ResourceNotFoundError),
            SourceRefused,
            "there is no container places (ContainerNotFound): make it",
        ),
        (reply(403, "AuthorizationFailure"), SourceRefused, "access to container places denied (AuthorizationFailure)"),
        (
            reply(401, None, ClientAuthenticationError),
            SourceRefused,
            "access to container places denied (ClientAuthenticationError)",
        ),
        (ClientAuthenticationError(CANARY), SourceRefused, "no Azure credential works here"),
        (reply(503, "ServerBusy"), SourceUnavailable, "checkpoints: ServerBusy"),
        (reply(500, CANARY), SourceUnavailable, "checkpoints: HttpResponseError"),
        (reply(412, "ConditionNotMet", ResourceModifiedError), SourceUnavailable, "checkpoints: ConditionNotMet"),
        (ServiceRequestError(CANARY), SourceUnavailable, "checkpoints: ServiceRequestError"),
        (KeyError(CANARY), SourceUnavailable, "checkpoints: KeyError"),
    ],
)
def test_trouble_with_the_checkpoints(error: Exception, kind: type[SourceError], words: str) -> None:
    """A container that is missing or closed to us is refused, by its name; anything else is tried again."""
    trouble = store_trouble("labs", "places", error)
    assert type(trouble) is kind
    assert str(trouble).startswith("source labs: checkpoints: ")
    assert words in str(trouble)
    assert "canary" not in str(trouble)
    assert "\n" not in str(trouble)
