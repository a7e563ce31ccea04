"""The Helm chart: what it renders is valid, runs the program as it is, and is kept from doing harm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import yaml

from consumer import __version__
from consumer.ops.metrics import Metrics
from consumer.ops.server import Probes, serve_health
from consumer.settings_azure import namespace_host
from consumer.settings_loading import Loaded, load_settings
from consumer.sources.checkpoint_blobs import CheckpointBlobs
from consumer.worker import _HANDLER_GRACE
from deploy import manifests
from tests.servers.helm import CHART, documents, render, run

EXAMPLES = [path.stem for path in manifests.examples()]
KEDA = {"ScaledObject", "TriggerAuthentication"}
OPERATORS = {*KEDA, "PodMonitor", "ExternalSecret"}
SECRET_FILES = "/var/run/secrets/consumer/"
CONNECTION = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5;EndpointSuffix=core.windows.net"
REPLAY = {"enabled": True, "args": ["--since", "24h"], "identity": {"secretName": "readers", "key": "age"}}
HUB_STRINGS: Mapping[str, Any] = {
    "config": {"sources": {"events": {"namespace": None, "checkpoints": {"account_url": None}}}},
    "secrets": {
        "sources.events.connection_string": {"secretName": "hub", "key": "a"},
        "sources.events.checkpoints.connection_string": {"secretName": "storage", "key": "b"},
    },
}

Objects = list[dict[str, Any]]


@cache
def example(name: str) -> Objects:
    return documents(render(CHART / "ci" / f"{name}.yaml"))


def changed(name: str, settings: Mapping[str, Any]) -> Objects:
    return documents(render(CHART / "ci" / f"{name}.yaml", changes=settings))


@cache
def everything() -> dict[str, Objects]:
    """Every example as it is, and with what the examples leave out."""
    extra = {
        "sqs-thrive replay": changed("sqs-thrive", {"replay": REPLAY, "extraEnv": [{"name": "TZ", "value": "UTC"}]}),
        "local replay": changed("local", {"replay": REPLAY, "priorityClassName": "high", "podLabels": {"team": "x"}}),
        "relay verifies": changed("sqs-sahha-relay", {"config": {"relay": {"verify": True}}}),
        "event-hubs strings": changed("event-hubs", {**HUB_STRINGS, "podDisruptionBudget": {"enabled": False}}),
        "storage-queue open": changed("storage-queue", {"networkPolicy": {"metricsFrom": [], "databaseTo": []}}),
        "local ephemeral": changed("local", {"persistence": {"enabled": False, "ephemeral": True}}),
    }
    return {name: example(name) for name in EXAMPLES} | extra


def the(objects: Objects, kind: str, name: str = "health-event-consumer") -> dict[str, Any]:
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)


def of_kind(objects: Objects, kind: str) -> Objects:
    return [one for one in objects if one["kind"] == kind]


def pods(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects:
        if one["kind"] in {"Deployment", "Job"}:
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def worker(objects: Objects) -> dict[str, Any]:
    return the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def image_environment() -> dict[str, str]:
    """What deploy/Dockerfile sets for the program."""
    text = (CHART.parent / "Dockerfile").read_text()
    return dict(re.findall(r"^\s*(?:ENV )?(CONSUMER_\w+)=(\S+)", text, re.MULTILINE))


def secret_for(setting: str) -> str:
    if setting == "database.url":
        return "postgresql://user:password@host/name"
    return CONNECTION if setting.endswith("connection_string") else "a-secret"


def load_in_pod(
    objects: Objects, pod: Mapping[str, Any], container: Mapping[str, Any], root: Path, secrets: Mapping[str, str]
) -> Loaded:
    """Read the settings as the program would in this pod: its files below `root`, its environment over the image's."""
    volumes = {one["name"]: one for one in pod["volumes"]}
    for mount in container["volumeMounts"]:
        volume, folder = volumes[mount["name"]], root / mount["mountPath"].lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            for file, text in the(objects, "ConfigMap", volume["configMap"]["name"])["data"].items():
                (folder / file).write_text(text)
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                (folder / item["path"]).write_text(secrets.get(item["path"], secret_for(item["path"])) + "\n")
    env = image_environment() | environment(container)
    moved = {
        name: f"{root}{value}" if value.startswith(("/etc/", "/var/run/")) else value for name, value in env.items()
    }
    return load_settings(env=moved, cwd=root)


@pytest.mark.parametrize("name", ["", *EXAMPLES])
def test_lint_finds_nothing(name: str) -> None:
    values = ["--values", str(CHART / "ci" / f"{name}.yaml")] if name else []
    assert "1 chart(s) linted, 0 chart(s) failed" in run(["lint", "--strict", str(CHART), *values])


def test_built_in_kinds_are_valid_with_no_field_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    version = kubernetes_validate.latest_version()
    # It would read the definitions of all kinds anew for each object.
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
    objects = {json.dumps(one): one for objects in everything().values() for one in objects}
    built_in = [one for one in objects.values() if one["kind"] not in OPERATORS]
    for one in built_in:
        kubernetes_validate.validate(one, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**built_in[0], "unheard": "of"}, version, strict=True)


def test_keda_knows_every_field() -> None:
    from cloudcoil.models.keda import v1alpha1

    checked = 0
    for objects in everything().values():
        for one in objects:
            if one["kind"] in KEDA:
                model = getattr(v1alpha1, one["kind"]).model_validate(one)
                # The models accept what they do not know, and leave it out.
                assert model.model_dump(mode="json", by_alias=True, exclude_none=True) == one
                checked += 1
    assert checked > len(EXAMPLES)


def test_prometheus_operator_knows_every_field_and_the_port_is_there() -> None:
    from cloudcoil.models.prometheus_operator import v1

    objects = example("sqs-sahha-relay")
    monitor = the(objects, "PodMonitor")
    assert v1.PodMonitor.model_validate(monitor).model_dump(mode="json", by_alias=True, exclude_none=True) == monitor
    wanted = monitor["spec"]["selector"]["matchLabels"]
    for deployment in of_kind(objects, "Deployment"):
        template = deployment["spec"]["template"]
        assert wanted.items() <= template["metadata"]["labels"].items()
        assert "health" in {port["name"] for port in template["spec"]["containers"][0]["ports"]}


def test_external_secret_makes_the_secret_that_pods_mount() -> None:
    objects = example("sqs-sahha-relay")
    spec = the(objects, "ExternalSecret")["spec"]
    assert spec["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
    assert spec["target"] == {"name": "health-event-consumer", "creationPolicy": "Owner"}
    assert {one["secretKey"]: one["remoteRef"] for one in spec["data"]} == {
        "database-url": {"key": "prod/health-events", "property": "database-url"},
        "sahha-webhook-secret": {"key": "prod/sahha", "property": "webhook-secret"},
    }
    volume = next(
        one for one in the(objects, "Deployment")["spec"]["template"]["spec"]["volumes"] if "projected" in one
    )
    mounted = {(one["secret"]["name"], one["secret"]["items"][0]["key"]) for one in volume["projected"]["sources"]}
    assert mounted == {("health-event-consumer", one["secretKey"]) for one in spec["data"]}


def test_every_pod_has_settings_the_program_takes(tmp_path: Path) -> None:
    """Files and environment of each container, over the image's own, pass the program's settings loader."""
    hub = "Endpoint=sb://partner.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=a2V5"
    for name, objects in everything().items():
        secrets = {"sources.events.connection_string": hub} if name.startswith("event-hubs") else {}
        for pod_name, pod in pods(objects):
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                root = tmp_path / name / pod_name / container["name"]
                settings = load_in_pod(objects, pod, container, root, secrets).settings
                postgres = settings.database.url.get_secret_value().startswith("postgresql")
                has_volume = "/data" in {mount["mountPath"] for mount in container["volumeMounts"]}
                if container["name"] in {"worker", "migrate", "replay"}:
                    assert postgres is not name.startswith("local")
                    assert has_volume or container["name"] == "migrate" or settings.dead_letters.kind in {"s3", "blob"}
                if container["name"] == "worker":
                    assert settings.health.host == "0.0.0.0"
                    assert settings.health.port == container["ports"][0]["containerPort"]
                assert (settings.dead_letters.identity_file is not None) is (container["name"] == "replay")
                assert settings.sources


def test_values_of_every_shape_reach_the_program_as_they_are(tmp_path: Path) -> None:
    config = {
        "max_in_flight_bytes": 134217728,
        "uvloop": False,
        "thrive": {"signature": {"template": 'a"\\<{signed_at}.{body}>é'}, "http": {"max_rps": 2.5}},
        "dead_letters": {"recipients": ["age1a", "age1b"]},
        "sources": {"labs": {"signature": {"max_age": "48h"}, "poll_wait": 5}},
        "inbox": {"retention": "forever"},
    }
    objects = changed("sqs-thrive", {"config": config})
    _, pod = next(pods(objects))
    settings = load_in_pod(objects, pod, pod["containers"][0], tmp_path, {}).settings
    assert settings.max_in_flight_bytes == 134217728
    assert settings.thrive.signature.template == 'a"\\<{signed_at}.{body}>é'
    assert settings.thrive.http.max_rps == 2.5
    assert settings.dead_letters.recipients == ["age1a", "age1b"]
    labs = settings.source("labs")
    assert (labs.signature.max_age, labs.poll_wait, settings.inbox.retention) == (48 * 3600, 5, None)


def test_every_pod_is_shut_in() -> None:
    for objects in everything().values():
        for _, pod in pods(objects):
            assert pod["enableServiceLinks"] is False
            assert pod["automountServiceAccountToken"] is False
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert container["resources"]["limits"]["memory"]
                assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_secrets_are_whole_folders_of_files_and_never_values() -> None:
    """A mount with subPath, or an environment variable, would not follow a rotation."""
    for objects in everything().values():
        for _, pod in pods(objects):
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                assert not any("subPath" in mount for mount in container["volumeMounts"])
                assert all("valueFrom" not in one for one in container["env"])
                files = {value for name, value in environment(container).items() if name.endswith("_FILE")}
                volumes = [one for one in pod["volumes"] if "projected" in one]
                paths = {
                    item["path"]
                    for one in volumes
                    for s in one["projected"]["sources"]
                    for item in s["secret"]["items"]
                }
                assert {file.removeprefix(SECRET_FILES) for file in files if file.startswith(SECRET_FILES)} == paths
        assert not of_kind(objects, "Secret")


async def test_probes_ask_what_the_program_answers() -> None:
    fine = Probes(not_started=lambda: None, not_live=lambda: None, not_ready=lambda: None)
    wanted = set()
    for deployment in of_kind(example("sqs-sahha-relay"), "Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                asked = container[probe]["httpGet"]
                wanted.add(asked["path"])
                assert str(ports[asked["port"]]) == environment(container)["CONSUMER_HEALTH__PORT"]
    assert wanted == {"/startupz", "/livez", "/readyz"}
    async with (
        serve_health(host="127.0.0.1", port=0, metrics=Metrics(), probes=fine) as port,
        aiohttp.ClientSession() as client,
    ):
        for path in {*wanted, the(example("sqs-thrive"), "PodMonitor")["spec"]["podMetricsEndpoints"][0]["path"]}:
            async with client.get(f"http://127.0.0.1:{port}{path}") as response:
                assert response.status == 200


def test_a_pod_has_longer_to_stop_than_the_worker_takes() -> None:
    settings = load_settings(env={}, cwd=CHART).settings
    for objects in everything().values():
        for deployment in of_kind(objects, "Deployment"):
            grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            assert grace >= settings.drain_timeout + _HANDLER_GRACE + 5


def test_settings_restart_workers_and_secrets_do_not() -> None:
    def template(settings: Mapping[str, Any]) -> dict[str, Any]:
        return the(changed("sqs-thrive", settings), "Deployment")["spec"]["template"]

    before = template({})
    assert template({"config": {"max_attempts": 9}})["metadata"] != before["metadata"]
    assert template({"podMonitor": {"enabled": False}}) == before


def test_a_volume_for_one_node_is_handed_over_and_a_shared_one_is_not() -> None:
    alone = the(example("local"), "Deployment")["spec"]
    assert alone["strategy"] == {"type": "Recreate"}
    assert the(example("local"), "PersistentVolumeClaim", "health-event-consumer-data")
    shared = the(example("storage-queue"), "Deployment")["spec"]
    assert shared["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert not of_kind(example("sqs-thrive"), "PersistentVolumeClaim")
    claimed = changed("local", {"persistence": {"existingClaim": "mine"}})
    assert not of_kind(claimed, "PersistentVolumeClaim")
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in next(pods(claimed))[1]["volumes"]


def test_version_is_the_programs_own() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert worker(changed("local", {"image": {"repository": "r", "tag": ""}}))["image"] == f"r:{__version__}"
    digest = f"sha256:{'0' * 64}"
    assert worker(changed("local", {"image": {"repository": "r", "digest": digest}}))["image"] == f"r@{digest}"


def test_image_is_what_the_pods_take_it_for() -> None:
    lines = (CHART.parent / "Dockerfile").read_text().splitlines()
    security = next(pods(example("local")))[1]["securityContext"]
    assert 'ENTRYPOINT ["consumer"]' in lines
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in lines
    exposed = {int(port) for line in lines if line.startswith("EXPOSE ") for port in line.split()[1:]}
    for deployment in of_kind(example("sqs-sahha-relay"), "Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        assert {port["containerPort"] for port in container["ports"]} <= exposed


def test_example_of_the_readme_renders(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text((CHART / "README.md").read_text().split("```yaml\n")[1].split("```")[0])
    objects = documents(render(values))
    assert the(objects, "Deployment")["spec"]["replicas"] == 2


def test_made_files_are_up_to_date() -> None:
    """`make manifests` makes them."""
    text = manifests.SCHEMA.read_text()
    assert manifests.schema(text) == text, "make manifests"
    made = manifests.manifests()
    assert set(manifests.PLAIN.glob("*.yaml")) == set(made)
    for path, wanted in made.items():
        assert path.read_text() == wanted, "make manifests"


def test_keda_looks_for_checkpoints_where_they_are_written() -> None:
    """By KEDA's rule for blobMetadata: the names as given, and only the consumer group in small letters."""
    source = {"consumer_group": "Workers"}
    objects = changed("event-hubs", {"config": {"sources": {"events": source}}})
    trigger = the(objects, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    host = f"{trigger['eventHubNamespace']}.servicebus.windows.net"
    looked_for = f"{host}/{trigger['eventHubName']}/{trigger['consumerGroup'].lower()}/checkpoint"
    written = CheckpointBlobs(
        None, namespace=namespace_host("partner"), event_hub="health-events", consumer_group="Workers"
    )
    assert looked_for == written._folder
    assert trigger["checkpointStrategy"] == "blobMetadata"
