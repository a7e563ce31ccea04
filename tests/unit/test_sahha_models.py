"""Sahha's resources: both shapes of a score, values read by their type, nothing refused that may appear."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from pprint import pformat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.pretty import pretty_repr

from consumer.models import sahha_names
from consumer.models.sahha import (
    Archetype,
    Biomarker,
    Comparison,
    DataLogEntry,
    DataLogItem,
    Demographic,
    DeviceInformation,
    Profile,
    ProfilePage,
    SahhaAccountToken,
    SahhaModel,
    SahhaProfileToken,
    Score,
    Trend,
)
from consumer.models.sahha_values import decode_value

SAMPLES = Path(__file__).parent.parent / "samples" / "sahha"
CANARY = "canary-4711"

KIWI = timezone(timedelta(hours=12))


def sample(name: str) -> dict[str, Any]:
    body = json.loads((SAMPLES / f"{name}.json").read_text())
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize(
    ("value_type", "raw", "value"),
    [
        ("integer", "10000", 10000),
        ("integer", "-3", -3),
        ("integer", 384, 384),
        ("integer", "384.0", 384),
        ("Integer", "7", 7),
        ("double", "0.972", 0.972),
        ("double", "1e3", 1000.0),
        ("double", 5, 5.0),
        ("datetime", "2025-07-10T22:00+12:00", datetime(2025, 7, 10, 22, tzinfo=KIWI)),
        ("datetime", "2025-07-10T22:00:01.5Z", datetime(2025, 7, 10, 22, 0, 1, 500_000, UTC)),
        ("datetime", "2025-07-10T22:00", datetime(2025, 7, 10, 22, tzinfo=UTC)),
    ],
)
def test_value_by_type(value_type: str, raw: Any, value: Any) -> None:
    """A value is read as its type says; a time may lack seconds, and is UTC without an offset."""
    decoded = decode_value(value_type, raw)
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    ("value_type", "raw"),
    [
        ("integer", "0.5"),
        ("integer", "many"),
        ("integer", "1_000"),
        ("integer", "٣"),
        ("integer", str(2**63)),
        ("integer", True),
        ("integer", None),
        ("double", "NaN"),
        ("double", "1e999"),
        ("double", 10**400),
        ("datetime", "2025-13-40T22:00Z"),
        ("datetime", "20250710"),
        ("datetime", 1752100000),
        ("colour", "red"),
        (None, "10000"),
    ],
)
def test_value_that_is_not_its_type(value_type: str | None, raw: Any) -> None:
    """What cannot be read as its type says, or has a type nobody knows, is given back as it came."""
    assert decode_value(value_type, raw) is raw


@given(
    st.one_of(st.none(), st.sampled_from(["integer", "double", "datetime"]), st.text(max_size=10)),
    st.one_of(st.none(), st.text(max_size=60), st.integers(), st.floats(), st.from_regex(r"\d{4}-\d\d-\d\dT\S{0,12}")),
)
@settings(max_examples=50, deadline=None)
def test_decoding_never_raises(value_type: str | None, raw: Any) -> None:
    """Whatever is decoded is what the type says, or the very value that came."""
    value = decode_value(value_type, raw)
    assert value is raw or isinstance(value, (int, float, datetime))


def test_score_shapes() -> None:
    """A score is read from either shape, and never rescaled."""
    observed = Score.model_validate(sample("score-created"))
    assert (observed.type, observed.state, observed.score) == ("sleep", "medium", 0.7400000095367432)
    assert observed.factors[0].name == "sleep_duration"
    assert observed.data_sources == ("age", "sleep", "activity")
    documented = Score.model_validate(
        {"type": "sleep", "value": 72.5, "state": "high", "createdAt": "2025-01-22T06:30:00Z", "factors": []}
    )
    assert documented.score == 72.5
    assert documented.created_at_utc == datetime(2025, 1, 22, 6, 30, tzinfo=UTC)
    both = Score.model_validate({"score": 0.5, "value": 50, "createdAtUtc": "2025-01-22T06:30:00Z"})
    assert both.score == 0.5
    assert both.model_extra == {"value": 50}


def test_biomarker() -> None:
    """A biomarker's value is decoded, and kept as it came."""
    biomarker = Biomarker.model_validate(sample("biomarker-created"))
    assert biomarker.raw_value == "2026-03-14T23:08+13:00"
    assert biomarker.value == datetime(2026, 3, 14, 23, 8, tzinfo=timezone(timedelta(hours=13)))
    assert biomarker.model_dump(by_alias=True)["value"] == "2026-03-14T23:08+13:00"
    assert Biomarker(raw_value=384, value_type="integer").value == 384


def test_archetype() -> None:
    """An archetype is read, and what its class does not know is kept."""
    archetype = Archetype.model_validate({**sample("archetype-created"), "new": [1]})
    assert (archetype.name, archetype.value, archetype.ordinality) == ("sleep_pattern", "inconsistent_late_sleeper", 0)
    assert archetype.model_extra is not None
    assert archetype.model_extra["new"] == [1]


def test_data_log_entries() -> None:
    """Both spellings of a recording method mean the same; a value written as text is a number."""
    entries = [DataLogEntry.model_validate(entry) for entry in sample("data-log-received")["dataLogs"]]
    assert {entry.recording_method for entry in entries} == {"automatically_recorded"}
    assert {entry.raw_recording_method for entry in entries} == {
        "RECORDING_METHOD_AUTOMATICALLY_RECORDED",
        "automatically_recorded",
    }
    assert (entries[0].value, entries[0].parent_id, entries[0].additional_properties) == (47.5, "", None)
    assert DataLogEntry.model_validate({"value": "12.5"}).value == 12.5
    assert DataLogEntry().recording_method is None
    with pytest.raises(ValidationError):
        DataLogEntry.model_validate({"value": "much"})


def test_insights() -> None:
    """Trends and comparisons are read, with null for what does not apply."""
    trend = Trend.model_validate(
        {
            "category": "score",
            "name": "sleep",
            "state": "increasing",
            "isHigherBetter": True,
            "periodicity": "weekly",
            "trendStartDateTime": "2025-06-01T00:00:00+12:00",
            "data": [{"startDateTime": "2025-06-01", "value": 0.5, "percentChangeFromPrevious": None}],
        }
    )
    assert trend.trend_start_date_time == datetime(2025, 6, 1, tzinfo=KIWI)
    assert trend.data[0].percent_change_from_previous is None
    comparison = Comparison.model_validate(
        {
            "category": "biomarker",
            "name": "steps",
            "value": 8000,
            "data": [{"type": "baseline", "percentile": None, "percentageDifference": -0.1, "state": "low"}],
        }
    )
    assert comparison.data[0].percentage_difference == -0.1


def test_profiles() -> None:
    """A page of profiles, a member's facts, and a device are read."""
    page = ProfilePage.model_validate(
        {"items": [{"profileId": "p", "externalId": "u", "sdkId": None, "isSampleProfile": False}], "totalPages": 1}
    )
    assert page.items[0] == Profile(profile_id="p", external_id="u", sdk_id=None, is_sample_profile=False)
    demographic = Demographic.model_validate({"age": 41, "gender": "male", "birthDate": "1990-01-01T00:00:00"})
    assert demographic.birth_date == date(1990, 1, 1)
    device = DeviceInformation.model_validate({"sdkId": "new_sdk", "timeZone": "+12:00"})
    assert (device.sdk_id, device.time_zone) == ("new_sdk", "+12:00")


def test_tokens() -> None:
    """A token's lifetime may be text, the refresh token missing; what no header can carry is no token."""
    token = SahhaProfileToken.model_validate({"profileToken": "a.b.c", "expiresIn": "86400"})
    assert (token.profile_token, token.expires_in, token.refresh_token) == ("a.b.c", 86400, None)
    for text in ("", "a\r\nAuthorization: x", "a b", "é"):
        with pytest.raises(ValidationError):
            SahhaAccountToken.model_validate({"accountToken": text})


@pytest.mark.parametrize(
    "model",
    [
        SahhaAccountToken.model_validate({"accountToken": CANARY}),
        SahhaProfileToken.model_validate({"profileToken": CANARY, "refreshToken": CANARY}),
        Score.model_validate({"state": CANARY, "factors": [{"name": CANARY}], "unheard": CANARY}),
        Demographic(occupation=CANARY),
        DataLogItem(
            id=CANARY, log_type="a", data_type="b", start_date_time=datetime.now(UTC), end_date_time=datetime.now(UTC)
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_silent(model: SahhaModel) -> None:
    """No token and no health shows in what is printed."""
    assert CANARY not in repr(model) + str(model) + pformat(model) + pretty_repr(model)


def test_errors_are_silent() -> None:
    """A model's complaint names the field, not its value."""
    with pytest.raises(ValidationError) as caught:
        Score.model_validate({"score": CANARY, "factors": [{"goal": CANARY}]})
    assert "score" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_data_log_item_times() -> None:
    """An upload's times keep their offset; text without one is UTC, a datetime without one is refused."""
    item = DataLogItem.model_validate(
        {
            "id": "1",
            "logType": "sleep",
            "dataType": "sleep_stage_deep",
            "startDateTime": "2025-09-15T09:00:02.52+10:00",
            "endDateTime": "2025-09-15T09:30",
        }
    )
    assert item.start_date_time.utcoffset() == timedelta(hours=10)
    assert item.end_date_time == datetime(2025, 9, 15, 9, 30, tzinfo=UTC)
    with pytest.raises(ValidationError, match="offset"):
        DataLogItem.model_validate({**item.model_dump(), "start_date_time": datetime(2025, 9, 15)})  # noqa: DTZ001


def test_known_names() -> None:
    """The lists of known names are whole: what other parts and the documentation count on is in them."""
    assert sahha_names.SCORE_TYPES == ("wellbeing", "activity", "sleep", "readiness", "mental_wellbeing")
    assert set(sahha_names.SCORE_FACTORS) == set(sahha_names.SCORE_TYPES)
    assert len(sahha_names.BIOMARKER_CATEGORIES) == 9
    assert {"steps", "floors_climbed"} <= set(sahha_names.BIOMARKER_TYPES["activity"])
    assert all(len(values) == 4 for values in sahha_names.ARCHETYPE_VALUES.values())
    assert len(set(sahha_names.ARCHETYPE_NAMES)) == 14
