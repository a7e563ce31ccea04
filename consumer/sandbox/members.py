"""One invented member of Thrive's, in the shapes of its REST API."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final

from consumer.testing import synthetic

__all__ = ["MOST", "Member", "Rows", "day_of", "invented_member", "new_member", "text_of"]

MOST: Final = 2000
"""How many resources of one kind are kept for a member at most: the newest. An event whose resource is gone is old."""

_DAYS: Final = 28
_LABS: Final = 3
_CARDS: Final = 4
_ACTIONS: Final = 4
_NO_SCORES_YET: Final = 5
"""Every fifth member has no biological age yet."""
_PROVIDERS: Final = ("example_watch", "example_ring")
_PROFILE: Final = (
    "name",
    "email",
    "phone",
    "timezone",
    "birthday",
    "weight",
    "weight_unit",
    "height",
    "height_unit",
    "gender",
    "ethnicity",
)
_PRIORITIES: Final = ("Steady bedtime", "Daily walk", "Balanced meals")


class Rows:
    """Resources of one kind by their ids, in the order they came; beyond `most` the oldest goes."""

    def __init__(self) -> None:
        self.most = MOST
        self._rows: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def put(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """Add or replace one."""
        self._rows[key] = row
        while len(self._rows) > self.most:
            self._rows.popitem(last=False)
        return row

    def get(self, key: str) -> dict[str, Any] | None:
        """One, or None."""
        return self._rows.get(key)

    def drop(self, key: str) -> bool:
        """Remove one; whether it was there."""
        return self._rows.pop(key, None) is not None

    def all(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        return list(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)


@dataclass(slots=True)
class Member:
    """What the platform knows of a member. The rows are JSON objects as its API answers them."""

    user_id: str
    profile: dict[str, Any]
    labs: Rows = field(default_factory=Rows)
    cards: Rows = field(default_factory=Rows)
    health_actions: Rows = field(default_factory=Rows)
    days: Rows = field(default_factory=Rows)
    """Daily device data by date: `activity_summary`, `sleep_summary`, `body_summary`."""
    workouts: Rows = field(default_factory=Rows)
    devices: Rows = field(default_factory=Rows)
    jobs: Rows = field(default_factory=Rows)
    priorities: Rows = field(default_factory=Rows)
    recommendations: Rows = field(default_factory=Rows)
    planned_workouts: Rows = field(default_factory=Rows)
    workout_plans: Rows = field(default_factory=Rows)
    nutrition_plans: Rows = field(default_factory=Rows)
    meals: Rows = field(default_factory=Rows)
    samples: Rows = field(default_factory=Rows)
    """What the partner sent, with the `kind` of summary it belongs to."""
    program: dict[str, Any] | None = None
    bio_age: dict[str, Any] | None = None
    health_score: dict[str, Any] | None = None
    privacy: dict[str, Any] = field(default_factory=lambda: {"conversation_recording_opt_in": False})


def text_of(when: datetime) -> str:
    """A time as the platform writes it (`/docs/base-url-and-format`): UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_member(user_id: str, profile: dict[str, Any], *, most: int = MOST) -> Member:
    """A member of whom nothing but the profile is known; of each kind so many resources will be kept at most."""
    member = Member(user_id, {**_no_profile(), **profile})
    for one in fields(member):
        rows = getattr(member, one.name)
        if isinstance(rows, Rows):
            rows.most = most
    return member


def invented_member(user_id: str, random: Random, today: date, *, number: int, most: int = MOST) -> Member:
    """A member with four weeks of data, labs, nudges and plans; all names say that they are invented."""
    member = new_member(user_id, _profile(random, number), most=most)
    for back in range(_DAYS, 0, -1):
        day = today - timedelta(days=back)
        member.days.put(day.isoformat(), day_of(random, day))
    for back in range(_LABS, 0, -1):
        lab = synthetic.lab_result(random)
        lab["test_date"] = (today - timedelta(days=30 * back)).isoformat()
        member.labs.put(lab["lab_result_id"], {**lab, "created_at": _at(today, 30 * back - 2)})
    for back in range(_CARDS, 0, -1):
        card = synthetic.nudge_card(random)
        card.update(dict.fromkeys(("item_created_at", "created_at", "updated_at"), _at(today, back)))
        member.cards.put(card["card_item_id"], card)
    for ahead in range(_ACTIONS):
        action = synthetic.health_action(random)
        action["scheduled_at"] = _at(today, 1 - ahead)
        member.health_actions.put(action["health_action_id"], action)
    _add_plans(member, random, today)
    if (number + 1) % _NO_SCORES_YET:
        _add_scores(member, random, today)
    return member


def day_of(random: Random, day: date) -> dict[str, Any]:
    """A day of device data: `synthetic.daily_summary`, moved to that day."""
    summary = synthetic.daily_summary(random)
    shift = day - date.fromisoformat(summary["date"])
    _move(summary, shift)
    return summary


def _move(value: Any, shift: timedelta) -> None:
    rows = value if isinstance(value, list) else [value]
    for row in rows:
        for name, part in row.items():
            if name == "date":
                row[name] = (date.fromisoformat(part) + shift).isoformat()
            elif name in ("start", "end", "measured_at"):
                row[name] = text_of(datetime.fromisoformat(part) + shift)
            elif isinstance(part, dict | list):
                _move(part, shift)


def _at(today: date, days_back: int) -> str:
    return text_of(datetime(today.year, today.month, today.day, 8, tzinfo=UTC) - timedelta(days=days_back))


def _no_profile() -> dict[str, Any]:
    return {**dict.fromkeys(_PROFILE), "preferences": {}, "pre_existing_conditions": []}


def _profile(random: Random, number: int) -> dict[str, Any]:
    return {
        "name": f"Invented Member {number + 1}",
        "email": f"member-{number + 1}@example.org",
        "timezone": random.choice(("Europe/Berlin", "America/New_York", "Pacific/Auckland")),
        "birthday": date(random.randint(1950, 2004), random.randint(1, 12), random.randint(1, 28)).isoformat(),
        "weight": round(random.uniform(52, 98), 1),
        "weight_unit": "kg",
        "height": random.randint(155, 195),
        "height_unit": "cm",
        "gender": random.choice(("male", "female")),
    }


def _add_plans(member: Member, random: Random, today: date) -> None:
    member.program = {
        **synthetic.program(random),
        "analysis_insight": "Invented, as all of this is.",
        "created_at": _at(today, 20),
    }
    for rank, title in enumerate(_PRIORITIES, 1):
        priority_id = synthetic.identifier(random)
        member.priorities.put(priority_id, _priority(priority_id, title, rank, _at(today, 10 - rank)))
    for slug in _PROVIDERS[: random.randint(1, 2)]:
        member.devices.put(slug, _device(slug, _at(today, 40), _at(today, 1)))
    for back in (5, 2):
        start = datetime(today.year, today.month, today.day, 17, tzinfo=UTC) - timedelta(days=back)
        workout: dict[str, Any] = {
            "sample_id": synthetic.identifier(random),
            "date": start.date().isoformat(),
            "sport": random.choice(("running", "cycling", "walking")),
            "start": text_of(start),
            "end": text_of(start + timedelta(minutes=random.randint(20, 70))),
            "calories": random.randint(150, 600),
        }
        member.workouts.put(workout["sample_id"], workout)


def _priority(priority_id: str, title: str, rank: int, when: str) -> dict[str, Any]:
    return {
        "user_priority_id": priority_id,
        "title": title,
        "description": f"{title}, a little more every week.",
        "target": "5 days a week",
        "domains": ["sleep" if rank == 1 else "activity"],
        "status": "active",
        "rank": rank,
        "created_at": when,
        "updated_at": when,
    }


def _device(slug: str, connected_at: str, synced_at: str) -> dict[str, Any]:
    return {
        "provider_slug": slug,
        "device_name": slug.replace("_", " ").title(),
        "connected_at": connected_at,
        "last_sync_at": synced_at,
        "status": "connected",
    }


def _add_scores(member: Member, random: Random, today: date) -> None:
    age = today.year - int(member.profile["birthday"][:4])
    delta = round(random.uniform(-5, 4), 1)
    recommendation = {
        "recommendation_id": synthetic.identifier(random),
        "title": "An earlier evening",
        "description": "Half an hour more sleep on weekdays.",
        "category": "sleep",
    }
    member.recommendations.put(recommendation["recommendation_id"], recommendation)
    member.bio_age = {
        "chronological_age": age,
        "biological_age": round(age + delta, 1),
        "delta": delta,
        "status": "younger" if delta < 0 else "older",
        "updated_at": _at(today, 1),
        "recommendations": [recommendation],
    }
    domains = {name: random.randint(40, 95) for name in ("sleep", "activity", "metabolic")}
    member.health_score = {
        "date": (today - timedelta(days=1)).isoformat(),
        "overall_score": round(sum(domains.values()) / len(domains)),
        "domains": domains,
        "updated_at": _at(today, 1),
    }
