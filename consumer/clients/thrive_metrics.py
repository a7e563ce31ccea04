"""What devices measured: daily summaries, time series, single measurements, and what to make of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Final

from consumer.clients.thrive_calls import ThriveCalls, day_text, time_text
from consumer.models.thrive import ActivitySummary, BodySummary, SleepSummary
from consumer.models.thrive_api import Insights, Measurement, Sample, SleepSegment, Workout

__all__ = ["MEASUREMENT_KINDS", "Metrics"]

MEASUREMENT_KINDS: Final = ("activity/summary", "sleep/summary", "body/summary", "workouts/summary", "timeseries")
"""Where a single measurement can be."""

_METRICS = "/v1/users/{user_id}/metrics"
_SERIES_PAGE = 1000


class Metrics:
    """`thrive.metrics`: device data. Both dates of a range belong to it."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    def activity(self, user_id: str, start_date: date, end_date: date) -> AsyncIterator[ActivitySummary]:
        """Each day's activity."""
        return self._calls.pages(
            ActivitySummary, user_id, f"{_METRICS}/activity/summary", query=_range(start_date, end_date)
        )

    def sleep(self, user_id: str, start_date: date, end_date: date) -> AsyncIterator[SleepSummary]:
        """Each night's sleep."""
        return self._calls.pages(SleepSummary, user_id, f"{_METRICS}/sleep/summary", query=_range(start_date, end_date))

    def sleep_stream(self, user_id: str, start_date: date, end_date: date) -> AsyncIterator[SleepSegment]:
        """The stages of the nights, one after another."""
        return self._calls.pages(SleepSegment, user_id, f"{_METRICS}/sleep/stream", query=_range(start_date, end_date))

    def body(self, user_id: str, start_date: date, end_date: date) -> AsyncIterator[BodySummary]:
        """Weighings and body measurements, several a day possible."""
        return self._calls.pages(BodySummary, user_id, f"{_METRICS}/body/summary", query=_range(start_date, end_date))

    def workouts(
        self, user_id: str, start_date: date, end_date: date, *, sport: str | None = None
    ) -> AsyncIterator[Workout]:
        """Recorded workouts; `sport` is a slug of `/v1/activity-types`."""
        query = [*_range(start_date, end_date), ("sport", sport)]
        return self._calls.pages(Workout, user_id, f"{_METRICS}/workouts/summary", query=query)

    def timeseries(
        self,
        user_id: str,
        metric: str,
        start: datetime,
        end: datetime,
        *,
        granularity: str = "raw",
        provider: str | None = None,
    ) -> AsyncIterator[Sample]:
        """A metric's samples, such as of `heart_rate`, `hrv`, `steps`, `calories`; times have an offset.

        `granularity` is raw, five_minute, fifteen_minute or one_hour. Raises `NotFound` for an unknown metric.
        """
        query = [
            ("start_time", time_text(start)),
            ("end_time", time_text(end)),
            ("granularity", granularity),
            ("provider", provider),
        ]
        return self._calls.pages(
            Sample,
            user_id,
            f"{_METRICS}/{{metric}}/timeseries",
            path={"metric": metric},
            query=query,
            page_size=_SERIES_PAGE,
        )

    async def insights(
        self, user_id: str, metric: str, time_range: str = "month", *, language: str | None = None
    ) -> Insights:
        """What the platform makes of a metric over the last week, month, quarter or year."""
        return await self._calls.read(
            Insights,
            user_id,
            f"{_METRICS}/{{metric}}/insights",
            path={"metric": metric},
            query=[("time_range", time_range), ("language", language)],
        )

    async def measurement(self, user_id: str, kind: str, sample_id: str) -> Measurement:
        """One measurement; `kind` is of `MEASUREMENT_KINDS`, the id the platform's or the partner's own."""
        return await self._calls.read(Measurement, user_id, _measurement(kind), path={"sample_id": sample_id})

    async def delete_measurement(self, user_id: str, kind: str, sample_id: str) -> None:
        """Delete one measurement, which only those the partner has sent allow."""
        await self._calls.as_member(user_id, "DELETE", _measurement(kind), path={"sample_id": sample_id})


def _measurement(kind: str) -> str:
    if kind not in MEASUREMENT_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(MEASUREMENT_KINDS)}")
    return f"{_METRICS}/{kind}/measurements/{{sample_id}}"


def _range(start: date, end: date) -> list[tuple[str, str | None]]:
    return [("start_date", day_text(start)), ("end_date", day_text(end))]
