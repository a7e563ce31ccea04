"""Names and globs of event types: which class a name means, and whether that is always decided."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from itertools import combinations
from typing import Generic, TypeVar

from consumer.errors import SettingsError

__all__ = ["PatternTable", "overlap"]

C = TypeVar("C", bound=type)

_REMEMBERED = 1024
_LONGEST = 200
"""Characters of a name worth remembering."""


def _is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _compiled(glob: str) -> re.Pattern[str]:
    # Brackets mean themselves here. `translate` makes no expression that could run away on a hostile name.
    return re.compile(translate(glob.replace("[", "[[]")))


def overlap(one: str, other: str) -> bool:
    """Whether some name matches both globs; `*` and `?` are special, everything else means itself."""
    # row[j]: one[i:] and other[j:] can match the same text. Filled from the ends of both.
    row = [False] * (len(other) + 1)
    for i in range(len(one), -1, -1):
        below, row = row, [False] * (len(other) + 1)
        for j in range(len(other), -1, -1):
            mine, theirs = one[i : i + 1], other[j : j + 1]
            if not mine and not theirs:
                row[j] = True
            elif mine == "*":
                row[j] = below[j] or (bool(theirs) and row[j + 1])
            elif theirs == "*":
                row[j] = row[j + 1] or (bool(mine) and below[j])
            elif mine and theirs and (mine == theirs or "?" in (mine, theirs)):
                row[j] = below[j + 1]
    return row[0]


class PatternTable(Generic[C]):
    """Finds the class an event type means: an exact name beats a glob, a longer glob beats a shorter one.

    Raises `SettingsError` when two classes claim the same pattern, or when two globs of the same length could match
    the same name: nothing would decide between their classes.
    """

    def __init__(self, patterns: Mapping[C, Iterable[str]]) -> None:
        owners: dict[str, C] = {}
        for cls, theirs in patterns.items():
            for pattern in theirs:
                if not pattern:
                    raise SettingsError(f"{cls.__name__} has an empty event type pattern")
                owner = owners.setdefault(pattern, cls)
                if owner is not cls:
                    raise SettingsError(f"event type pattern '{pattern}' is claimed by {_both(owner, cls)}")
        globs = {pattern: cls for pattern, cls in owners.items() if _is_glob(pattern)}
        _refuse_ties(globs)
        self._exact = {pattern: cls for pattern, cls in owners.items() if not _is_glob(pattern)}
        self._globs = [(_compiled(glob), globs[glob]) for glob in sorted(globs, key=len, reverse=True)]
        self._seen: dict[str, C | None] = {}

    def find(self, name: str) -> C | None:
        """The class `name` means, or None."""
        found = self._exact.get(name)
        if found is not None:
            return found
        try:
            return self._seen[name]
        except KeyError:
            return self._search(name)

    def _search(self, name: str) -> C | None:
        found = next((cls for glob, cls in self._globs if glob.match(name)), None)
        # Names come from outside: without bounds they could fill the memory.
        if len(name) <= _LONGEST:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[name] = found
        return found


def _refuse_ties(globs: Mapping[str, C]) -> None:
    for (one, mine), (other, theirs) in combinations(globs.items(), 2):
        if mine is not theirs and len(one) == len(other) and overlap(one, other):
            raise SettingsError(
                f"event type patterns '{one}' ({mine.__name__}) and '{other}' ({theirs.__name__}) are equally long "
                "and can match the same name: make one of them longer, or exact"
            )


def _both(one: type, other: type) -> str:
    if one.__name__ != other.__name__:
        return f"{one.__name__} and {other.__name__}"
    return f"{one.__module__}.{one.__qualname__} and {other.__module__}.{other.__qualname__}"
