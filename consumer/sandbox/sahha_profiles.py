"""The profiles of the sandbox's Sahha and what is computed about them: invented, seeded, the same in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final, NamedTuple

from consumer.sandbox.world import World
from consumer.testing import synthetic_sahha as synthetic
from consumer.testing.synthetic_sahha import Person

__all__ = ["ARCHETYPE", "BIOMARKER", "DATA_LOG", "EVENT_TYPES", "SCORE", "HookEvent", "Profile", "Profiles"]

SCORE: Final = "ScoreCreatedIntegrationEvent"
BIOMARKER: Final = "BiomarkerCreatedIntegrationEvent"
ARCHETYPE: Final = "ArchetypeCreatedIntegrationEvent"
DATA_LOG: Final = "DataLogReceivedIntegrationEvent"
EVENT_TYPES: Final = (SCORE, BIOMARKER, ARCHETYPE, DATA_LOG)

_HISTORY_DAYS: Final = 14  # what a first integration yields after the fact [D products/scores]
_MOST_PROFILES: Final = 10_000
_SPARSE_FROM: Final = 4  # from so many members on, one of them has no results yet

_SCORES_OF: Final = {  # which scores a kind of data log moves
    "activity": ("activity", "wellbeing", "mental_wellbeing"),
    "energy": ("activity",),
    "exercise": ("activity",),
    "sleep": ("sleep", "readiness", "wellbeing", "mental_wellbeing"),
    "heart": ("readiness",),
}
_BIOMARKERS_OF: Final = {
    "activity": "activity",
    "energy": "activity",
    "sleep": "sleep",
    "heart": "vitals",
    "oxygen": "vitals",
}


class HookEvent(NamedTuple):
    """Something that a webhook tells: its type, its body, and for scores and biomarkers which metric it is of."""

    event_type: str
    body: dict[str, Any]
    metric: tuple[str, ...] | None = None


@dataclass(slots=True)
class Profile:
    """A profile and all that is known of it. Results are kept by id, in the webhooks' shape."""

    who: Person
    created: datetime
    sample: bool = False
    received: datetime | None = None
    """When data of it last came in."""
    sources: list[dict[str, str]] = field(default_factory=list)
    demographic: dict[str, Any] | None = None
    device: dict[str, Any] | None = None
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    biomarkers: dict[str, dict[str, Any]] = field(default_factory=dict)
    archetypes: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: int = 0
    """How many data logs were uploaded."""

    def info(self, *, sources: bool) -> dict[str, Any]:
        """What the API says of the profile itself; the sources only when one profile is asked for [T]."""
        device = self.device or {}
        about = {
            **self.who.identity(),
            "sdkId": device.get("sdkId"),
            "sdkVersion": device.get("sdkVersion"),
            "deviceType": device.get("deviceType"),
            "createdAtUtc": _utc(self.created),
            "dataLastReceivedAtUtc": None if self.received is None else _utc(self.received),
            "isSampleProfile": self.sample,
        }
        return {**about, "dataSources": self.sources} if sources else about


class Profiles:
    """All profiles by external id. Those of the start belong to the world's members, and one is a sample profile.

    The results of a profile are invented when it is first asked for. From four members on the last one has none, and
    the sample profile has sleep only, as Sahha's own sample profiles at times do [O].
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._live = world.draw_anew("sahha:live")
        self._day = datetime.combine(world.today, time(), UTC)
        self._profiles: dict[str, Profile] = {}
        self._registered: dict[str, int] = {}
        self._computed = self._day
        self._unfilled: set[str] = set()
        for external_id in world.members:
            self._add(external_id, self._day - timedelta(days=30))
            self._unfilled.add(external_id)
        if len(world.members) >= _SPARSE_FROM:
            self._unfilled.discard(world.members[-1])
        sample = f"SampleProfile-{synthetic.name_id('sample', str(world.seed))}"
        self._add(sample, self._day - timedelta(days=30)).sample = True
        self._unfilled.add(sample)

    def __len__(self) -> int:
        return len(self._profiles)

    def ids(self) -> list[str]:
        """All external ids, oldest profile first."""
        return list(self._profiles)

    def find(self, external_id: str) -> Profile | None:
        """A profile with its results, or None."""
        profile = self._profiles.get(external_id)
        if profile is not None and external_id in self._unfilled:
            self._unfilled.discard(external_id)
            self._fill(profile)
        return profile

    def is_gone(self, external_id: str) -> bool:
        """Whether there was such a profile, and it was deleted."""
        return external_id in self._registered and external_id not in self._profiles

    def register(self, external_id: str, now: datetime) -> Profile:
        """A new profile without results. Raises `KeyError` for an id in use, `ValueError` for too many profiles."""
        if external_id in self._profiles:
            raise KeyError(external_id)
        if len(self._registered) >= _MOST_PROFILES:
            raise ValueError("too many profiles")
        return self._add(external_id, now)

    def remove(self, external_id: str) -> None:
        """Forget a profile and all that is known of it, if there is one."""
        self._profiles.pop(external_id, None)
        self._unfilled.discard(external_id)

    def search(self, text: str) -> list[Profile]:
        """The profiles whose external id contains the text, in any letter case, oldest first."""
        wanted = text.casefold()
        return [profile for external_id, profile in self._profiles.items() if wanted in external_id.casefold()]

    def received(self, profile: Profile, items: list[dict[str, Any]], now: datetime) -> list[HookEvent]:
        """Take data logs in: one data log event for each kind of them, and what is computed anew because of them."""
        profile.received = now
        profile.logs += len(items)
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for item in items:
            groups.setdefault((item["logType"], item["dataType"]), []).append(item)
            self._note_source(profile, item)
        events = [
            HookEvent(DATA_LOG, _received(profile.who, log_type, data_type, logs, now))
            for (log_type, data_type), logs in groups.items()
        ]
        log_types = dict.fromkeys(log_type for log_type, _ in groups)
        categories = dict.fromkeys(_BIOMARKERS_OF[name] for name in log_types if name in _BIOMARKERS_OF)
        moved = dict.fromkeys(kind for name in log_types for kind in _SCORES_OF.get(name, ()))
        for category in categories:
            events += [self.biomarker(profile, now, kind) for kind in synthetic.BIOMARKERS if kind.category == category]
        return events + [self.score(profile, now, kind) for kind in moved]

    def invented(self, profile: Profile, now: datetime, event_type: str | None = None) -> HookEvent:
        """Something new about a profile, of this type or of one drawn in the proportion that was once seen."""
        event_type = event_type or self._live.choices((BIOMARKER, SCORE, DATA_LOG, ARCHETYPE), (58, 33, 7, 2))[0]
        if event_type == SCORE:
            kinds = ("sleep",) if profile.sample else tuple(synthetic.SCORE_FACTORS)
            return self.score(profile, now, self._live.choice(kinds))
        if event_type == BIOMARKER:
            fitting = [kind for kind in synthetic.BIOMARKERS if kind.category == "sleep" or not profile.sample]
            return self.biomarker(profile, now, self._live.choice(fitting))
        if event_type == ARCHETYPE:
            result = synthetic.archetype(self._live, profile.who, created=self._later(now))
            profile.archetypes[result["id"]] = result
            return HookEvent(ARCHETYPE, result)
        profile.received = now
        return HookEvent(DATA_LOG, synthetic.data_log(self._live, profile.who, received=now))

    def draw(self) -> Profile:
        """Any profile. Raises `LookupError` when there is none."""
        profile = self.find(self._live.choice(self.ids()))
        if profile is None:
            raise LookupError("no profile")
        return profile

    def score(self, profile: Profile, now: datetime, kind: str) -> HookEvent:
        """Yesterday's score, computed again: the same id, a new value and a new `createdAtUtc`."""
        result = synthetic.score(self._live, profile.who, kind, created=self._later(now))
        profile.scores[result["id"]] = result
        return HookEvent(SCORE, result, (profile.who.profile_id, SCORE, kind))

    def biomarker(self, profile: Profile, now: datetime, kind: synthetic.BiomarkerKind) -> HookEvent:
        """Yesterday's value of a biomarker, computed again.

        What Sahha takes for one metric is not said; here periodicities are apart.
        """
        result = synthetic.biomarker(self._live, profile.who, kind, created=self._later(now))
        profile.biomarkers[result["id"]] = result
        return HookEvent(BIOMARKER, result, (profile.who.profile_id, BIOMARKER, kind.type, kind.periodicity))

    def _later(self, now: datetime) -> datetime:
        """This time, or one just after the last result: no two are computed at the same time, so the last one shows."""
        self._computed = max(now, self._computed + timedelta(microseconds=1))
        return self._computed

    def _add(self, external_id: str, created: datetime) -> Profile:
        times = self._registered.get(external_id, 0)
        self._registered[external_id] = times + 1
        who = synthetic.person(self._world.draw(f"sahha:{external_id}"), external_id)
        if times:
            who = who._replace(profile_id=synthetic.name_id("profile", external_id, str(times)))
        profile = self._profiles[external_id] = Profile(who, created)
        return profile

    def _fill(self, profile: Profile) -> None:
        who, random = profile.who, self._world.draw(f"sahha:{profile.who.external_id}:history")
        for back in range(_HISTORY_DAYS + 1, 1, -1):
            day = self._world.today - timedelta(days=back)
            morning = datetime.combine(day, time(6, 30), who.zone) + timedelta(days=1)
            for kind in synthetic.SCORE_FACTORS:
                result = synthetic.score(random, who, kind, day=day, created=morning)
                if kind == "sleep" or not profile.sample:
                    profile.scores[result["id"]] = result
            for marker in synthetic.BIOMARKERS:
                result = synthetic.biomarker(random, who, marker, day=day, created=morning)
                if marker.category == "sleep" or not profile.sample:
                    profile.biomarkers[result["id"]] = result
        for name in synthetic.ARCHETYPES:
            result = synthetic.archetype(random, who, name, created=self._day)
            if name.startswith("sleep") or not profile.sample:
                profile.archetypes[result["id"]] = result
        profile.received = self._day - timedelta(hours=random.randint(1, 20))
        profile.sources = [{"sourceName": "com.example.health", "deviceType": "Watch6,2"}]
        if random.randrange(2):
            profile.demographic = {
                "age": random.randint(20, 70),
                "gender": random.choice(("Male", "Female", "Gender Diverse")),
                "country": random.choice(("NZ", "GB", "US")),
            }

    @staticmethod
    def _note_source(profile: Profile, item: dict[str, Any]) -> None:
        source = {"sourceName": str(item.get("source") or ""), "deviceType": str(item.get("deviceType") or "")}
        if source not in profile.sources and len(profile.sources) < 100:  # noqa: PLR2004  a bound for a long life
            profile.sources.append(source)


def _received(who: Person, log_type: str, data_type: str, logs: list[dict[str, Any]], now: datetime) -> dict[str, Any]:
    return {
        "logType": log_type,
        "dataType": data_type,
        **who.identity(),
        "receivedAtUtc": _utc(now),
        "dataLogs": [
            {name: value for name, value in log.items() if name not in ("logType", "dataType")} for log in logs
        ],
    }


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).isoformat()
