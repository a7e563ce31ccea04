"""Invented results and data logs of Sahha's, as its webhooks carry them, for samples, the sandbox and load tests.

Everything is drawn from the `Random` handed in: the same seed gives the same data. Ids are UUIDv5 over what the thing
is about, as Sahha's are, so a result computed again keeps its id and changes only its values and `createdAtUtc`.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from random import Random
from typing import Any, Final, NamedTuple

from consumer.testing.synthetic import identifier, moment

__all__ = [
    "ARCHETYPES",
    "BIOMARKERS",
    "DATA_LOGS",
    "SCORE_FACTORS",
    "BiomarkerKind",
    "Person",
    "archetype",
    "biomarker",
    "data_log",
    "name_id",
    "person",
    "score",
    "state_of",
]

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "synthetic.example.org")
_ACCOUNT: Final = str(uuid.uuid5(_NAMESPACE, "account"))
_OFFSETS: Final = (-480, -300, 0, 60, 330, 600, 720, 780)  # minutes east of UTC
_MISSING_EVERY: Final = 50  # a score that could not be computed: both its value and its state are null

SCORE_FACTORS: Final[Mapping[str, tuple[str, ...]]] = {
    "activity": ("steps", "active_hours", "active_calories", "intense_activity_duration", "floors_climbed"),
    "sleep": ("sleep_duration", "sleep_regularity", "sleep_continuity", "sleep_debt", "mental_recovery"),
    "readiness": ("sleep_duration", "sleep_debt", "physical_recovery", "resting_heart_rate"),
    "wellbeing": ("steps", "active_hours", "sleep_duration", "sleep_regularity", "sleep_debt"),
    "mental_wellbeing": ("steps", "active_hours", "activity_regularity", "sleep_regularity", "circadian_alignment"),
}
"""The types of scores, with factors that explain them (a part of those Sahha names)."""

_FACTORS: Final[Mapping[str, tuple[str, float, float]]] = {  # unit, goal, a usual greatest value
    "steps": ("count", 10_000, 16_000),
    "active_hours": ("hour", 12, 16),
    "active_calories": ("kcal", 500, 900),
    "intense_activity_duration": ("minute", 30, 60),
    "floors_climbed": ("count", 10, 20),
    "sleep_duration": ("minute", 480, 560),
    "sleep_regularity": ("index", 90, 100),
    "sleep_continuity": ("count", 0, 5),
    "sleep_debt": ("hour", 0, 4),
    "mental_recovery": ("minute", 110, 150),
    "physical_recovery": ("minute", 90, 130),
    "resting_heart_rate": ("bpm", 55, 75),
    "activity_regularity": ("index", 90, 100),
    "circadian_alignment": ("hour", 0, 3),
}


class BiomarkerKind(NamedTuple):
    """One biomarker as Sahha may compute it; the numbers are the bounds of invented values."""

    category: str
    type: str
    unit: str
    value_type: str
    low: float
    high: float
    periodicity: str = "daily"
    aggregation: str = "total"


BIOMARKERS: Final = (
    BiomarkerKind("activity", "steps", "count", "integer", 900, 18_000),
    BiomarkerKind("activity", "steps", "count", "integer", 0, 2_400, "intraday"),
    BiomarkerKind("activity", "active_duration", "minute", "integer", 20, 240),
    BiomarkerKind("activity", "active_hours", "hour", "integer", 2, 15),
    BiomarkerKind("activity", "active_energy_burned", "kcal", "double", 90, 1_100),
    BiomarkerKind("activity", "activity_sedentary_duration", "minute", "integer", 300, 900),
    BiomarkerKind("sleep", "sleep_duration", "minute", "integer", 280, 560),
    BiomarkerKind("sleep", "sleep_in_bed_duration", "minute", "integer", 300, 600),
    BiomarkerKind("sleep", "sleep_debt", "hour", "double", 0, 4, "weekly"),
    BiomarkerKind("sleep", "sleep_regularity", "percentage", "double", 0.4, 1, "weekly", "average"),
    BiomarkerKind("sleep", "sleep_start_time", "datetime", "datetime", 21, 26, "daily", "none"),
    BiomarkerKind("sleep", "sleep_end_time", "datetime", "datetime", 29, 34, "daily", "none"),
    BiomarkerKind("vitals", "heart_rate_resting", "bpm", "integer", 47, 72, "daily", "average"),
    BiomarkerKind("vitals", "heart_rate_variability_rmssd", "ms", "double", 22, 95, "daily", "average"),
    BiomarkerKind("vitals", "vo2_max", "mL/kg/min", "double", 28, 55, "daily", "average"),
)
"""Biomarkers of three categories, in combinations of periodicity and aggregation that have been seen. The bounds of
times are hours after the midnight before the night."""

ARCHETYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "activity_level": ("sedentary", "lightly_active", "moderately_active", "highly_active"),
    "exercise_frequency": ("rare_exerciser", "occasional_exerciser", "regular_exerciser", "frequent_exerciser"),
    "overall_wellness": ("poor_wellness", "fair_wellness", "good_wellness", "optimal_wellness"),
    "sleep_duration": ("very_short_sleeper", "short_sleeper", "average_sleeper", "long_sleeper"),
    "sleep_regularity": ("highly_irregular_sleeper", "irregular_sleeper", "regular_sleeper", "highly_regular_sleeper"),
    "wake_schedule": ("very_early_riser", "early_riser", "late_riser", "very_late_riser"),
    "primary_exercise_type": ("strength_oriented", "cardio_oriented", "mind_body_oriented", "outdoor_oriented"),
    "sleep_pattern": ("consistent_early_riser", "inconsistent_late_sleeper", "chronic_short_sleeper"),
}
"""Archetypes with their values; those of `_CATEGORICAL` have no order."""

_CATEGORICAL: Final = ("primary_exercise_type", "sleep_pattern")

DATA_LOGS: Final = (
    ("activity", "steps", "count", 20, 900),
    ("activity", "floors_climbed", "count", 1, 6),
    ("sleep", "sleep_stage_deep", "minute", 6, 60),
    ("sleep", "sleep_stage_rem", "minute", 6, 50),
    ("sleep", "sleep_stage_light", "minute", 8, 90),
    ("heart", "heart_rate", "bpm", 48, 140),
    ("heart", "resting_heart_rate", "bpm", 45, 70),
    ("energy", "active_energy_burned", "kcal", 2, 80),
    ("oxygen", "oxygen_saturation", "percent", 93, 100),
)
"""Kinds of data logs: log type, data type, unit, and the bounds of invented values."""


class Person(NamedTuple):
    """Whose results these are. `offset` is the person's time zone, in minutes east of UTC."""

    profile_id: str
    account_id: str
    external_id: str
    offset: int

    @property
    def zone(self) -> timezone:
        """The person's time zone."""
        return timezone(timedelta(minutes=self.offset))

    def identity(self) -> dict[str, str]:
        """The fields by which a webhook's body names the person."""
        return {"profileId": self.profile_id, "accountId": self.account_id, "externalId": self.external_id}


def name_id(*parts: str) -> str:
    """The UUIDv5 of a thing that these texts name."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def person(random: Random, external_id: str | None = None) -> Person:
    """Somebody, under this external id or an invented one; all have the same account."""
    external_id = f"member-{random.randrange(1_000_000):06}" if external_id is None else external_id
    return Person(name_id("profile", external_id), _ACCOUNT, external_id, random.choice(_OFFSETS))


def state_of(value: float) -> str:
    """The state that goes with a score from 0 to 1 (the limits are our own)."""
    return "minimal" if value < 0.3 else "low" if value < 0.6 else "medium" if value < 0.8 else "high"  # noqa: PLR2004


def score(
    random: Random,
    who: Person | None = None,
    kind: str | None = None,
    *,
    day: date | None = None,
    created: datetime | None = None,
) -> dict[str, Any]:
    """A body of ScoreCreatedIntegrationEvent, about 1 KB: a day's score with its factors.

    `who`, `kind` (a type of `SCORE_FACTORS`), `day` and `created` are invented unless given.
    """
    who, created = who or person(random), created or _computed(random)
    kind = kind or random.choice(tuple(SCORE_FACTORS))
    start = _midnight(who, day, created)
    value = None if random.randrange(_MISSING_EVERY) == 0 else _noisy(random, round(random.betavariate(5, 2), 2))
    return {
        "id": name_id("score", who.profile_id, kind, start),
        **who.identity(),
        "type": kind,
        "state": None if value is None else state_of(value),
        "score": value,
        "factors": [] if value is None else [_factor(random, who, name, start) for name in SCORE_FACTORS[kind]],
        "dataSources": ["age", "sleep", "activity"] if kind != "activity" else ["age", "activity"],
        "scoreDateTime": start,
        "createdAtUtc": _created(random, created),
        "version": 1,
    }


def _factor(random: Random, who: Person, name: str, start: str) -> dict[str, Any]:
    unit, goal, most = _FACTORS[name]
    value = round(random.uniform(most / 10, most), 1 if most < 200 else None)  # noqa: PLR2004
    reached = round(random.uniform(0.2, 1), 2)
    return {
        "id": name if random.randrange(8) == 0 else name_id("factor", who.profile_id, name, start),
        "name": name,
        "value": value,
        "goal": goal,
        "score": _noisy(random, reached),
        "state": state_of(reached),
        "unit": unit,
    }


def biomarker(
    random: Random,
    who: Person | None = None,
    kind: BiomarkerKind | None = None,
    *,
    day: date | None = None,
    created: datetime | None = None,
) -> dict[str, Any]:
    """A body of BiomarkerCreatedIntegrationEvent, 0.5 KB; `value` is a text, whatever `valueType` says.

    `who`, `kind`, `day` and `created` are invented unless given.
    """
    who, created = who or person(random), created or _computed(random)
    kind = kind or random.choice(BIOMARKERS)
    first = datetime.combine(day or _yesterday(who, created), time(), who.zone)
    if kind.category == "sleep" and kind.periodicity == "daily":
        start, end = first - timedelta(hours=6), first + timedelta(hours=18)
    elif kind.periodicity == "weekly":
        start, end = first - timedelta(days=6), first + timedelta(days=1, seconds=-1)
    elif kind.periodicity == "intraday":
        start = first + timedelta(hours=random.randrange(24))
        end = start + timedelta(minutes=59, seconds=59)
    else:
        start, end = first, first + timedelta(days=1, seconds=-1)
    return {
        "id": name_id("biomarker", who.profile_id, kind.category, kind.type, kind.periodicity, start.isoformat()),
        **who.identity(),
        "category": kind.category,
        "type": kind.type,
        "periodicity": kind.periodicity,
        "aggregation": kind.aggregation,
        "value": _value(random, kind, first - timedelta(days=1)),
        "unit": kind.unit,
        "valueType": kind.value_type,
        "startDateTime": start.isoformat(),
        "endDateTime": end.isoformat(),
        "createdAtUtc": _created(random, created),
        "version": 1,
    }


def _value(random: Random, kind: BiomarkerKind, evening: datetime) -> str:
    drawn = random.uniform(kind.low, kind.high)
    if kind.value_type == "integer":
        return str(round(drawn))
    if kind.value_type == "datetime":  # without seconds, as Sahha writes them
        return (evening + timedelta(minutes=round(drawn * 60))).isoformat(timespec="minutes")
    return str(_noisy(random, round(drawn, 3)))


def archetype(
    random: Random, who: Person | None = None, name: str | None = None, *, created: datetime | None = None
) -> dict[str, Any]:
    """A body of ArchetypeCreatedIntegrationEvent, 0.4 KB, about the week or month before `created`.

    `who`, `name` (of `ARCHETYPES`) and `created` are invented unless given.
    """
    who, created = who or person(random), created or _computed(random)
    name = name or random.choice(tuple(ARCHETYPES))
    categorical = name in _CATEGORICAL
    index = random.randrange(len(ARCHETYPES[name]))
    periodicity = random.choice(("weekly", "monthly"))
    today = created.astimezone(who.zone).date()
    if periodicity == "weekly":
        first = today - timedelta(days=today.weekday() + 7)
        last = first + timedelta(days=6)
    else:
        last = today.replace(day=1) - timedelta(days=1)
        first = last.replace(day=1)
    start, end = (datetime.combine(day, time(), who.zone).isoformat() for day in (first, last))
    return {
        "id": name_id("archetype", who.profile_id, name, periodicity, start),
        **who.identity(),
        "name": name,
        "value": ARCHETYPES[name][index],
        "dataType": "categorical" if categorical else "ordinal",
        "ordinality": 0 if categorical else index,
        "periodicity": periodicity,
        "startDateTime": start,
        "endDateTime": end,
        "createdAtUtc": _created(random, created),
        "version": 1,
    }


def data_log(random: Random, who: Person | None = None, *, received: datetime | None = None) -> dict[str, Any]:
    """A body of DataLogReceivedIntegrationEvent with two to nine logs, from 0.8 to 3.4 KB; it has no id of its own.

    `who` and `received` are invented unless given.
    """
    who, received = who or person(random), received or _computed(random)
    log_type, data_type, unit, low, high = random.choice(DATA_LOGS)
    start = received.astimezone(who.zone) - timedelta(hours=random.uniform(8, 12))
    logs: list[dict[str, Any]] = []
    for _ in range(random.randint(2, 9)):
        start += timedelta(minutes=random.randint(1, 20))
        end = start + timedelta(minutes=random.randint(1, 30))
        drawn = random.uniform(low, high)
        logs.append(
            {
                "id": identifier(random),
                "parentId": random.choice((None, "", identifier(random))),
                "value": round(drawn, 1) if unit in ("minute", "kcal") else round(drawn),
                "unit": unit,
                "source": "com.example.health",
                "recordingMethod": random.choice(("RECORDING_METHOD_AUTOMATICALLY_RECORDED", "automatically_recorded")),
                "deviceType": random.choice(("Watch6,2", "iPhone13,2")),
                "startDateTime": _hundredths(start),
                "endDateTime": _hundredths(end),
                "additionalProperties": random.choice(({}, None)),
            }
        )
        start = end
    return {
        "logType": log_type,
        "dataType": data_type,
        **who.identity(),
        "receivedAtUtc": _created(random, received),
        "dataLogs": logs,
    }


def _yesterday(who: Person, created: datetime) -> date:
    return created.astimezone(who.zone).date() - timedelta(days=1)


def _midnight(who: Person, day: date | None, created: datetime) -> str:
    return datetime.combine(day or _yesterday(who, created), time(), who.zone).isoformat()


def _computed(random: Random) -> datetime:
    """A time with a fraction of a second, or without: both are seen."""
    return moment(random) + timedelta(microseconds=random.randrange(1_000_000) if random.randrange(4) else 0)


def _created(random: Random, when: datetime) -> str:
    """A time in UTC in one of the forms seen: `Z` or `+00:00`."""
    text = when.astimezone(UTC).isoformat()
    return text.replace("+00:00", "Z") if random.randrange(2) else text


def _hundredths(when: datetime) -> str:
    whole, offset = when.strftime("%Y-%m-%dT%H:%M:%S"), when.isoformat()[-6:]
    return f"{whole}.{when.microsecond // 10_000:02}{offset}"


def _noisy(random: Random, value: float) -> float:
    """The value, and now and then what is left of it after a way through 32 bits."""
    return float(struct.unpack("f", struct.pack("f", value))[0]) if random.randrange(5) == 0 else value
