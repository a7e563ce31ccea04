"""Trends and comparisons, worked out from a profile's own scores and biomarkers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any, Final

from consumer.testing.synthetic_sahha import name_id

__all__ = ["comparisons", "trends"]

_LOWER_IS_BETTER: Final = frozenset(
    {"sleep_debt", "sleep_continuity", "circadian_alignment", "resting_heart_rate", "heart_rate_resting"}
)
_STEADY: Final = 0.02  # a smaller change, as a fraction, counts as none
_LIMITS: Final = ((-0.3, "very_low"), (-0.1, "low"), (0.1, "average"), (0.3, "high"))
_ORDINARY: Final[Mapping[str, tuple[float, float]]] = {  # invented: a whole population's value, and a likely peer's
    "steps": (7_000, 8_000),
    "sleep_duration": (415, 425),
    "heart_rate_resting": (62, 60),
    "heart_rate_variability_rmssd": (42, 48),
    "vo2_max": (36, 40),
}
_ORDINARY_SCORE: Final = (0.62, 0.66)


def trends(scores: Iterable[dict[str, Any]], whose: str) -> list[dict[str, Any]]:
    """The weekly trends of scores and of their factors, of the profile whose id is `whose`."""
    series: dict[tuple[str, str, str], dict[datetime, float]] = {}
    for score in scores:
        day = datetime.fromisoformat(score["scoreDateTime"])
        if score["score"] is not None:
            series.setdefault(("score", score["type"], "index"), {})[day] = score["score"]
        for factor in score["factors"]:
            series.setdefault(("factor", factor["name"], factor["unit"]), {})[day] = factor["value"]
    return [_trend(whose, *about, values) for about, values in series.items()]


def _trend(whose: str, category: str, name: str, unit: str, values: Mapping[datetime, float]) -> dict[str, Any]:
    weeks = list(_weeks(values))
    data: list[dict[str, Any]] = []
    for start, value in weeks:
        before = data[-1]["value"] if data else None
        data.append(
            {
                "startDateTime": start.isoformat(),
                "endDateTime": (start + timedelta(days=7, seconds=-1)).isoformat(),
                "value": value,
                "percentChangeFromPrevious": None if not before else round((value - before) / before, 4),
            }
        )
    last = data[-1]["percentChangeFromPrevious"] or 0
    return {
        "id": name_id("trend", whose, category, name, data[0]["startDateTime"]),
        "type": "trend",
        "category": category,
        "name": name,
        "state": "stable" if abs(last) < _STEADY else "increasing" if last > 0 else "decreasing",
        "isHigherBetter": name not in _LOWER_IS_BETTER,
        "unit": unit,
        "periodicity": "weekly",
        "trendStartDateTime": data[0]["startDateTime"],
        "trendEndDateTime": data[-1]["endDateTime"],
        "data": data,
    }


def _weeks(values: Mapping[datetime, float]) -> Iterator[tuple[datetime, float]]:
    weeks: dict[datetime, list[float]] = {}
    for day, value in sorted(values.items()):
        weeks.setdefault(day - timedelta(days=day.weekday()), []).append(value)
    for start, week in weeks.items():
        yield start, round(fmean(week), 4)


def comparisons(
    scores: Iterable[dict[str, Any]], biomarkers: Iterable[dict[str, Any]], whose: str
) -> list[dict[str, Any]]:
    """The last value of each comparable metric beside everybody's, beside people alike, and beside the own past."""
    rows: dict[tuple[str, str], list[tuple[str, float, str, tuple[float, float]]]] = {}
    for score in scores:
        if score["score"] is not None:
            row = (score["scoreDateTime"], score["score"], "index", _ORDINARY_SCORE)
            rows.setdefault(("score", score["type"]), []).append(row)
    for marker in biomarkers:
        if marker["type"] in _ORDINARY and marker["periodicity"] == "daily":
            row = (marker["startDateTime"], float(marker["value"]), marker["unit"], _ORDINARY[marker["type"]])
            rows.setdefault(("biomarker", marker["type"]), []).append(row)
    return [_comparison(whose, *about, sorted(values)) for about, values in rows.items()]


def _comparison(
    whose: str, category: str, name: str, rows: list[tuple[str, float, str, tuple[float, float]]]
) -> dict[str, Any]:
    start, value, unit, (everybody, alike) = rows[-1]
    own = fmean(row[1] for row in rows)
    end = datetime.fromisoformat(start) + timedelta(days=1, seconds=-1)
    return {
        "id": name_id("comparison", whose, category, name, start),
        "type": "comparison",
        "category": category,
        "name": name,
        "value": value,
        "unit": unit,
        "isHigherBetter": name not in _LOWER_IS_BETTER,
        "periodicity": "daily",
        "startDateTime": start,
        "endDateTime": end.isoformat(),
        "data": [
            _beside("global", value, everybody),
            {**_beside("demographic", value, alike), "properties": {}},
            {**_beside("baseline", value, own), "percentile": None},
        ],
    }


def _beside(kind: str, value: float, other: float) -> dict[str, Any]:
    share = (value - other) / other if other else 0.0
    return {
        "type": kind,
        "value": round(other, 4),
        "percentile": round(min(99.0, max(1.0, 50 + 100 * share))),
        "difference": round(value - other, 4),
        "percentageDifference": round(share, 4),
        "state": next((state for limit, state in _LIMITS if share < limit), "very_high"),
    }
