"""Which class a name means: precedence, and ties that are refused."""

from __future__ import annotations

import re
import tracemalloc
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.events.patterns import PatternTable, overlap


class One: ...


class Two: ...


class Three: ...


def test_precedence() -> None:
    """An exact name beats every glob, and a longer glob beats a shorter one."""
    table = PatternTable({One: ["lab.*", "lab.result.ready"], Two: ["lab.result.*"], Three: ["*"]})
    assert table.find("lab.result.ready") is One
    assert table.find("lab.result.done") is Two
    assert table.find("lab.x") is One
    assert table.find("else") is Three
    assert table.find("else") is Three


def test_long_names_are_not_remembered() -> None:
    """Names come from outside: a thousand of a megabyte each do not stay in memory, and are found all the same."""
    table = PatternTable({One: ["lab.*"]})
    tracemalloc.start()
    try:
        for number in range(200):
            assert table.find(f"lab.{number}{'x' * 100_000}") is One
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000


def test_only_stars_and_question_marks_are_special() -> None:
    """Brackets, dots and case mean themselves; a star spans anything, line breaks included."""
    table = PatternTable({One: ["a[bc].*"], Two: ["x?z"]})
    assert table.find("a[bc].1\n2") is One
    assert table.find("ab.1") is None
    assert table.find("a[bc]x1") is None
    assert table.find("A[BC].1") is None
    assert table.find("xyz") is Two
    assert table.find("xz") is None


@pytest.mark.parametrize(
    ("first", "second"), [("lab", "lab"), ("lab.*", "lab.*"), ("lab.*", "*.lab"), ("a?c*", "*b?d"), ("????", "ab**")]
)
def test_ties_fail_at_start(first: str, second: str) -> None:
    """Two classes with the same pattern, or equally long globs that could match one name, are refused with both."""
    with pytest.raises(SettingsError) as caught:
        PatternTable({One: [first], Two: [second]})
    for part in ("One", "Two", f"'{first}'", f"'{second}'"):
        assert part in str(caught.value)


def test_no_tie() -> None:
    """One class may repeat itself, and equally long globs that never meet are fine."""
    table = PatternTable({One: ["lab.*", "lab.*", "?ab.*"], Two: ["day.*"], Three: ["lab"]})
    assert table.find("day.1") is Two


def test_namesakes_are_told_apart() -> None:
    """Two classes of the same name are named in full."""
    with pytest.raises(SettingsError, match=r"test_events_patterns.*One.* and .*<locals>.One"):
        PatternTable({One: ["x"], _other_one(): ["x"]})


def _other_one() -> type:
    class One: ...

    return One


def test_memory_of_names_is_bounded() -> None:
    """Names come from outside; looking up ever new ones does not grow the table without limit."""
    table = PatternTable({One: ["lab.*"]})
    for number in range(5000):
        assert table.find(f"lab.{number}") is One
        assert table.find(f"no.{number}") is None
    assert len(table._seen) <= 1024


def test_hostile_names_are_cheap() -> None:
    """A long name against a glob of many stars is decided at once."""
    table = PatternTable({One: ["*a*a*a*a*a*a*b"]})
    assert table.find("a" * 20_000) is None


GLOBS = st.text("ab*?", max_size=5)


def _matches(glob: str, text: str) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(c, c) for c in glob)
    return re.fullmatch(expression, text) is not None


@given(GLOBS, GLOBS)
def test_overlap_is_exact(one: str, other: str) -> None:
    """Two globs overlap exactly when a name exists that both match."""
    longest = len(one) + len(other)
    names = ("".join(letters) for n in range(min(longest, 7) + 1) for letters in product("abc", repeat=n))
    assert overlap(one, other) == any(_matches(one, name) and _matches(other, name) for name in names)
    assert overlap(one, other) == overlap(other, one)
