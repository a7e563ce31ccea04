"""Sahha's profiles, and what is known of the people and devices behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from consumer.clients.sahha_calls import SahhaCalls
from consumer.clients.sahha_queries import body_of, checked, filters, non_empty
from consumer.clients.sahha_reading import read_one, read_present
from consumer.models.base import is_header_text
from consumer.models.sahha import (
    Demographic,
    DeviceInformation,
    Profile,
    ProfilePage,
    SahhaProfileToken,
)

__all__ = ["Demographics", "Devices", "Profiles"]

_REGISTER = "/api/v1/oauth/profile/register"
_REGISTER_BY_APP = "/api/v1/oauth/profile/register/appId"
_REFRESH = "/api/v1/oauth/profile/refreshToken"
_PROFILE = "/api/v1/profile"
_ACCOUNT_PROFILE = "/api/v1/account/profile/{external_id}"
_SEARCH = "/api/v1/account/profile/search"
_DEMOGRAPHIC = "/api/v1/profile/demographic"
_DEVICE = "/api/v1/profile/deviceInformation"

_PAGE_SIZE = 100
_MOST_PAGES = 100_000


class Profiles:
    """Profiles: one for each member. `external_id` is the partner's own id of the member."""

    __slots__ = ("_calls",)

    def __init__(self, calls: SahhaCalls) -> None:
        self._calls = calls

    async def register(self, external_id: str) -> SahhaProfileToken:
        """Make a profile. Raises `ApiError` (400) for an id that is in use."""
        reply = await self._calls.as_account("POST", _REGISTER, json={"externalId": _id(external_id)})
        return read_present(f"POST {_REGISTER}", reply, SahhaProfileToken)

    async def register_by_app(self, external_id: str) -> SahhaProfileToken:
        """Make a profile with the app's credentials instead of the account's.

        Raises `NotConfigured` without an app id and app secret.
        """
        reply = await self._calls.as_app("POST", _REGISTER_BY_APP, json={"externalId": _id(external_id)})
        return read_present(f"POST {_REGISTER_BY_APP}", reply, SahhaProfileToken)

    async def token(
        self, external_id: str, *, read_only: bool | None = None, lifetime: int | None = None
    ) -> SahhaProfileToken:
        """A new token for a profile, to be used elsewhere; `lifetime` in seconds.

        Calls of this client that need a profile's token get their own, and keep it.
        """
        return await self._calls.mint_profile_token(_id(external_id), read_only=read_only, lifetime=lifetime)

    async def refresh(self, refresh_token: str, *, profile_token: str | None = None) -> SahhaProfileToken:
        """A new token for an old one. Sahha's documents differ on whether `profile_token` is needed: give both."""
        body = {"refreshToken": non_empty("refresh_token", refresh_token)}
        if profile_token is not None and not is_header_text(profile_token):
            raise ValueError("profile_token is not a token")
        headers = {} if profile_token is None else {"authorization": f"profile {profile_token}"}
        reply = await self._calls.unauthorized("POST", _REFRESH, json=body, headers=headers)
        return read_present(f"POST {_REFRESH}", reply, SahhaProfileToken)

    async def get(self, external_id: str) -> Profile | None:
        """A profile, as the account sees it; None if Sahha answers without one. Raises `NotFound`."""
        reply = await self._calls.as_account("GET", _ACCOUNT_PROFILE, path={"external_id": _id(external_id)})
        return read_one(f"GET {_ACCOUNT_PROFILE}", reply, Profile)

    async def info(self, external_id: str) -> Profile | None:
        """A profile, as it sees itself (with its own token); seen in use, hardly documented."""
        reply = await self._calls.as_profile(_id(external_id), "GET", _PROFILE)
        return read_one(f"GET {_PROFILE}", reply, Profile)

    async def search(self, text: str | None = None, *, page_size: int = _PAGE_SIZE) -> AsyncIterator[Profile]:
        """The profiles that fit `text`, or all, page by page as they are asked for.

        Whether pages count from 0 or 1 is not published, so the first reply tells. Ends when a page is empty or was
        there before, or after as many pages as Sahha says there are.
        """
        if page_size < 1:
            raise ValueError("page_size is 1 or more")
        number: int | None = None
        seen: set[int] = set()
        for fetched in range(1, _MOST_PAGES + 1):
            query = filters(searchParameter=text, currentPage=number, pageSize=page_size)
            reply = await self._calls.as_account("GET", _SEARCH, query=query)
            page = read_one(f"GET {_SEARCH}", reply, ProfilePage) or ProfilePage()
            fingerprint = hash(tuple(profile.profile_id or profile.external_id for profile in page.items))
            if not page.items or fingerprint in seen:
                return
            seen.add(fingerprint)
            for profile in page.items:
                yield profile
            if page.total_pages is not None and fetched >= page.total_pages:
                return
            number = _next_page(page.current_page, number)

    async def delete(self, *external_ids: str) -> None:
        """Remove profiles, with everything known about them."""
        if not external_ids:
            raise ValueError("external_ids: give at least one")
        ids = [_id(external_id) for external_id in external_ids]
        await self._calls.as_account("DELETE", _PROFILE, json=ids)


class Demographics:
    """Who a member is. These calls use the profile's own token."""

    __slots__ = ("_calls",)

    def __init__(self, calls: SahhaCalls) -> None:
        self._calls = calls

    async def get(self, external_id: str) -> Demographic | None:
        """What is known of a member; None if nothing is."""
        reply = await self._calls.as_profile(_id(external_id), "GET", _DEMOGRAPHIC)
        return read_one(f"GET {_DEMOGRAPHIC}", reply, Demographic)

    async def put(self, external_id: str, demographic: Demographic | Mapping[str, Any]) -> None:
        """Replace what is known of a member."""
        body = body_of(checked(Demographic, demographic))
        await self._calls.as_profile(_id(external_id), "PUT", _DEMOGRAPHIC, json=body)

    async def patch(self, external_id: str, demographic: Demographic | Mapping[str, Any]) -> None:
        """Change only what is given."""
        body = body_of(checked(Demographic, demographic))
        await self._calls.as_profile(_id(external_id), "PATCH", _DEMOGRAPHIC, json=body)


class Devices:
    """The device a member uses. These calls use the profile's own token."""

    __slots__ = ("_calls",)

    def __init__(self, calls: SahhaCalls) -> None:
        self._calls = calls

    async def get(self, external_id: str) -> DeviceInformation | None:
        """A member's device; None if none is known."""
        reply = await self._calls.as_profile(_id(external_id), "GET", _DEVICE)
        return read_one(f"GET {_DEVICE}", reply, DeviceInformation)

    async def put(self, external_id: str, device: DeviceInformation | Mapping[str, Any]) -> None:
        """Replace what is known of a member's device."""
        body = body_of(checked(DeviceInformation, device))
        await self._calls.as_profile(_id(external_id), "PUT", _DEVICE, json=body)


def _next_page(current: float | None, asked: int | None) -> int:
    """The page after the one a reply says it is, or, where it does not say, after the one that was asked for."""
    if current is None:
        return 2 if asked is None else asked + 1
    return int(current) + 1 if asked is None else max(int(current), asked) + 1


def _id(external_id: str) -> str:
    return non_empty("external_id", external_id)
