"""Sahha's REST API: scores, biomarkers, archetypes and insights about members, their profiles, and uploads.

`external_id` is the partner's own id of a member everywhere. Sources: docs.sahha.ai, Sahha's own client libraries, and
recorded answers; where they differ, both are understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from types import TracebackType
from typing import Self, TypeVar

from consumer.clients.http import Http, HttpOptions
from consumer.clients.sahha_calls import Credentials, SahhaCalls
from consumer.clients.sahha_errors import read_error
from consumer.clients.sahha_logs import Logs
from consumer.clients.sahha_profiles import Demographics, Devices, Profiles
from consumer.clients.sahha_queries import ListStyle, Query, filters, listed, non_empty
from consumer.clients.sahha_reading import read_many
from consumer.models.sahha import Archetype, Biomarker, Comparison, SahhaAccountToken, Score, Trend
from consumer.models.sahha_base import SahhaModel
from consumer.models.sahha_names import BIOMARKER_CATEGORIES

__all__ = ["PRODUCTION", "SANDBOX", "SahhaClient"]

PRODUCTION = "https://api.sahha.ai"
SANDBOX = "https://sandbox-api.sahha.ai"

_SCORES = "/api/v1/profile/score/{external_id}"
_BIOMARKERS = "/api/v1/profile/biomarker/{external_id}"
_ARCHETYPES = "/api/v1/profile/archetypes/{external_id}"
_TRENDS = "/api/v1/profile/insight/trend/{external_id}"
_COMPARISONS = "/api/v1/profile/insight/comparison/{external_id}"

M = TypeVar("M", bound=SahhaModel)


class SahhaClient:
    """Sahha's API. An asynchronous context manager; without one, call `close()`.

    Tokens are made, kept and renewed by themselves. Every call raises `NotConfigured` without the credentials it
    needs, `Unavailable` for connect errors, time-outs, 429 and 5xx, and `ApiError` for other refusals (`NotFound` for
    404 and 410; 410 means that the profile was removed) and for answers that cannot be read. Arguments that Sahha
    could not read are a `ValueError` before anything is sent.

    `start` and `end` are dates, or datetimes with an offset. No data is an empty list, or None.
    """

    def __init__(
        self,
        *,
        base_url: str = PRODUCTION,
        client_id: str | None,
        client_secret: str | None,
        app_id: str | None = None,
        app_secret: str | None = None,
        list_style: ListStyle = "repeat",
        options: HttpOptions | None = None,
    ) -> None:
        """`list_style` is how lists are written in queries: `types=a&types=b` (`repeat`) or `types=a,b` (`comma`)."""
        http = Http(base_url, options=options or HttpOptions(), errors=read_error)
        credentials = Credentials(client_id, client_secret, app_id, app_secret)
        self._calls = SahhaCalls(http, credentials)
        self._list_style: ListStyle = list_style
        self.profiles = Profiles(self._calls)
        self.demographics = Demographics(self._calls)
        self.device = Devices(self._calls)
        self.logs = Logs(self._calls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections and forget all tokens; later calls raise `ConsumerError`."""
        await self._calls.close()

    def replace_client_secret(self, secret: str | None) -> None:
        """Use another client secret from now on; tokens made with the old one are forgotten."""
        self._calls.replace_client_secret(secret)

    async def account_token(self) -> SahhaAccountToken:
        """A new token of the account, to be used elsewhere; this client's own calls keep theirs."""
        return await self._calls.account_token()

    async def scores(
        self,
        external_id: str,
        *,
        types: str | Sequence[str] = (),
        start: date | None = None,
        end: date | None = None,
        version: str | float | None = None,
    ) -> list[Score]:
        """A member's scores; those of `consumer.models.sahha_names.SCORE_TYPES` are known."""
        query = listed("types", types, self._list_style)
        query += filters(startDateTime=start, endDateTime=end, version=version)
        return await self._measures(_SCORES, external_id, query, Score)

    async def biomarkers(
        self,
        external_id: str,
        *,
        categories: str | Sequence[str] = (),
        types: str | Sequence[str] = (),
        start: date | None = None,
        end: date | None = None,
    ) -> list[Biomarker]:
        """A member's biomarkers. Without `categories` all known ones are asked for: Sahha answers 400 to none."""
        query = listed("categories", categories or BIOMARKER_CATEGORIES, self._list_style)
        query += listed("types", types, self._list_style)
        query += filters(startDateTime=start, endDateTime=end)
        return await self._measures(_BIOMARKERS, external_id, query, Biomarker)

    async def archetypes(
        self,
        external_id: str,
        *,
        name: str | None = None,
        periodicity: str | None = None,
        start: date | None = None,
        end: date | None = None,
    ) -> list[Archetype]:
        """A member's archetypes; `periodicity` is `weekly` or `monthly`."""
        query = filters(name=name, periodicity=periodicity, startDateTime=start, endDateTime=end)
        return await self._measures(_ARCHETYPES, external_id, query, Archetype)

    async def trends(
        self,
        external_id: str,
        *,
        category: str | None = None,
        name: str | None = None,
        periodicity: str | None = None,
        start: date | None = None,
        end: date | None = None,
        version: str | float | None = None,
    ) -> list[Trend]:
        """How a member's scores and factors develop; `category` is `score` or `factor`, `name` as in `sleep`."""
        what = filters(category=category, name=name, periodicity=periodicity)
        when = filters(startDateTime=start, endDateTime=end, version=version)
        return await self._measures(_TRENDS, external_id, what + when, Trend)

    async def comparisons(
        self,
        external_id: str,
        *,
        category: str | None = None,
        name: str | None = None,
        periodicity: str | None = None,
        start: date | None = None,
        end: date | None = None,
        version: str | float | None = None,
    ) -> list[Comparison]:
        """How a member compares; `category` is `score` or `biomarker`, `name` as in `sleep` or `steps`."""
        what = filters(category=category, name=name, periodicity=periodicity)
        when = filters(startDateTime=start, endDateTime=end, version=version)
        return await self._measures(_COMPARISONS, external_id, what + when, Comparison)

    async def _measures(self, template: str, external_id: str, query: Query, model: type[M]) -> list[M]:
        path = {"external_id": non_empty("external_id", external_id)}
        reply = await self._calls.as_account("GET", template, path=path, query=query)
        return read_many(f"GET {template}", reply, model)
