"""What Thrive's REST API answers to the partner itself: queues, rotated secrets. See `consumer.models.thrive_api`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from consumer.models.base import PlatformModel, Timestamp

__all__ = ["AwsSqsTarget", "EventHubsTarget", "Queue", "RotatedSigningSecret", "RotatedTenantKey", "StorageQueueTarget"]


class AwsSqsTarget(PlatformModel):
    """A queue on SQS (documented)."""

    queue_arn: str | None = None
    region: str | None = None
    role_arn: str | None = None
    publishing_principal_arn: str | None = None


class EventHubsTarget(PlatformModel):
    """An event hub (documented); its SAS token is never answered."""

    namespace: str | None = None
    event_hub_name: str | None = None


class StorageQueueTarget(PlatformModel):
    """A queue of Azure Storage (documented); its SAS token is never answered."""

    account_name: str | None = None
    queue_name: str | None = None


class Queue(PlatformModel):
    """Where a stream of events is published (`GET /v1/admin/org/queues/{queue_name}`, documented)."""

    queue_name: str | None = None
    """The name of the stream, not of the queue."""
    type: Annotated[str, Field(examples=["aws_sqs", "azure_event_hubs", "azure_storage_queue"])] | None = None
    aws_sqs: AwsSqsTarget | None = None
    azure_event_hubs: EventHubsTarget | None = None
    azure_storage_queue: StorageQueueTarget | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None


class RotatedTenantKey(PlatformModel):
    """A new tenant key (`POST /v1/auth/tenant-key/rotate`, documented, not available yet)."""

    new_tenant_api_key: str | None = None
    previous_key_expires_at: Timestamp | None = None


class RotatedSigningSecret(PlatformModel):
    """A signing secret was replaced (`POST /v1/auth/signing-secret/rotate`, documented, not available yet).

    The name of the field that holds a generated secret is not published: look in `model_extra`.
    """

    signing_secret_rotated_at: Timestamp | None = None
    previous_secret_expires_at: Timestamp | None = None
