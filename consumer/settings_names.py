"""The names of the settings: found in the models, spelled for the environment and for TOML, suggested when mistyped."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from consumer.settings import INHERITED, Settings, SourceSettings, ThriveSignatureSettings
from consumer.settings_types import Expected

__all__ = [
    "ANY",
    "PREFIX",
    "Key",
    "Leaf",
    "Row",
    "dotted",
    "env_name",
    "find",
    "is_service_link",
    "is_table",
    "leaves",
    "markdown_table",
    "nearest",
    "settings_table",
    "spread",
]

Key = tuple[str, ...]
"""A setting's way down from the top; a source's name stands second."""
PREFIX: Final = "CONSUMER_"
ANY: Final = "*"
"""Stands in a leaf's key for a name that users choose."""

_FILE = "_file"
# What Kubernetes sets in every pod for a Service called consumer, or consumer-anything.
_SERVICE_HOST = re.compile(r"CONSUMER_([A-Z0-9_]+_)?SERVICE_HOST")
_SERVICE_PORT = re.compile(r"CONSUMER_([A-Z0-9_]+_)?SERVICE_PORT(_[A-Z0-9_]+)?")
_SERVICE_LINK = re.compile(r"CONSUMER_([A-Z0-9_]+_)?PORT(_[0-9]+_(TCP|UDP|SCTP))?")
_SERVICE_LINK_PART = re.compile(r"CONSUMER_([A-Z0-9_]+_)?PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting, as the models have it."""

    key: Key
    expected: Expected
    default: str
    """As it could be given; a remark in round brackets where there is no fixed one."""
    description: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of settings."""

    name_env: str
    toml_key: str
    type: str
    default: str
    description: str


@cache
def leaves() -> Mapping[Key, Leaf]:
    """Every setting by its key, in the order of the models."""
    return {leaf.key: leaf for leaf in _walk(Settings, ())}


def settings_table() -> list[Row]:
    """Every setting once, those of a source under `<NAME>`; a secret X may also be given as X_FILE."""
    return [
        Row(env_name(leaf.key), dotted(leaf.key), leaf.expected.type, leaf.default, leaf.description)
        for leaf in leaves().values()
    ]


def markdown_table() -> str:
    """The table of settings in Markdown, as the documentation has it."""
    lines = ["| Environment | TOML | Type | Default | What it is |", "| --- | --- | --- | --- | --- |"]
    for row in settings_table():
        default = row.default if not row.default or row.default.startswith("(") else f"`{row.default}`"
        lines.append(f"| `{row.name_env}` | `{row.toml_key}` | {row.type} | {default} | {row.description} |")
    return "\n".join(lines) + "\n"


def find(key: Key) -> Leaf | None:
    """The setting with this key, if there is one."""
    return leaves().get(_generic(key))


def spread(key: Key) -> tuple[Key, bool] | None:
    """What a written key means: the setting, and whether the value is the path of a file that holds it."""
    if find(key):
        return key, False
    base = (*key[:-1], key[-1].removesuffix(_FILE))
    leaf = find(base) if key[-1].endswith(_FILE) else None
    return (base, True) if leaf and leaf.expected.secret else None


def is_table(key: Key) -> bool:
    """Whether settings stand below this key."""
    generic = _generic(key)
    return any(leaf[: len(generic)] == generic and len(leaf) > len(generic) for leaf in leaves())


def env_name(key: Key) -> str:
    """How the environment spells a setting."""
    return PREFIX + "__".join(_placeholder(key, index).upper() for index in range(len(key)))


def dotted(key: Key) -> str:
    """How TOML spells a setting, with the tables it stands in."""
    return ".".join(_placeholder(key, index) for index in range(len(key)))


def nearest(written: str, *, environment: bool, sources: Collection[str]) -> str:
    """What to add to the refusal of an unknown name: the nearest known one, or nothing."""
    spell = env_name if environment else dotted
    guesses = [*sources, *_guessed_source(written, environment=environment)] or [ANY]
    known: dict[str, None] = {}
    for leaf in leaves().values():
        keys = [(leaf.key[0], name, *leaf.key[2:]) for name in guesses] if leaf.key[0] == "sources" else [leaf.key]
        for key in keys:
            known[spell(key)] = None
            if leaf.expected.secret:
                known[spell((*key[:-1], key[-1] + _FILE))] = None
    found = difflib.get_close_matches(written.upper() if environment else written.lower(), known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable is one of those Kubernetes sets for a Service whose name starts with `consumer`."""
    if "__" in name:
        return False
    if _SERVICE_HOST.fullmatch(name) or _SERVICE_LINK_PART.fullmatch(name):
        return True
    if _SERVICE_PORT.fullmatch(name):
        return value.isdigit()
    return _SERVICE_LINK.fullmatch(name) is not None and _LINK_VALUE.fullmatch(value) is not None


def _generic(key: Key) -> Key:
    if key[:1] != ("sources",) or len(key) == 1:
        return key
    rest = key[2:]
    return (
        ("sources", ANY, "options", ANY, *rest[2:]) if rest[:1] == ("options",) and rest[1:] else (key[0], ANY, *rest)
    )


def _placeholder(key: Key, index: int) -> str:
    if key[index] != ANY:
        return key[index]
    return "<name>" if index == 1 else "<option>"


def _guessed_source(written: str, *, environment: bool) -> list[str]:
    parts = written.removeprefix(PREFIX).split("__") if environment else written.split(".")
    return [parts[1].lower()] if len(parts) > 2 and parts[0].lower().startswith("source") else []  # noqa: PLR2004  # a source's settings have three parts


def _walk(model: type[BaseModel], prefix: Key) -> Iterator[Leaf]:
    for name, field in model.model_fields.items():
        key = (*prefix, name)
        below = _below(key, field)
        if below is not None:
            yield from _walk(*below)
        elif not field.exclude:
            key = (*key, ANY) if name == "options" else key
            expected = _expected(field)
            yield Leaf(key, expected, _default(key, field, expected), field.description or "")


def _below(key: Key, field: FieldInfo) -> tuple[type[BaseModel], Key] | None:
    if key == ("sources",):
        return SourceSettings, ("sources", ANY)
    if key == ("sources", ANY, "signature"):
        # Sahha's are some of Thrive's; the models refuse the others for a Sahha source.
        return ThriveSignatureSettings, key
    nested = field.annotation
    return (nested, key) if isinstance(nested, type) and issubclass(nested, BaseModel) else None


def _expected(field: FieldInfo) -> Expected:
    for item in field.metadata:
        if isinstance(item, Expected):
            return item
    if get_origin(field.annotation) is Literal:
        words = [str(word) for word in get_args(field.annotation)]
        return Expected(", ".join(words), " or ".join(words))
    if field.annotation is bool or bool in get_args(field.annotation):
        return Expected("true/false", "true or false", lambda value: str(value).lower())
    return Expected("text", "text")


def _default(key: Key, field: FieldInfo, expected: Expected) -> str:
    if field.is_required():
        return "(required)"
    if key[0] == "sources" and key[2] in INHERITED:
        return "(the one for all sources)"
    if key[0] == "sources" and key[2] == "signature":
        return "(the provider's)"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return expected.empty
    return expected.show(value) if value not in ([], {}) else ""
