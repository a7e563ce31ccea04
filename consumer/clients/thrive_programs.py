"""How members are and what they work on: scores, programs and priorities."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

from consumer.clients.thrive_calls import ThriveCalls, day_text
from consumer.errors import NotFound
from consumer.models.thrive import Priority, Program
from consumer.models.thrive_api import AcceptedRecommendation, BioAge, BioAgePoint, HealthScore, HealthScorePoint

__all__ = ["Programs", "Scores"]

_MEMBER = "/v1/users/{user_id}"


class Scores:
    """`thrive.scores`: biological age and health score."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    async def bio_age(self, user_id: str) -> BioAge | None:
        """A member's biological age; None until it has been computed. Raises `NotFound` for an unknown member."""
        template = f"{_MEMBER}/bio-age"
        try:
            return await self._calls.read(BioAge, user_id, template)
        except NotFound as error:
            # A token cannot be minted for a member who is not there.
            if error.call != f"GET {template}":
                raise
            return None

    def bio_age_history(
        self, user_id: str, start_date: date | None = None, end_date: date | None = None
    ) -> AsyncIterator[BioAgePoint]:
        """How the biological age changed; both dates belong to the range."""
        query = [("start_date", day_text(start_date)), ("end_date", day_text(end_date))]
        return self._calls.pages(BioAgePoint, user_id, f"{_MEMBER}/bio-age/history", query=query)

    async def health_score(self, user_id: str) -> HealthScore:
        """A member's composite score."""
        return await self._calls.read(HealthScore, user_id, f"{_MEMBER}/health-score")

    def health_score_history(
        self, user_id: str, start_date: date | None = None, end_date: date | None = None
    ) -> AsyncIterator[HealthScorePoint]:
        """How the composite score and each domain's changed; both dates belong to the range."""
        query = [("start_date", day_text(start_date)), ("end_date", day_text(end_date))]
        return self._calls.pages(HealthScorePoint, user_id, f"{_MEMBER}/health-score/history", query=query)


class Programs:
    """`thrive.programs`: the active program and the priorities."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    async def program(self, user_id: str) -> Program:
        """A member's active program."""
        return await self._calls.read(Program, user_id, f"{_MEMBER}/program")

    def priorities(self, user_id: str, *, status: str | None = None) -> AsyncIterator[Priority]:
        """A member's priorities: the active ones, or those that are dismissed, completed or outdated."""
        return self._calls.pages(Priority, user_id, f"{_MEMBER}/priorities", query=[("status", status)])

    async def accept_recommendation(
        self, user_id: str, recommendation_id: str, *, idempotency_key: str | None = None
    ) -> AcceptedRecommendation:
        """Make a recommendation an action of the member's."""
        return await self._calls.create(
            AcceptedRecommendation,
            user_id,
            f"{_MEMBER}/recommended-actions/{{recommendation_id}}/accept",
            path={"recommendation_id": recommendation_id},
            idempotency_key=idempotency_key,
        )
