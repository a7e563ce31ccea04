"""The two parts of an envelope's form that settings describe in words: what is signed, and where each field stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, cast

from consumer.envelope import Opening
from consumer.errors import SettingsError

__all__ = ["DEFAULT_FIELDS", "DEFAULT_TEMPLATE", "Layout", "Path", "Template"]

DEFAULT_TEMPLATE: Final = "{signed_at}.{body}"
DEFAULT_FIELDS: Final = {"signed_at": "signed_at", "body": "body", "signature": "signature"}
"""Where the fields of an envelope stand unless settings say otherwise."""

Path = tuple[str, ...]
"""Names from the envelope inwards."""

_placeholder: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Template:
    """The text that is signed, as a template with `{body}` once and `{signed_at}` at most once.

    Both are replaced in one pass, so a placeholder inside a value is plain text. Braces around anything that is no
    name stand for themselves. Raises `SettingsError` for a template that cannot be meant.
    """

    __slots__ = ("_body_first", "_format", "signs_time", "text")

    def __init__(self, text: str) -> None:
        names = _placeholder.findall(text)
        if names.count("body") != 1 or names.count("signed_at") > 1 or len(names) > 1 + names.count("signed_at"):
            raise SettingsError("signature template: expected {body} once, {signed_at} at most once, and no other name")
        self.text = text
        self.signs_time = "signed_at" in names
        self._body_first = names[0] == "body"
        try:
            self._format = _placeholder.sub("%b", text.replace("%", "%%")).encode()
        except UnicodeEncodeError:
            self._format = b""
        if not self._format:
            raise SettingsError("signature template: expected text that can be written as UTF-8")

    def fill(self, signed_at: bytes, body: bytes) -> bytes:
        """The signed text."""
        if not self.signs_time:
            return self._format % body
        return self._format % ((body, signed_at) if self._body_first else (signed_at, body))


class Layout:
    """Where the fields of an envelope stand, by dotted paths over `DEFAULT_FIELDS`; `key_id` only if it is given.

    Raises `SettingsError` for an unknown field, an empty name, or two fields of which one stands inside the other.
    """

    __slots__ = ("heads", "opening", "paths")

    def __init__(self, fields: Mapping[str, str]) -> None:
        known = (*DEFAULT_FIELDS, "key_id")
        for field, path in fields.items():
            if field not in known:
                raise SettingsError(f"signature fields: expected some of {', '.join(known)}")
            if not all(path.split(".")):
                raise SettingsError(f"signature fields: {field} is a name, or names with dots between")
        self.paths: dict[str, Path] = {
            name: tuple(path.split(".")) for name, path in {**DEFAULT_FIELDS, **fields}.items()
        }
        _refuse_overlap(self.paths)
        self.heads = frozenset(self.paths[name][0] for name in DEFAULT_FIELDS)
        """Names in the envelope itself that belong to a field, or to the objects around one."""
        self.opening = _opening(self.paths)
        """Which objects must be read member by member to find every field, and to see repeated names in the body."""

    def write(self, values: Mapping[str, str]) -> str:
        """An envelope as text, from JSON text for each field."""
        root: dict[str, object] = {}
        for name, text in values.items():
            *inner, last = self.paths[name]
            here = root
            for part in inner:
                here = cast("dict[str, object]", here.setdefault(part, {}))
            here[last] = text
        return _written(root)


def _refuse_overlap(paths: Mapping[str, Path]) -> None:
    for name, path in paths.items():
        for other, longer in paths.items():
            if name != other and longer[: len(path)] == path:
                raise SettingsError(f"signature fields: {other} may not stand where {name} does, or inside it")


def _opening(paths: Mapping[str, Path]) -> Opening:
    root: dict[str, Opening] = {}
    for name, path in paths.items():
        here = root
        for part in path if name == "body" else path[:-1]:
            here = cast("dict[str, Opening]", here.setdefault(part, {}))
    return root


def _written(node: object) -> str:
    if isinstance(node, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(inner)}" for name, inner in node.items()) + "}"
    return str(node)
