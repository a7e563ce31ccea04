"""What is made from the Helm chart and for it: `make manifests` writes it, and a test finds what is out of date.

`deploy/kubernetes/` has a plain manifest for each example in `deploy/helm/ci/`, for people without Helm. The part of
the chart's `values.schema.json` that describes consumer.toml and the secrets is made from the program's settings, so
that a setting added there is a value here.
"""

# ruff: noqa: INP001 - a program of the repository, not a part of the package

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from consumer.settings_names import ANY, leaves  # noqa: E402 - the repository has to be importable first
from tests.servers.helm import CHART, render  # noqa: E402 - as above

__all__ = ["examples", "manifests", "schema"]

SCHEMA: Final = CHART / "values.schema.json"
PLAIN: Final = ROOT / "deploy" / "kubernetes"
RELEASE: Final = "health-event-consumer"

_Schema = dict[str, Any]

_DECIDED: Final = frozenset(
    {
        ("app_dir",),
        ("dead_letters", "path"),
        ("dead_letters", "identity_file"),
        ("relay", "host"),
        ("relay", "port"),
    }
)
"""What the chart decides itself, besides everything under `health`."""

_TYPES: Final[Mapping[str, _Schema]] = {
    "number": {"type": ["integer", "number"]},
    "true/false": {"type": "boolean"},
    "duration": {"type": ["string", "number"]},
    "size": {"type": ["string", "integer"]},
    "list": {"type": ["string", "array"], "items": {"type": "string"}},
}
"""By what `Expected.type` says; anything else is text."""

_SOURCE_NAME: Final = "[a-z0-9]+(_[a-z0-9]+)*"
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "local": ("path",),
    "sqs": ("queue_url", "region", "endpoint_url"),
    "event_hubs": ("event_hub", "consumer_group", "checkpoints", "start_at", "order_by", "prefetch", "retention"),
    "storage_queue": ("account_url", "queue"),
}
"""What only one kind of source has."""
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "local": ("path",),
    "sqs": ("queue_url",),
    "event_hubs": ("checkpoints",),
    "storage_queue": ("queue",),
}
_SAHHA_SIGNATURE: Final = ("encoding", "max_age")


def examples() -> list[Path]:
    """The chart's examples, a file of values for each."""
    return sorted((CHART / "ci").glob("*.yaml"))


def manifests() -> dict[Path, str]:
    """The plain manifest of each example, by where it belongs."""
    return {PLAIN / example.name: _plain(example) for example in examples()}


def schema(text: str) -> str:
    """The schema `text` of the chart's values, with what the program's settings decide made anew."""
    whole = json.loads(text)
    whole["$defs"] |= {"config": _config(), "secrets": _secrets()}
    return f"{json.dumps(whole, indent=2)}\n"


def _plain(example: Path) -> str:
    head = (
        f"# Made by `make manifests` from the Helm chart and deploy/helm/ci/{example.name}: change those, not this.\n"
        "# Put your own image, queue and names of Secrets in it, then: kubectl apply -n NAMESPACE -f FILE\n"
    )
    return head + render(example, release=RELEASE)


def _config() -> _Schema:
    """What `config` may hold: every setting that is no secret, and not for the chart to decide."""
    tree = _object()
    for leaf in leaves().values():
        if leaf.expected.secret or leaf.key[0] == "health" or leaf.key in _DECIDED:
            continue
        *tables, name = leaf.key
        node = tree
        for table in tables:
            node = _below(node, table)
        if name == ANY:
            node["additionalProperties"] = {"type": "string"}
        else:
            node["properties"][name] = {**_type(leaf.expected.type), "description": leaf.description}
    tree["properties"]["drain_timeout"] |= {"pattern": "^[0-9]+(s|m|h)?$", "type": ["string", "integer"]}
    tree["properties"]["dead_letters"]["allOf"] = [_of_store("s3", "bucket"), _of_store("blob", "container")]
    source = tree["properties"]["sources"]["patternProperties"][f"^{_SOURCE_NAME}$"]
    source["required"] = ["kind"]
    source["allOf"] = [*(_of_kind(kind) for kind in _OWN), _of_sahha()]
    return tree


def _of_kind(kind: str) -> _Schema:
    """A source of one kind has what that needs, and nothing that only another has."""
    others = sorted({key for other, keys in _OWN.items() if other != kind for key in keys})
    needs: _Schema = {"required": list(_NEEDED[kind]), "properties": dict.fromkeys(others, False)}
    if kind == "event_hubs":
        needs["properties"]["checkpoints"] = {"required": ["container"]}
    return {"if": {"properties": {"kind": {"const": kind}}}, "then": needs}


def _of_store(kind: str, needed: str) -> _Schema:
    given = {"required": ["kind"], "properties": {"kind": {"const": kind}}}
    return {"if": given, "then": {"required": [needed]}}


def _of_sahha() -> _Schema:
    allowed: _Schema = {"signature": {"propertyNames": {"enum": list(_SAHHA_SIGNATURE)}}}
    given = {"required": ["provider"], "properties": {"provider": {"const": "sahha"}}}
    return {"if": given, "then": {"properties": allowed}}


def _secrets() -> _Schema:
    """What `secrets` may hold: a reference for each setting that is a secret."""
    keys = [leaf.key for leaf in leaves().values() if leaf.expected.secret]
    names = ["[.]".join(_SOURCE_NAME if part == ANY else part for part in key) for key in keys]
    patterns = {f"^{name}$": {"$ref": "#/$defs/reference"} for name in names}
    return {"type": "object", "additionalProperties": False, "patternProperties": patterns}


def _object() -> _Schema:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _below(node: _Schema, name: str) -> _Schema:
    """The object below one, made if it is not there."""
    found: _Schema
    if name == ANY:
        node.pop("properties", None)
        found = node.setdefault("patternProperties", {}).setdefault(f"^{_SOURCE_NAME}$", _object())
    else:
        found = node["properties"].setdefault(name, _object())
    return found


def _type(name: str) -> _Schema:
    if name in _TYPES:
        return dict(_TYPES[name])
    return {"enum": name.split(", ")} if ", " in name else {"type": "string"}


def main() -> None:
    """Write everything."""
    SCHEMA.write_text(schema(SCHEMA.read_text()))
    PLAIN.mkdir(exist_ok=True)
    made = manifests()
    for path in set(PLAIN.glob("*.yaml")) - set(made):
        path.unlink()
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
