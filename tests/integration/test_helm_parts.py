"""The parts of the Helm chart that are there when asked for: scaling, relay, replay, migration, identities, network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consumer.relay import relay_source
from tests.integration.test_helm_chart import (
    HUB_STRINGS,
    REPLAY,
    Objects,
    changed,
    environment,
    example,
    load_in_pod,
    of_kind,
    pods,
    the,
)

RELAY = "health-event-consumer-relay"
TWO_SOURCES = {
    "config": {
        "sources": {
            "events": {"kind": "storage_queue", "queue": "q"},
            "webhooks": {"max_in_flight": 100, "max_message_bytes": "200KiB"},
        },
        "dead_letters": {"max_age": "30d"},
    },
    "secrets": {
        "sources.events.connection_string": {"key": "database-url"},
        "thrive.signature.secrets": {"key": "database-url"},
    },
}


def pod_of(objects: Objects, kind: str, name: str = "health-event-consumer") -> dict[str, Any]:
    return the(objects, kind, name)["spec"]["template"]["spec"]


def replay_job(objects: Objects) -> dict[str, Any]:
    return next(one for one in of_kind(objects, "Job") if "-replay-" in one["metadata"]["name"])


def secret_paths(pod: dict[str, Any]) -> set[str]:
    volumes = [one["projected"]["sources"] for one in pod["volumes"] if "projected" in one]
    return {item["path"] for sources in volumes for source in sources for item in source["secret"]["items"]}


def authentication(objects: Objects, source: str) -> dict[str, Any]:
    return the(objects, "TriggerAuthentication", f"health-event-consumer-{source}")["spec"]


def test_keda_alone_decides_on_replicas() -> None:
    assert "replicas" not in the(example("sqs-thrive"), "Deployment")["spec"]
    assert the(example("sqs-sahha-relay"), "Deployment")["spec"]["replicas"] == 2
    spec = the(example("sqs-thrive"), "ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["name"] == "health-event-consumer"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 8)


def test_sqs_backlog_counts_what_is_in_flight() -> None:
    triggers = the(example("sqs-thrive"), "ScaledObject")["spec"]["triggers"]
    assert [one["metadata"]["queueURL"].rsplit("/")[-1] for one in triggers] == ["devices", "labs"]
    for trigger in triggers:
        assert trigger["type"] == "aws-sqs-queue"
        assert trigger["metadata"]["scaleOnInFlight"] == "true"
        assert trigger["metadata"]["awsRegion"] == "us-east-1"


def test_storage_queue_backlog_counts_all_messages() -> None:
    trigger = the(example("storage-queue"), "ScaledObject")["spec"]["triggers"][0]
    assert trigger["type"] == "azure-queue"
    assert trigger["metadata"] == {"queueName": "health-events", "queueLength": "1000", "queueLengthStrategy": "all"}


def test_keda_gets_in_as_the_worker_does() -> None:
    assert authentication(example("sqs-thrive"), "labs") == {"podIdentity": {"provider": "aws"}}
    as_worker = changed("sqs-thrive", {"autoscaling": {"authentication": {"awsAsWorker": True}}})
    assert authentication(as_worker, "labs") == {"podIdentity": {"provider": "aws", "identityOwner": "workload"}}
    string = {"parameter": "connection", "name": "storage", "key": "connection-string"}
    assert authentication(example("storage-queue"), "events") == {"secretTargetRef": [string]}
    identity = {"provider": "azure-workload", "identityId": "00000000-0000-0000-0000-000000000002"}
    assert authentication(example("event-hubs"), "events") == {"podIdentity": identity}
    strings = authentication(changed("event-hubs", HUB_STRINGS), "events")["secretTargetRef"]
    assert {one["parameter"]: one["name"] for one in strings} == {"connection": "hub", "storageConnection": "storage"}
    account = {"sources": {"events": {"account_url": "https://partnerevents.queue.core.chinacloudapi.cn"}}}
    china = changed("storage-queue", {"config": account, "secrets": {"sources.events.connection_string": None}})
    metadata = the(china, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    assert (metadata["accountName"], metadata["cloud"]) == ("partnerevents", "AzureChinaCloud")


def test_sources_of_ones_own_kind_bring_their_own_trigger() -> None:
    own = {"sources": {"labs": {"kind": "mine:Labs", "queue_url": None, "options": {"topic": "labs"}}}}
    trigger = {"type": "kafka", "metadata": {"topic": "labs"}}
    objects = changed("sqs-thrive", {"config": own, "autoscaling": {"extraTriggers": [trigger]}})
    triggers = the(objects, "ScaledObject")["spec"]["triggers"]
    assert [one["type"] for one in triggers] == ["aws-sqs-queue", "kafka"]
    assert 'sources.labs.options.topic = "labs"' in the(objects, "ConfigMap")["data"]["consumer.toml"]


def test_each_cloud_knows_the_service_accounts() -> None:
    aws = example("sqs-sahha-relay")
    role = "eks.amazonaws.com/role-arn"
    worker, relay = the(aws, "ServiceAccount"), the(aws, "ServiceAccount", RELAY)
    assert worker["metadata"]["annotations"][role] != relay["metadata"]["annotations"][role]
    assert pod_of(aws, "Deployment")["serviceAccountName"] == "health-event-consumer"
    assert pod_of(aws, "Deployment", RELAY)["serviceAccountName"] == RELAY
    azure = example("event-hubs")
    annotations = the(azure, "ServiceAccount")["metadata"]["annotations"]
    assert annotations == {"azure.workload.identity/client-id": "00000000-0000-0000-0000-000000000001"}
    labels = the(azure, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels["azure.workload.identity/use"] == "true"
    mine = changed("sqs-thrive", {"serviceAccount": {"create": False, "name": "mine"}})
    assert not of_kind(mine, "ServiceAccount")
    assert pod_of(mine, "Deployment")["serviceAccountName"] == "mine"


def test_relay_has_its_own_source_and_nobody_elses_secrets(tmp_path: Path) -> None:
    objects = changed("sqs-sahha-relay", {**TWO_SOURCES, "externalSecret": {"name": "made"}})
    pod = pod_of(objects, "Deployment", RELAY)
    settings = load_in_pod(objects, pod, pod["containers"][0], tmp_path, {}).settings
    assert list(settings.sources) == [relay_source(settings).name] == ["webhooks"]
    assert settings.source("webhooks").max_message_bytes == 200 * 1024
    assert secret_paths(pod) == set()
    assert (settings.relay.host, settings.relay.port) == ("0.0.0.0", pod["containers"][0]["ports"][0]["containerPort"])
    assert settings.health.port == 8082
    assert pod["containers"][0]["args"] == ["relay"]


def test_relay_opens_its_queue_with_the_workers_connection_string(tmp_path: Path) -> None:
    queue = {"kind": "storage_queue", "queue": "webhooks", "queue_url": None}
    string = {"sources.webhooks.connection_string": {"secretName": "storage", "key": "string"}}
    objects = changed("sqs-sahha-relay", {"config": {"sources": {"webhooks": queue}}, "secrets": string})
    pod = pod_of(objects, "Deployment", RELAY)
    assert secret_paths(pod) == set(string)
    settings = load_in_pod(objects, pod, pod["containers"][0], tmp_path, {}).settings
    assert settings.source("webhooks").connection_string is not None


def test_relay_that_verifies_has_the_secret_for_it() -> None:
    verifying = changed("sqs-sahha-relay", {"config": {"relay": {"verify": True}}})
    assert secret_paths(pod_of(verifying, "Deployment", RELAY)) == {"sahha.signature.secrets"}


def test_webhooks_reach_the_relay_over_tls() -> None:
    objects = example("sqs-sahha-relay")
    ingress, service = the(objects, "Ingress", RELAY)["spec"], the(objects, "Service", RELAY)["spec"]
    assert ingress["tls"] == [{"hosts": ["sahha.partner.example"], "secretName": "sahha-partner-example-tls"}]
    backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": RELAY, "port": {"name": service["ports"][0]["name"]}}
    template = the(objects, "Deployment", RELAY)["spec"]["template"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    container = template["spec"]["containers"][0]
    assert service["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] > 0


def test_replay_sees_the_same_store_and_only_it_can_read_what_is_sealed() -> None:
    objects = changed("local", {"replay": REPLAY})
    job = replay_job(objects)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["args"] == ["replay", "--yes", "--since", "24h"]
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "health-event-consumer-data"}}
    assert claim in pod["volumes"]
    assert claim in pod_of(objects, "Deployment")["volumes"]
    near = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    labels = the(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert near["labelSelector"]["matchLabels"].items() <= labels.items()
    assert environment(container)["CONSUMER_DEAD_LETTERS__IDENTITY_FILE"]
    assert "readers" not in str(the(objects, "Deployment"))
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


def test_replay_may_read_what_the_worker_may_not() -> None:
    """Dead letters in an object store: the worker's identity only writes them."""
    mine = {"enabled": True, "serviceAccountName": "operators"}
    template = replay_job(changed("sqs-thrive", {"replay": mine}))["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == "operators"
    assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    plain = replay_job(changed("sqs-thrive", {"replay": {"enabled": True}}))["spec"]["template"]["spec"]
    assert plain["serviceAccountName"] == pod_of(example("sqs-thrive"), "Deployment")["serviceAccountName"]


def test_replay_that_only_looks_is_not_told_yes() -> None:
    looking = replay_job(changed("sqs-thrive", {"replay": {"enabled": True, "args": ["--dry-run"]}}))
    assert looking["spec"]["template"]["spec"]["containers"][0]["args"] == ["replay", "--dry-run"]
    assert "affinity" not in looking["spec"]["template"]["spec"]


def test_other_arguments_make_another_replay() -> None:
    names = {
        replay_job(changed("sqs-thrive", {"replay": {"enabled": True, "args": args}}))["metadata"]["name"]
        for args in (["--since", "24h"], ["--since", "48h"], ["--since", "24h"])
    }
    assert len(names) == 2


def test_tables_are_changed_before_workers_start() -> None:
    objects = example("storage-queue")
    job = the(objects, "Job", "health-event-consumer-migrate")
    hook = job["metadata"]["annotations"]
    assert hook["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["migrate"]
    # A hook runs before the rest of the release is there: what it needs is a hook that comes first, or not of it.
    settings = the(objects, "ConfigMap", "health-event-consumer-migrate")["metadata"]["annotations"]
    assert settings["helm.sh/hook"] == hook["helm.sh/hook"]
    assert int(settings["helm.sh/hook-weight"]) < int(hook["helm.sh/hook-weight"])
    assert "serviceAccountName" not in pod
    database = next(one for one in pod["volumes"] if "projected" in one)["projected"]["sources"][0]["secret"]
    assert (database["name"], database["items"][0]["path"]) == ("health-events-owner", "database.url")
    in_pod = pod_of(example("sqs-sahha-relay"), "Deployment")["initContainers"][0]
    assert in_pod["args"] == ["migrate"]
    assert not of_kind(example("sqs-sahha-relay"), "Job")
    by_hand = changed("storage-queue", {"migration": {"mode": "manual"}})
    assert not of_kind(by_hand, "Job")
    assert "initContainers" not in pod_of(by_hand, "Deployment")
    assert not of_kind(example("local"), "Job")


def test_what_a_cluster_asks_of_pods_gets_there() -> None:
    wishes = {
        "priorityClassName": "high",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "events", "operator": "Exists"}],
    }
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    extra = {
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "certificates", "configMap": {"name": "certificates"}}],
        "extraVolumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
        "image": {"pullSecrets": [{"name": "registry"}], "command": ["consumer"]},
        "topologySpread": {"enabled": False},
    }
    objects = changed("sqs-sahha-relay", {**wishes, **extra, "affinity": affinity})
    for name in ("health-event-consumer", RELAY):
        pod = pod_of(objects, "Deployment", name)
        assert wishes.items() <= pod.items()
        assert (pod["affinity"], pod["imagePullSecrets"]) == (affinity, [{"name": "registry"}])
        assert "topologySpreadConstraints" not in pod
        container = pod["containers"][0]
        assert container["command"] == ["consumer"]
    # What the environment points to, such as the certificates of a database, is wherever the environment is.
    for _, pod in [*pods(objects), *pods(changed("sqs-thrive", extra))]:
        assert environment(pod["containers"][0])["TZ"] == "UTC"
        assert extra["extraVolumes"][0] in pod["volumes"]
        assert extra["extraVolumeMounts"][0] in pod["containers"][0]["volumeMounts"]


def test_names_are_texts_whatever_they_look_like() -> None:
    """A name like 123 or off is a number or a boolean to YAML, which no cluster takes for one."""
    reference = {"secretName": "123", "key": "off"}
    names = {"priorityClassName": "123", "serviceAccount": {"name": "0x1f", "create": False}}
    values = {"secrets": {"database.url": reference}, "replay": {"enabled": True, "identity": reference}, **names}
    objects = changed("sqs-thrive", values)
    pod = replay_job(objects)["spec"]["template"]["spec"]
    assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("123", "0x1f")
    assert {"name": "123", "items": [{"key": "off", "path": "database.url"}]} in [
        source["secret"] for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", [])
    ]
    identity = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "identity")
    assert (identity["secretName"], identity["items"][0]["key"]) == ("123", "off")


def test_sqlite_has_room_for_its_temporary_copies() -> None:
    """The database is written anew after a member was forgotten, and /tmp is too small for that."""
    (container,) = pod_of(example("local"), "Deployment")["containers"]
    assert environment(container)["SQLITE_TMPDIR"] in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert "SQLITE_TMPDIR" not in str(example("sqs-thrive"))


def test_network_lets_through_what_is_needed() -> None:
    def ports(objects: Objects, name: str, way: str) -> set[int]:
        rules = the(objects, "NetworkPolicy", name)["spec"][way]
        return {port["port"] for rule in rules for port in rule["ports"]}

    name = "health-event-consumer"
    assert ports(example("event-hubs"), name, "egress") == {53, 443, 5671, 5672, 5432}
    assert ports(example("sqs-sahha-relay"), name, "egress") == {53, 443, 5432}
    assert ports(example("sqs-sahha-relay"), name, "ingress") == {8080}
    assert ports(example("sqs-sahha-relay"), RELAY, "egress") == {53, 443}
    assert ports(example("sqs-sahha-relay"), RELAY, "ingress") == {8081, 8082}
    closed = changed("event-hubs", {"networkPolicy": {"metricsFrom": [], "databasePort": 6432}})
    assert the(closed, "NetworkPolicy")["spec"]["ingress"] == []
    assert 6432 in ports(closed, name, "egress")
    assert not of_kind(example("local"), "NetworkPolicy")


def test_jobs_are_under_the_workers_network_policy() -> None:
    objects = changed("storage-queue", {"replay": {"enabled": True}})
    chosen = the(objects, "NetworkPolicy")["spec"]["podSelector"]["matchExpressions"][0]["values"]
    workloads = [*of_kind(objects, "Job"), *of_kind(objects, "Deployment")]
    components = {one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] for one in workloads}
    assert components == set(chosen)


def test_replicas_are_spread_and_one_at_a_time_may_be_taken_away() -> None:
    objects = example("sqs-sahha-relay")
    for name in ("health-event-consumer", RELAY):
        template = the(objects, "Deployment", name)["spec"]["template"]
        for constraint in template["spec"]["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        budget = the(objects, "PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
