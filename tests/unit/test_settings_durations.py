"""Durations and sizes, as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.durations import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        (" 30s ", 30.0),
        ("15m", 900.0),
        ("72h", 259_200.0),
        ("90d", 7_776_000.0),
        ("2w", 1_209_600.0),
        ("250ms", 0.25),
        ("1h30m", 5400.0),
        ("1h 30m 5s 20ms", 5405.02),
        ("1.5h", 5400.0),
        ("PT15M", 900.0),
        ("P90D", 7_776_000.0),
        ("P1DT2H3M4.5S", 93_784.5),
        ("PT0,5S", 0.5),
        (30, 30.0),
        (0.25, 0.25),
        (0, 0.0),
    ],
)
def test_duration_is_read_into_seconds(text: object, seconds: float) -> None:
    """Every way of writing a duration means the same seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "-1", "-5s", "nan", "inf", "1e3", "1_000", "9" * 60, "10x", "\u0661\u0660s"),
        *("1m1h", "1m1m", "1h30", "P", "PT", "P1DT", "P1Y", "P1M"),
        *(True, None, -1, -0.1, float("nan"), float("inf"), [], 10**400),
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """Anything else is refused, in a text that does not repeat it."""
    with pytest.raises(ValueError, match="expected a duration such as") as caught:
        parse_duration(text)
    assert "\n" not in str(caught.value)


@given(
    st.floats(min_value=1e-9, max_value=3e9) | st.integers(0, 3 * 10**9) | st.integers(0, 10**6).map(lambda n: n / 1000)
)
def test_written_durations_read_back(seconds: float) -> None:
    """What `format_duration` writes, `parse_duration` reads as exactly the same number."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(max_size=70) | st.from_regex(r"[0-9.PTHMSDWhmsdw ]{0,20}", fullmatch=True))
def test_any_text_is_read_or_refused_as_duration(text: str) -> None:
    """No text at all makes another exception than ValueError, or a number below 0."""
    with suppress(ValueError):
        assert parse_duration(text) >= 0


@pytest.mark.parametrize(("seconds", "text"), [(259_200, "72h"), (7_776_000, "90d"), (1.5, "1s500ms"), (0, "0s")])
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    """The unit is the one the platforms' documents use."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        (" 64MiB ", 64 * 1024**2),
        ("1MB", 10**6),
        ("1 GiB", 1024**3),
        ("1.5kib", 1536),
        ("2kB", 2000),
        ("7b", 7),
        (5, 5),
        (0, 0),
    ],
)
def test_size_is_read_into_bytes(text: object, size: int) -> None:
    """Units in thousands and in 1024s are told apart; letter case does not matter."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "64M", "-1", "1.5", "0.3kB1", "nan", True, None, -1, 1.5, "1 PiB", "9" * 40, "MiB"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    """A bare M could mean two things, and half a byte does not exist."""
    with pytest.raises(ValueError, match="expected a size such as"):
        parse_size(text)


@given(st.integers(0, 2**60))
def test_written_sizes_read_back(size: int) -> None:
    """What `format_size` writes, `parse_size` reads as the same number."""
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=70))
def test_any_text_is_read_or_refused_as_size(text: str) -> None:
    """No text at all makes another exception than ValueError."""
    with suppress(ValueError):
        assert parse_size(text) >= 0
