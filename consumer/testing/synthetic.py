"""Invented resources of Thrive's, realistic in shape and size, for samples, the demo and load tests.

Everything is drawn from the `Random` handed in: the same seed gives the same data.
"""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

__all__ = ["daily_summary", "health_action", "identifier", "lab_result", "moment", "nudge_card", "program"]

_FIRST_DAY = datetime(2026, 3, 1, tzinfo=UTC)
_DAYS = 28


class _Parameter(NamedTuple):
    name: str
    unit: str
    low: float | None
    high: float | None
    explanation: str


_PANELS = {
    "Metabolic Health": (
        _Parameter("Glucose, fasting", "mg/dL", 70, 99, "Blood sugar after an overnight fast."),
        _Parameter("Hemoglobin A1c", "%", 4.0, 5.6, "Average blood sugar over about three months."),
        _Parameter("Insulin, fasting", "uIU/mL", 2.6, 24.9, "Hormone that moves sugar into cells."),
    ),
    "Cardiovascular Health": (
        _Parameter("LDL cholesterol", "mg/dL", 0, 99, "Carries cholesterol to the vessel walls."),
        _Parameter("HDL cholesterol", "mg/dL", 40, None, "Carries cholesterol back to the liver."),
        _Parameter("Triglycerides", "mg/dL", 0, 149, "Fat circulating in the blood."),
        _Parameter("hs-CRP", "mg/L", 0, 3.0, "Marker of low-grade inflammation."),
    ),
    "Kidney Function": (
        _Parameter("Creatinine", "mg/dL", 0.57, 1.0, "Waste product cleared by the kidneys."),
        _Parameter("eGFR", "mL/min/1.73m2", 60, None, "Estimated filtration rate."),
    ),
    "Liver Function": (
        _Parameter("ALT", "U/L", 0, 32, "Enzyme released when liver cells are stressed."),
        _Parameter("AST", "U/L", 0, 40, "Enzyme found in liver and muscle."),
    ),
    "Blood and Immunity": (
        _Parameter("Hemoglobin", "g/dL", 11.1, 15.9, "Oxygen carrier in red blood cells."),
        _Parameter("Ferritin", "ng/mL", 15, 150, "Stored iron."),
    ),
    "Hormones and Nutrients": (
        _Parameter("TSH", "uIU/mL", 0.45, 4.5, "Signal from the pituitary to the thyroid."),
        _Parameter("Vitamin D, 25-hydroxy", "ng/mL", 30, 100, "Supports bone and immune health."),
    ),
}

_NUDGES = (
    ("missed_first_action", "Your walk is waiting", "Ten minutes is enough", "A short loop keeps the streak going."),
    ("sleep_recovery", "A gentle day", "Your night was short", "Plan one break outdoors and an early evening."),
    ("bedtime_drift", "Back to your rhythm", "Bedtime moved a little", "Half an hour earlier tonight is a good start."),
    ("bounce_back", "Well recovered", "You are back on track", "Keep today's plan as it is."),
)

_ACTIONS = (
    ("Morning stretch", "Five minutes of gentle stretching before breakfast."),
    ("Evening walk", "A twenty-minute walk after dinner."),
    ("Wind down", "Screens off half an hour before bed."),
)

_PROGRAMS = (("Better sleep", "Steady nights"), ("Move more", "Daily steps"), ("Heart health", "Balanced meals"))


def identifier(random: Random) -> str:
    """A UUID."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def moment(random: Random) -> datetime:
    """A time, to the second, in a fixed four weeks."""
    return _FIRST_DAY + timedelta(seconds=random.randrange(_DAYS * 24 * 3600))


def _text(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def lab_result(random: Random) -> dict[str, Any]:
    """A finished lab result of two to four panels, 1.3 to 4 KB as JSON."""
    names = random.sample(sorted(_PANELS), k=random.randint(2, 4))
    domains = [_domain(random, name) for name in names]
    outside = [v["parameter"] for d in domains for v in d["values"] if v["status"] != "In Range"]
    return {
        "lab_result_id": identifier(random),
        "status": "ready",
        "test_date": moment(random).date().isoformat(),
        "lab_name": "Example Reference Laboratory",
        "title": random.choice(("Annual wellness panel", "Follow-up panel", "Baseline panel")),
        "confidence": round(random.uniform(0.85, 0.99), 2),
        "domains": domains,
        "analysis": {
            "overall_assessment": f"{len(outside)} of the values are outside their range.",
            "recommendations": "Repeat the panel in 12 weeks.",
            "follow_up_needed": bool(outside),
            "follow_up_reason": f"{outside[0]} outside reference range" if outside else None,
        },
    }


def _domain(random: Random, name: str) -> dict[str, Any]:
    values = [_value(random, parameter) for parameter in _PANELS[name]]
    outside = sum(value["status"] != "In Range" for value in values)
    insight = "All values are within range." if not outside else f"Outside its range: {outside} of {len(values)}."
    return {"domain_name": name, "domain_insight": insight, "values": values}


def _value(random: Random, parameter: _Parameter) -> dict[str, Any]:
    low, high = parameter.low or 0, parameter.high or (parameter.low or 0) * 2
    width = high - low
    value = round(random.uniform(max(0, low - width / 8), high + width / 8), 2)
    status = "In Range"
    if parameter.high is not None and value > parameter.high:
        status = "Above Range"
    elif parameter.low is not None and value < parameter.low:
        status = "Below Range"
    return {
        "parameter": parameter.name,
        "value": value,
        "comparator": None,
        "unit": parameter.unit,
        "reference_range": {"low": parameter.low, "high": parameter.high},
        "status": status,
        "explanation": parameter.explanation,
    }


def daily_summary(random: Random) -> dict[str, Any]:
    """A day of activity and sleep, with no, one or two weighings."""
    day = moment(random).replace(hour=0, minute=0, second=0)
    return {
        "date": day.date().isoformat(),
        "provider_slug": random.choice(("example_watch", "example_ring")),
        "activity_summary": _activity(random, day),
        "sleep_summary": _sleep(random, day),
        "body_summary": [_body(random, day + timedelta(hours=6 + 13 * i)) for i in range(random.randint(0, 2))],
    }


def _activity(random: Random, day: datetime) -> dict[str, Any]:
    steps = int(random.triangular(1500, 18000, 8000))
    return {
        "sample_id": identifier(random),
        "date": day.date().isoformat(),
        "steps": steps,
        "calories_total": round(1600 + steps * 0.06, 1),
        "calories_active": round(steps * 0.06, 1),
        "distance_meters": round(steps * 0.74, 1),
        "floors_climbed": random.randint(0, 20),
        "intensity_minutes": {"low": steps // 50, "moderate": steps // 300, "vigorous": steps // 900},
        "heart_rate": {
            "resting": random.randint(48, 66),
            "average": random.randint(67, 85),
            "max": random.randint(110, 175),
        },
    }


def _sleep(random: Random, day: datetime) -> dict[str, Any]:
    asleep, awake = random.randint(300, 540), random.randint(8, 60)
    deep, rem = asleep // 6, asleep // 4
    end = day + timedelta(minutes=random.randint(330, 510))
    return {
        "sample_id": identifier(random),
        "date": day.date().isoformat(),
        "start": _text(end - timedelta(minutes=asleep + awake)),
        "end": _text(end),
        "duration_minutes": asleep,
        "time_in_bed_minutes": asleep + awake,
        "efficiency": round(asleep / (asleep + awake), 3),
        "stages_minutes": {"deep": deep, "light": asleep - deep - rem, "rem": rem, "awake": awake},
        "heart_rate": {"average": random.randint(52, 66), "lowest": random.randint(42, 51)},
        "hrv_ms": round(random.uniform(25, 95), 1),
        "respiratory_rate": round(random.uniform(12, 17), 1),
    }


def _body(random: Random, when: datetime) -> dict[str, Any]:
    height, weight = 1.75, round(random.uniform(52, 98), 1)
    fat = round(random.uniform(14, 34), 1)
    return {
        "sample_id": identifier(random),
        "measured_at": _text(when),
        "weight": weight,
        "weight_unit": "kg",
        "bmi": round(weight / math.pow(height, 2), 1),
        "fat_percent": fat,
        "water_percent": round((100 - fat) * 0.72, 1),
        "lean_mass": round(weight * (100 - fat) / 100, 1),
    }


def nudge_card(random: Random) -> dict[str, Any]:
    """A pending nudge card."""
    trigger, title, header, main = random.choice(_NUDGES)
    created = _text(moment(random))
    return {
        "card_item_id": identifier(random),
        "item_header": title,
        "item_body": {"header": header, "description": f"{header}.", "main": main},
        "supported_actions": {"action_keys": ["mark_health_action_as_completed"]},
        "item_preprocessing": {
            "audio_summary_url": "https://media.example.org/nudges/summary.mp3",
            "audio_duration": round(random.uniform(8, 40), 1),
            "audio_script": f"{header}. {main}",
        },
        "item_created_at": created,
        "interaction_status": "pending",
        "trigger_name": trigger,
        "created_at": created,
        "updated_at": created,
    }


def health_action(random: Random) -> dict[str, Any]:
    """A pending health action."""
    title, description = random.choice(_ACTIONS)
    return {
        "health_action_id": identifier(random),
        "title": title,
        "description": description,
        "status": "pending",
        "scheduled_at": _text(moment(random)),
        "execution_options": {},
    }


def program(random: Random) -> dict[str, Any]:
    """An active program with one focus and one goal."""
    name, goal = random.choice(_PROGRAMS)
    category = identifier(random)
    return {
        "program_id": identifier(random),
        "name": name,
        "description": f"{name}, step by step.",
        "created_at": _text(moment(random)),
        "active": True,
        "focus_categories": [
            {"id": identifier(random), "rank": 1, "program_category": {"id": category, "name": name}},
        ],
        "goals": [{"goal_id": identifier(random), "category_id": category, "description": goal, "targets": []}],
    }
