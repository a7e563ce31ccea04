"""Finding a member's id in bytes that nobody could read as an event: unsigned, damaged, of an unknown shape.

What can be read as JSON is looked through value by value, texts that hold JSON or, in `body_b64`, base64 of it
included. In other bytes the id is looked for as a JSON text, however it may be escaped. Pure.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

__all__ = ["mentions"]

_DEEPEST: Final = 6
"""How often a text that holds a message is opened; a message proper takes three."""
_UNMISTAKABLE: Final = 12
"""Characters from which an id counts where no quotes are around it: a shorter one may be part of anything."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_ESCAPED: Final = re.compile(r"(?<!\\)\\+u([0-9A-Fa-f]{4})")
"""From the first backslash of a row: from each, a million of them would take hours."""
_MALFORMED: Final = (ValueError, RecursionError, MemoryError)


def mentions(
    data: bytes,
    ids: Iterable[str],
    *,
    number_fields: Iterable[str] = (),
    only_in: Iterable[str] | None = None,
    not_in: Iterable[str] = (),
) -> bool:
    """Whether any of these ids stands in the bytes as a value of its own.

    An id may stand as a number too, but only in a member named by one of `number_fields`. Longer texts that merely
    have an id in them do not count where the bytes can be read, so "4" does not find "42", nor "item 4".

    Where the bytes can be read, values of members named in `not_in` do not count, and with `only_in` none do but those
    of members named there; then what cannot be read has none.
    """
    only = None if only_in is None else frozenset(only_in)
    return _Search(frozenset(ids), frozenset(number_fields), only, frozenset(not_in)).in_bytes(data, 0)


class _Search:
    def __init__(
        self, ids: frozenset[str], number_fields: frozenset[str], only: frozenset[str] | None, never: frozenset[str]
    ) -> None:
        self._ids = ids
        self._number_fields = number_fields
        self._only = only
        self._never = never

    def in_bytes(self, data: bytes, depth: int) -> bool:
        try:
            # strict=False: control characters in a text make a message unreadable, but not an id.
            value = json.loads(data, object_pairs_hook=_Pairs, strict=False)
        except _MALFORMED:
            return self._only is None and self._in_wreck(data.decode(errors="replace"), depth)
        return self._in_value(value, depth)

    def _in_value(self, value: Any, depth: int) -> bool:
        left: list[tuple[str, Any]] = [("", value)]
        while left:
            name, one = left.pop()
            if isinstance(one, _Pairs):
                left.extend((key, inner) for key, inner in one)
                if self._only is None and any(key in self._ids for key, _ in one):
                    return True
            elif isinstance(one, list):
                left.extend((name, inner) for inner in one)
            elif isinstance(one, str):
                if self._in_text(name, one, depth):
                    return True
            elif name in self._number_fields and _is_number(one) and self._counts(name) and str(one) in self._ids:
                return True
        return False

    def _counts(self, name: str) -> bool:
        """Whether the value of a member of this name may be an id."""
        return name not in self._never and (self._only is None or name in self._only)

    def _in_text(self, name: str, text: str, depth: int) -> bool:
        if text in self._ids and self._counts(name):
            return True
        if depth == _DEEPEST:
            return False
        if name == "body_b64":
            return any(self.in_bytes(data, depth + 1) for data in _decoded(text))
        if text.lstrip()[:1] in ("{", "["):
            return self.in_bytes(text.encode(errors="surrogatepass"), depth + 1)
        return False

    def _in_wreck(self, text: str, depth: int) -> bool:
        plain = _unescaped(text)
        # As it is, and as JSON writes it: a line end is an n there.
        for bare in {_unescaped(form) for own in self._ids for form in (own, json.dumps(own)[1:-1])}:
            if f'"{bare}"' in plain:
                return True
            if len(bare) >= _UNMISTAKABLE and re.search(rf"(?<![\w-]){re.escape(bare)}(?![\w-])", plain):
                return True
        if depth == _DEEPEST:
            return False
        return any(self.in_bytes(data, depth + 1) for part in _BASE64.findall(text) for data in _decoded(part))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with every member, also those whose name occurs twice."""


def _is_number(value: Any) -> bool:
    """Not so null and true, which are no ids though somebody's may be "None"."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _decoded(text: str) -> Iterator[bytes]:
    """What base64 stands for, as far as it goes: its end may be missing."""
    whole = len(text.rstrip("=")) // 4 * 4
    for candidate in (text, text[:whole]):
        try:
            yield binascii.a2b_base64(candidate)
        except ValueError:
            continue
        return


def _unescaped(text: str) -> str:
    r"""The text without a backslash: \u0041 at any depth of escaping is an A, and \" is ".

    A pair of surrogates comes out as the one character it stands for.
    """
    flat = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text).replace("\\", "")
    return flat.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
