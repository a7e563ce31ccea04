"""Thrive's metrics and scores. Field names that the platform does not publish are this project's proposal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import Field

from consumer.sandbox.answers import Refusal, data, no_content
from consumer.sandbox.members import Member, text_of
from consumer.sandbox.requests import Days, Moment, Shape, between, body_of, found, listed, query_of
from consumer.sandbox.thrive_state import Thrive

__all__ = ["metric_routes"]

_STEPS: Final = {"raw": 600, "five_minute": 300, "fifteen_minute": 900, "one_hour": 3600}
"""Seconds between two samples of each granularity."""
_SERIES: Final[dict[str, tuple[str, float, float]]] = {
    "heart_rate": ("bpm", 48, 150),
    "hrv": ("ms", 20, 95),
    "steps": ("count", 0, 400),
    "calories": ("kcal", 4, 60),
}
"""Unit, lowest and highest value of what has a time series (`ref/..._timeseries_...`)."""
_SUMMARIES: Final = ("activity", "sleep", "body", "workouts")
_STAGES: Final = ("light", "deep", "light", "rem")
_SEGMENT: Final = timedelta(minutes=30)
_HISTORY_STEP: Final = 7
_HISTORY: Final = 8
_MOST_ITEMS: Final = 500


class _Workouts(Days):
    sport: str | None = None


class _Series(Shape):
    start_time: Moment
    end_time: Moment
    granularity: Literal["raw", "five_minute", "fifteen_minute", "one_hour"] = "raw"
    provider: str | None = None
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0)


class _Insights(Shape):
    time_range: Literal["week", "month", "quarter", "year"] = "month"
    language: str = "en"


class _Ingest(Shape):
    data: list[dict[str, Any]] = Field(min_length=1, max_length=_MOST_ITEMS)


class _Metrics:
    """The handlers."""

    def __init__(self, thrive: Thrive) -> None:
        self._thrive = thrive
        self._world = thrive.parts.world
        self._clock = thrive.parts.clock

    async def summary(self, request: web.Request, member: Member) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if kind not in _SUMMARIES:
            raise Refusal(404, "There is no such metric")
        query = query_of(request, _Workouts)
        rows = between([_public(row) for row in _rows(member, kind)], query)
        if kind == "workouts" and query.sport is not None:
            rows = [row for row in rows if row.get("sport") == query.sport]
        return listed(rows, query)

    async def ingest(self, request: web.Request, member: Member) -> web.StreamResponse:
        """Partner-owned samples: a known `client_id` is a duplicate."""
        kind = request.match_info["kind"]
        if kind not in _SUMMARIES:
            raise Refusal(404, "There is no such metric")
        answers = []
        for item in (await body_of(request, _Ingest)).data:
            client_id, day = item.get("client_id"), _day(item.get("date"))
            if not isinstance(client_id, str) or day is None:
                error = {"code": "required", "message": "client_id and date are needed"}
                answers.append({"client_id": client_id, "status": "rejected", "sample_id": None, "error": error})
                continue
            known = next((row for row in _own(member, kind) if row["client_id"] == client_id), None)
            row = known or self._stored(member, kind, {**item, "date": day.isoformat()})
            status = "accepted" if known is None else "duplicate"
            answers.append({"client_id": client_id, "status": status, "sample_id": row["sample_id"], "error": None})
        return data(answers, status=201)

    def _stored(self, member: Member, kind: str, item: dict[str, Any]) -> dict[str, Any]:
        sample_id = self._thrive.new_id()
        return member.samples.put(sample_id, {**item, "sample_id": sample_id, "kind": kind})

    async def sleep_stream(self, request: web.Request, member: Member) -> web.StreamResponse:
        query = query_of(request, Days)
        nights = between(_rows(member, "sleep"), query)
        return listed([segment for night in nights if "start" in night for segment in _segments(night)], query)

    async def series(self, request: web.Request, member: Member) -> web.StreamResponse:
        """Samples up to now, without a `pagination` object."""
        metric = request.match_info["metric"]
        if metric not in _SERIES:
            raise Refusal(404, "There is no such metric")
        query = query_of(request, _Series)
        step = _STEPS[query.granularity]
        end = min(query.end_time, self._clock.now()).timestamp()
        first = -(-int(query.start_time.timestamp()) // step) + query.offset
        slots = range(first, min(first + query.limit, int(end // step)))
        return data([self._sample(member, metric, slot, step) for slot in slots])

    def _sample(self, member: Member, metric: str, slot: int, step: int) -> dict[str, Any]:
        unit, low, high = _SERIES[metric]
        value = self._world.draw(f"{member.user_id}:{metric}:{slot}:{step}").triangular(
            low, high, low + (high - low) / 4
        )
        start = datetime.fromtimestamp(slot * step, UTC)
        return {
            "start": text_of(start),
            "end": text_of(start + timedelta(seconds=step)),
            "unit": unit,
            "value": round(value, 1),
        }

    async def measurement(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(_public(found(_measured(request, member), "measurement")))

    async def delete_measurement(self, request: web.Request, member: Member) -> web.StreamResponse:
        row = found(_measured(request, member), "measurement")
        if "kind" not in row:
            raise Refusal(403, "Only samples the partner sent can be deleted", code="forbidden")
        member.samples.drop(row["sample_id"])
        return no_content()

    async def insights(self, request: web.Request, _: Member) -> web.StreamResponse:
        query = query_of(request, _Insights)
        metric = request.match_info["metric"]
        return data(
            {
                "metric": metric,
                "time_range": query.time_range,
                "headline": "A steady stretch",
                "narrative": "Invented, as all of this is.",
                "key_findings": ["Weekdays and weekends were alike."],
                "recommendations": ["Keep the rhythm."],
                "generated_at": text_of(self._clock.now()),
                "model_version": "sandbox-1",
            }
        )

    async def bio_age(self, _: web.Request, member: Member) -> web.StreamResponse:
        if member.bio_age is None:
            raise Refusal(404, "It is not computed yet")
        return data(member.bio_age)

    async def bio_age_history(self, request: web.Request, member: Member) -> web.StreamResponse:
        now = member.bio_age

        def of(day: date, drift: float) -> dict[str, Any]:
            values = {name: round((now or {})[name] + drift, 1) for name in ("biological_age", "delta")}
            return {"date": day.isoformat(), **values}

        return self._history(request, now, of)

    async def health_score(self, _: web.Request, member: Member) -> web.StreamResponse:
        if member.health_score is None:
            raise Refusal(404, "It is not computed yet")
        return data(member.health_score)

    async def health_score_history(self, request: web.Request, member: Member) -> web.StreamResponse:
        now = member.health_score

        def of(day: date, drift: float) -> dict[str, Any]:
            score = (now or {})["overall_score"] - round(drift * 5)
            return {"date": day.isoformat(), "overall_score": score, "domains": (now or {})["domains"]}

        return self._history(request, now, of)

    def _history(
        self, request: web.Request, now: dict[str, Any] | None, of: Callable[[date, float], dict[str, Any]]
    ) -> web.StreamResponse:
        query = query_of(request, Days)
        today = self._world.today
        weeks = range(_HISTORY) if now is not None else ()
        rows = [of(today - timedelta(days=_HISTORY_STEP * week + 1), week / 10) for week in weeks]
        return listed(between(rows, query), query)

    async def activity_types(self, _: web.Request) -> web.StreamResponse:
        return data([{"slug": slug, "name": slug.title()} for slug in ("running", "cycling", "walking")])


def _rows(member: Member, kind: str) -> list[dict[str, Any]]:
    """All rows of a summary: the providers' and the partner's own."""
    own = _own(member, kind)
    if kind == "workouts":
        return [*member.workouts.all(), *own]
    days = member.days.all()
    if kind == "body":
        return [{"date": day["date"], **row} for day in days for row in day["body_summary"]] + own
    return [day[f"{kind}_summary"] for day in days if day.get(f"{kind}_summary")] + own


def _own(member: Member, kind: str) -> list[dict[str, Any]]:
    return [row for row in member.samples.all() if row["kind"] == kind]


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "kind"}


def _measured(request: web.Request, member: Member) -> dict[str, Any] | None:
    """The sample in the path, by the server's id or the partner's own."""
    kind, wanted = request.match_info["kind"], request.match_info["sample_id"]
    if kind not in _SUMMARIES:
        return None
    rows = _rows(member, kind)
    return next((row for row in rows if wanted in (row["sample_id"], row.get("client_id"))), None)


def _segments(night: dict[str, Any]) -> list[dict[str, Any]]:
    at, end = datetime.fromisoformat(night["start"]), datetime.fromisoformat(night["end"])
    segments: list[dict[str, Any]] = []
    while at < end:
        until = min(at + _SEGMENT, end)
        stage = _STAGES[len(segments) % len(_STAGES)] if until < end else "awake"
        times = {"start": text_of(at), "end": text_of(until)}
        segments.append({"sample_id": night["sample_id"], "stage": stage, **times})
        at = until
    return segments


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def metric_routes(thrive: Thrive) -> list[web.RouteDef]:
    """The routes of metrics and scores."""
    here, member = _Metrics(thrive), thrive.access.member
    user = "/v1/users/{user_id}"
    sample = user + "/metrics/{kind}/summary/measurements/{sample_id}"
    return [
        web.get("/v1/activity-types", thrive.access.bearer(here.activity_types)),
        web.get(user + "/metrics/{kind}/summary", member(here.summary)),
        web.post(user + "/metrics/{kind}/summary", member(thrive.once.of_member(here.ingest))),
        web.get(f"{user}/metrics/sleep/stream", member(here.sleep_stream)),
        web.get(user + "/metrics/{metric}/timeseries", member(here.series)),
        web.get(user + "/metrics/{metric}/insights", member(here.insights)),
        web.get(sample, member(here.measurement)),
        web.delete(sample, member(here.delete_measurement)),
        web.get(f"{user}/bio-age", member(here.bio_age)),
        web.get(f"{user}/bio-age/history", member(here.bio_age_history)),
        web.get(f"{user}/health-score", member(here.health_score)),
        web.get(f"{user}/health-score/history", member(here.health_score_history)),
    ]
