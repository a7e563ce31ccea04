"""What the Helm chart refuses before anything reaches a cluster, in one line that names the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.test_helm_chart import HUB_STRINGS, changed
from tests.servers.helm import HelmRefused

Values = Mapping[str, Any]

STRING = {"secretName": "storage", "key": "a"}
SAHHA = {"provider": "sahha", "kind": "sqs", "queue_url": "https://sqs.eu-central-1.amazonaws.com/123456789012/more"}

REFUSED: list[tuple[str, str, Values, str]] = [
    ("no source", "sqs-thrive", {"config": {"sources": None}}, "config.sources: missing"),
    ("replicas with SQLite", "local", {"replicas": 2}, "replicas: expected one replica with SQLite"),
    (
        "scaling with SQLite",
        "sqs-thrive",
        {"secrets": {"database.url": None}, "persistence": {"enabled": True}},
        "autoscaling.enabled: expected one replica with SQLite",
    ),
    (
        "no volume",
        "local",
        {"persistence": {"enabled": False}},
        "persistence.enabled: expected true, since the SQLite database, dead letters, the queue of source events",
    ),
    (
        "no volume for dead letters alone",
        "storage-queue",
        {"persistence": {"enabled": False}},
        "persistence.enabled: expected true, since dead letters would be lost with the pod",
    ),
    (
        "one volume for several replicas",
        "storage-queue",
        {"persistence": {"accessMode": "ReadWriteOnce"}, "autoscaling": {"enabled": False}, "replicas": 2},
        "replicas: one volume of persistence.accessMode ReadWriteOnce cannot hold dead letters of several replicas",
    ),
    (
        "one volume for scaled replicas",
        "storage-queue",
        {"persistence": {"accessMode": "ReadWriteOncePod"}},
        "autoscaling.enabled: one volume of persistence.accessMode ReadWriteOncePod",
    ),
    (
        "grace within the drain",
        "sqs-thrive",
        {"terminationGracePeriodSeconds": 39},
        "terminationGracePeriodSeconds: expected 40 or more, 15 s beyond config.drain_timeout",
    ),
    (
        "drain in minutes",
        "sqs-thrive",
        {"config": {"drain_timeout": "2m"}, "terminationGracePeriodSeconds": 134},
        "terminationGracePeriodSeconds: expected 135 or more",
    ),
    (
        "grace of the relay",
        "sqs-sahha-relay",
        {"relay": {"drainDelaySeconds": 20}},
        "terminationGracePeriodSeconds: expected 50 or more",
    ),
    (
        "thrive without its secret",
        "sqs-thrive",
        {"secrets": {"thrive.signature.secrets": None}},
        "carries events of thrive, expected thrive.signature.secrets or sources.devices.signature.secrets",
    ),
    (
        "sahha without its secret",
        "sqs-sahha-relay",
        {"secrets": {"sahha.signature.secrets": None}},
        "source webhooks carries events of sahha, expected sahha.signature.secrets",
    ),
    (
        "storage queue with two ways in",
        "storage-queue",
        {"config": {"sources": {"events": {"account_url": "https://a.queue.core.windows.net"}}}},
        "config.sources.events.account_url: expected either this or",
    ),
    (
        "storage queue without a way in",
        "storage-queue",
        {"secrets": {"sources.events.connection_string": None}},
        "config.sources.events.account_url: expected either this or",
    ),
    (
        "hub without a way in",
        "event-hubs",
        {"config": {"sources": {"events": {"namespace": None}}}},
        "config.sources.events.namespace: expected this or",
    ),
    (
        "checkpoints without a way in",
        "event-hubs",
        {"config": {"sources": {"events": {"checkpoints": {"account_url": None}}}}},
        "config.sources.events.checkpoints.account_url: expected either this or",
    ),
    (
        "blobs with two ways in",
        "event-hubs",
        {"secrets": {"dead_letters.connection_string": STRING}},
        "config.dead_letters.account_url: expected either this or",
    ),
    (
        "secret of no source",
        "sqs-thrive",
        {"secrets": {"sources.lab.signature.secrets": STRING}},
        "secrets.sources.lab.signature.secrets: there is no source lab",
    ),
    (
        "secret of no Secret",
        "sqs-thrive",
        {"secrets": {"thrive.tenant_key": {"secretName": None}}},
        "secrets.thrive.tenant_key.secretName: missing",
    ),
    (
        "secret the vault does not give",
        "sqs-sahha-relay",
        {"secrets": {"sahha.signature.secrets": {"key": "other"}}},
        "externalSecret.data.other: missing, secrets.sahha.signature.secrets refers to it",
    ),
    (
        "migration before the vault's secret",
        "sqs-sahha-relay",
        {"migration": {"mode": "job"}},
        "migration.mode: expected init or manual with externalSecret.enabled",
    ),
    (
        "scaling on a local queue",
        "local",
        {
            "autoscaling": {"enabled": True},
            "secrets": {"database.url": STRING},
            "persistence": {"accessMode": "ReadWriteMany"},
        },
        "autoscaling.enabled: nothing tells the backlog of source events, which is local",
    ),
    (
        "target within what one replica holds",
        "sqs-thrive",
        {"autoscaling": {"targetPerReplica": 400}},
        "autoscaling.targetPerReplica: expected more than the 400 deliveries that one replica holds of source devices",
    ),
    (
        "more at least than at most",
        "sqs-thrive",
        {"autoscaling": {"minReplicas": 9}},
        "autoscaling.minReplicas: expected no more than autoscaling.maxReplicas",
    ),
    (
        "region in no URL",
        "sqs-thrive",
        {"config": {"sources": {"labs": {"queue_url": "https://queue.partner.example/1/labs"}}}},
        "config.sources.labs.region: missing",
    ),
    (
        "more replicas than partitions",
        "event-hubs",
        {"autoscaling": {"maxReplicas": 5}},
        "autoscaling.maxReplicas: expected 4 or less",
    ),
    (
        "partitions not given",
        "event-hubs",
        {"autoscaling": {"partitions": {"events": None}}},
        "autoscaling.partitions.events: missing",
    ),
    (
        "parked events with nobody to run them",
        "event-hubs",
        {"autoscaling": {"minReplicas": 0}},
        "autoscaling.minReplicas: expected 1 or more, since parked events",
    ),
    (
        "capitals in the hub's name",
        "event-hubs",
        {"config": {"sources": {"events": {"event_hub": "Health-Events"}}}},
        "config.sources.events.event_hub: expected small letters",
    ),
    (
        "capitals in the namespace",
        "event-hubs",
        {"config": {"sources": {"events": {"namespace": "Partner"}}}},
        "config.sources.events.namespace: expected small letters",
    ),
    (
        "hub's name in the connection string alone",
        "event-hubs",
        {
            "config": {"sources": {"events": {**HUB_STRINGS["config"]["sources"]["events"], "event_hub": None}}},
            "secrets": HUB_STRINGS["secrets"],
        },
        "config.sources.events.event_hub: missing, KEDA needs it",
    ),
    (
        "connection string for the hub alone",
        "event-hubs",
        {
            "config": {"sources": {"events": {"namespace": None}}},
            "secrets": {"sources.events.connection_string": STRING},
        },
        "autoscaling.enabled: KEDA reads the checkpoints of source events only with a connection string",
    ),
    (
        "relay of nobody",
        "sqs-thrive",
        {"relay": {"enabled": True}},
        "relay.enabled: config.relay.source does not name a source with provider sahha",
    ),
    (
        "relay of two",
        "sqs-sahha-relay",
        {"config": {"sources": {"more": SAHHA}}},
        "relay.enabled: config.relay.source does not name a source with provider sahha, or there is not exactly one",
    ),
    (
        "relay of a file",
        "local",
        {
            "relay": {"enabled": True},
            "config": {"sources": {"events": {"provider": "sahha"}}},
            "secrets": {"sahha.signature.secrets": STRING},
        },
        "relay.enabled: source events is local",
    ),
    (
        "webhooks without TLS",
        "sqs-sahha-relay",
        {"relay": {"ingress": {"tlsSecretName": ""}}},
        "relay.ingress.tlsSecretName: missing",
    ),
    (
        "webhooks to no host",
        "sqs-sahha-relay",
        {"relay": {"ingress": {"host": ""}}},
        "relay.ingress.host: missing",
    ),
    (
        "replay of what went with the pod",
        "local",
        {"persistence": {"enabled": False, "ephemeral": True}, "replay": {"enabled": True}},
        "replay.enabled: needs persistence.enabled",
    ),
    (
        "replay beside a worker with the volume to itself",
        "local",
        {"persistence": {"accessMode": "ReadWriteOncePod"}, "replay": {"enabled": True}},
        "replay.enabled: the worker has the volume to itself",
    ),
]

UNFIT: list[tuple[str, str, Values, str]] = [
    ("unknown value", "local", {"replica": 2}, "additional properties 'replica' not allowed"),
    (
        "unknown value below",
        "local",
        {"relay": {"ingress": {"tls": []}}},
        "at '/relay/ingress': additional properties 'tls'",
    ),
    ("unknown setting", "local", {"config": {"max_inflight": 1}}, "additional properties 'max_inflight' not allowed"),
    (
        "secret in the config",
        "sqs-thrive",
        {"config": {"thrive": {"tenant_key": "t0p"}}},
        "at '/config/thrive': additional properties 'tenant_key'",
    ),
    (
        "database in the config",
        "sqs-thrive",
        {"config": {"database": {"url": "postgresql://u:t0p@h/n"}}},
        "at '/config/database': additional properties 'url'",
    ),
    (
        "secret itself among the references",
        "sqs-thrive",
        {"secrets": {"thrive.tenant_key": "t0p"}},
        "got string, want object",
    ),
    ("secret nobody knows", "sqs-thrive", {"secrets": {"thrive.key": STRING}}, "'thrive.key' not allowed"),
    (
        "address of the pod",
        "local",
        {"config": {"health": {"port": 9}}},
        "at '/config': additional properties 'health' not allowed",
    ),
    (
        "what only another kind has",
        "sqs-thrive",
        {"config": {"sources": {"labs": {"event_hub": "h"}}}},
        "at '/config/sources/labs/event_hub'",
    ),
    (
        "what its kind needs",
        "sqs-thrive",
        {"config": {"sources": {"labs": {"queue_url": None}}}},
        "missing property 'queue_url'",
    ),
    (
        "checkpoints without a container",
        "event-hubs",
        {"config": {"sources": {"events": {"checkpoints": {"container": None}}}}},
        "missing property 'container'",
    ),
    (
        "what only the other provider has",
        "sqs-sahha-relay",
        {"config": {"sources": {"webhooks": {"signature": {"template": "{body}"}}}}},
        "invalid propertyName 'template'",
    ),
    (
        "no such provider",
        "local",
        {"config": {"sources": {"events": {"provider": "other"}}}},
        "must be one of 'thrive'",
    ),
    ("off that YAML read as false", "local", {"config": {"dead_letters": {"max_age": False}}}, "got boolean"),
    ("migration off as YAML reads it", "local", {"migration": {"mode": False}}, "at '/migration/mode'"),
    ("bucket missing", "sqs-thrive", {"config": {"dead_letters": {"bucket": None}}}, "missing property 'bucket'"),
]


def refusal(example: str, changes: Values) -> str:
    with pytest.raises(HelmRefused) as caught:
        changed(example, changes)
    return str(caught.value)


@pytest.mark.parametrize(("_", "example", "changes", "expected"), REFUSED, ids=[one[0] for one in REFUSED])
def test_what_cannot_work_is_refused_in_one_line(_: str, example: str, changes: Values, expected: str) -> None:
    line, *hint = refusal(example, changes).splitlines()
    assert expected in line
    assert hint == ["", "Use --debug flag to render out invalid YAML"]


@pytest.mark.parametrize(("_", "example", "changes", "expected"), UNFIT, ids=[one[0] for one in UNFIT])
def test_schema_refuses_what_is_no_value(_: str, example: str, changes: Values, expected: str) -> None:
    text = refusal(example, changes)
    assert expected in text
    assert "t0p" not in text
