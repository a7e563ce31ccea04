"""What the sandbox's Sahha has computed: scores, biomarkers, archetypes, trends and comparisons."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final

from aiohttp import web

from consumer.sandbox.sahha_access import Access, Handler, guarded
from consumer.sandbox.sahha_answers import Problem, listed, span, within
from consumer.sandbox.sahha_insights import comparisons, trends

__all__ = ["Results"]

_USUAL_DAYS: Final = 14  # of scores and biomarkers, when no time is named; about 13 rows were seen
_IDENTITY: Final = frozenset({"profileId", "accountId", "externalId"})
_KINDS: Final = ("score", "factor", "biomarker")


class Results:
    """The handlers. Each path ends there for a profile's token, or in an external id for an account's."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        for path, handler in (
            ("score", self.scores),
            ("biomarker", self.biomarkers),
            ("archetypes", self.archetypes),
            ("insight/trend", self.trends),
            ("insight/comparison", self.comparisons),
        ):
            self._add(router, f"/api/v1/profile/{path}", handler)

    @staticmethod
    def _add(router: web.UrlDispatcher, path: str, handler: Handler) -> None:
        router.add_get(path, guarded(handler))
        router.add_get(path + "/{external_id}", guarded(handler))

    async def scores(self, request: web.Request) -> web.Response:
        """Newest day first; an unknown type is not refused, there is just nothing of it."""
        profile = self._access.asked_for(request)
        types = listed(request, "types")
        chosen = [item for item in profile.scores.values() if not types or item["type"] in types]
        chosen = _versions(request, self._lately(request, chosen, "scoreDateTime"))
        chosen.sort(key=lambda item: datetime.fromisoformat(item["scoreDateTime"]), reverse=True)
        if self._access.quirks.score_shape == "value":
            return self._access.results([_introduced(item) for item in chosen])
        return self._access.results([_without(item, _IDENTITY) for item in chosen])

    async def biomarkers(self, request: web.Request) -> web.Response:
        """400 without categories, as was observed; an unknown one is not refused."""
        profile = self._access.asked_for(request)
        categories, types = listed(request, "categories"), listed(request, "types")
        if not categories:
            raise Problem(
                400, "One or more validation errors occurred.", ("categories", "The categories field is required.")
            )
        chosen = [
            item
            for item in profile.biomarkers.values()
            if item["category"] in categories and (not types or item["type"] in types)
        ]
        chosen = self._lately(request, chosen, "startDateTime")
        hidden = _IDENTITY | {"createdAtUtc", "version"}
        return self._access.results([_without(item, hidden) for item in chosen])

    async def archetypes(self, request: web.Request) -> web.Response:
        """Weekly and monthly ones; nothing of another periodicity or of an unknown name."""
        profile = self._access.asked_for(request)
        chosen = _matching(request, list(profile.archetypes.values()), ("name", "periodicity"))
        chosen = within(chosen, "startDateTime", *span(request))
        return self._access.results([_without(item, _IDENTITY | {"createdAtUtc"}) for item in chosen])

    async def trends(self, request: web.Request) -> web.Response:
        """Weekly trends of scores and factors. A category may also be a score's name, as one introduction has it."""
        profile = self._access.asked_for(request)
        found = _matching(request, trends(profile.scores.values(), profile.who.profile_id), ("name", "periodicity"))
        return self._access.results(
            _of_category(request, _versions(request, within(found, "trendEndDateTime", *span(request))))
        )

    async def comparisons(self, request: web.Request) -> web.Response:
        """The last day of each metric that can be compared; categories as for trends."""
        profile = self._access.asked_for(request)
        every = comparisons(profile.scores.values(), profile.biomarkers.values(), profile.who.profile_id)
        found = _matching(request, every, ("name", "periodicity"))
        return self._access.results(
            _of_category(request, _versions(request, within(found, "startDateTime", *span(request))))
        )

    def _lately(self, request: web.Request, items: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
        start, end = span(request)
        if start is None and end is None:
            start = self._access.parts.clock.now() - timedelta(days=_USUAL_DAYS)
        return within(items, field, start, end)


def _without(item: dict[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in hidden}


def _introduced(item: dict[str, Any]) -> dict[str, Any]:
    """A score in the shape of the API introduction [S]: other names, and from 0 to 100."""
    score = item["score"]
    return {
        "type": item["type"],
        "value": None if score is None else round(score * 100, 1),
        "state": item["state"],
        "createdAt": item["createdAtUtc"],
        "factors": item["factors"],
    }


def _matching(request: web.Request, items: list[dict[str, Any]], names: Collection[str]) -> list[dict[str, Any]]:
    wanted = {name: request.query[name] for name in names if request.query.get(name)}
    return [item for item in items if all(item[name] == value for name, value in wanted.items())]


def _of_category(request: web.Request, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    category = request.query.get("category")
    if not category:
        return items
    field = "category" if category in _KINDS else "name"
    return [item for item in items if item[field] == category]


def _versions(request: web.Request, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items, if their version, which is always 1, is the one asked for. Raises `Problem` 400 for no number."""
    text = request.query.get("version")
    if not text:
        return items
    try:
        return items if float(text) == 1 else []
    except ValueError:
        raise Problem(400, "One or more validation errors occurred.", ("version", "Expected a number.")) from None
