"""Tokens and profiles in the sandbox's Sahha: `/api/v1/oauth/...`, `/api/v1/account/profile/...`, `/api/v1/profile`."""

from __future__ import annotations

import hmac
import math
from typing import Any, Final

from aiohttp import web

from consumer.sandbox.sahha_access import Access, guarded
from consumer.sandbox.sahha_answers import Problem, body_object, done, external_id_of, flag, json_body, text_of
from consumer.sandbox.sahha_tokens import MAX_LIFETIME, Refused

__all__ = ["Accounts"]

_PAGE_SIZE: Final = 20  # when none is asked for; Sahha's own default is unknown
_LARGEST_PAGE: Final = 1_000


class Accounts:
    """The handlers."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tokens = access.tokens
        self._credentials = access.parts.credentials.sahha

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_post("/api/v1/oauth/account/token", guarded(self.account_token))
        router.add_post("/api/v1/oauth/profile/register", guarded(self.register))
        router.add_post("/api/v1/oauth/profile/register/appId", guarded(self.register_by_app))
        router.add_post("/api/v1/oauth/profile/token", guarded(self.profile_token))
        router.add_post("/api/v1/oauth/profile/refreshToken", guarded(self.refresh))
        # Before the one with a variable part: a profile whose external id is "search" cannot be asked for.
        router.add_get("/api/v1/account/profile/search", guarded(self.search))
        router.add_get("/api/v1/account/profile/{external_id}", guarded(self.one))
        router.add_get("/api/v1/profile", guarded(self.own))
        router.add_delete("/api/v1/profile", guarded(self.delete))

    async def account_token(self, request: web.Request) -> web.Response:
        """400 for credentials that are wrong or of another environment."""
        body = await body_object(request)
        client_id, client_secret = text_of(body, "clientId"), text_of(body, "clientSecret")
        known = self._credentials
        if not _same((client_id, known.client_id), (client_secret, known.client_secret)):
            raise Problem(400, "Invalid client credentials.", ("clientId", "Not known in this environment."))
        return web.json_response(self._tokens.account(client_id))

    async def register(self, request: web.Request) -> web.Response:
        """201 with a token of the new profile; 400 for an external id in use."""
        self._access.account(request)
        return self._registered(external_id_of(await body_object(request)))

    async def register_by_app(self, request: web.Request) -> web.Response:
        """The same for an app, which shows its own credentials as headers."""
        known = self._credentials
        app_id, app_secret = request.headers.get("AppId", ""), request.headers.get("AppSecret", "")
        if not _same((app_id, known.app_id), (app_secret, known.app_secret)):
            raise Refused("AppId and AppSecret are not those of an app")
        return self._registered(external_id_of(await body_object(request)))

    def _registered(self, external_id: str) -> web.Response:
        try:
            self._access.profiles.register(external_id, self._access.parts.clock.now())
        except KeyError:
            raise Problem(400, "Validation failed.", ("externalId", "The external id is in use.")) from None
        except ValueError:
            raise Problem(400, "Validation failed.", ("externalId", "The sandbox holds no more profiles.")) from None
        return web.json_response(self._tokens.profile(external_id), status=201)

    async def profile_token(self, request: web.Request) -> web.Response:
        """A token of any profile, for an account. `readOnly` and `lifetime` may be texts, as in some examples."""
        self._access.account(request)
        body = await body_object(request)
        external_id = external_id_of(body)
        read_only = flag(body["readOnly"], "readOnly") if body.get("readOnly") is not None else False
        lifetime = _lifetime(body["lifetime"]) if body.get("lifetime") is not None else None
        self._access.named(external_id)
        return web.json_response(self._tokens.profile(external_id, read_only=read_only, lifetime=lifetime))

    async def refresh(self, request: web.Request) -> web.Response:
        """A new token for an old one, which may have expired, and its refresh token: both are demanded."""
        holder = self._tokens.read(request.headers.get("Authorization"), expired=True)
        if holder.external_id is None:
            raise Refused("this path takes a profile's token")
        refresh_token = text_of(await body_object(request), "refreshToken")
        self._access.named(holder.external_id)
        if not self._tokens.refreshes(refresh_token, holder.external_id):
            raise Refused("the refresh token is not the profile's")
        return web.json_response(self._tokens.profile(holder.external_id, read_only=holder.read_only))

    async def search(self, request: web.Request) -> web.Response:
        """A page of the profiles whose external id contains `searchParameter`; all of them without one."""
        self._access.account(request)
        base = self._access.quirks.page_base
        current = _whole(request, "currentPage", base, least=base)
        size = _whole(request, "pageSize", _PAGE_SIZE, least=1, most=_LARGEST_PAGE)
        found = self._access.profiles.search(request.query.get("searchParameter", ""))
        first = (current - base) * size
        page: dict[str, Any] = {
            "items": [profile.info(sources=False) for profile in found[first : first + size]],
            "currentPage": current,
            "totalPages": math.ceil(len(found) / size),
            "pageSize": size,
            "totalCount": len(found),
        }
        return web.json_response(page)

    async def one(self, request: web.Request) -> web.Response:
        """One profile, with where its data come from."""
        return web.json_response(self._access.asked_for(request).info(sources=True))

    async def own(self, request: web.Request) -> web.Response:
        """The profile whose token this is."""
        return web.json_response(self._access.profile(request).info(sources=True))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete the profiles named in a JSON array; unknown ones are passed over. What Sahha answers is unknown."""
        self._access.account(request)
        ids = await json_body(request)
        if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
            raise Problem(400, "One or more validation errors occurred.", ("body", "Expected a list of external ids."))
        for external_id in ids:
            self._access.profiles.remove(external_id)
        return done()


def _same(*pairs: tuple[str, str]) -> bool:
    """Whether all pairs are equal; takes as long whichever is not."""
    equal = [hmac.compare_digest(shown.encode(errors="surrogatepass"), known.encode()) for shown, known in pairs]
    return all(equal)


def _lifetime(value: object) -> int:
    seconds = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds <= MAX_LIFETIME:
        raise Problem(
            400, "One or more validation errors occurred.", ("lifetime", f"Expected 1 to {MAX_LIFETIME} seconds.")
        )
    return seconds


def _whole(request: web.Request, name: str, default: int, *, least: int, most: int = 1_000_000) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):  # noqa: PLR2004
        raise Problem(
            400, "One or more validation errors occurred.", (name, f"Expected a whole number from {least} to {most}.")
        )
    return int(text)
