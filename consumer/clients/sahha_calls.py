"""Calls to Sahha's API with the right credentials: as the account, as a profile, as an app, or as nobody.

Sahha's scheme is literally `account <token>` or `profile <token>`, on purpose not `Bearer` (its published OpenAPI).
Tokens are JWTs that live for a day; there is no refreshing of an account's token, only making another.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from consumer.clients.http import Http, Reply
from consumer.clients.member_tokens import MintedToken, TokenCache
from consumer.clients.sahha_reading import read_present
from consumer.clients.sahha_tokens import MARGIN, minted
from consumer.clients.urls import fill
from consumer.errors import ApiError, CredentialsRefused, NotConfigured, SettingsError
from consumer.models.base import is_header_text
from consumer.models.sahha_profiles import SahhaAccountToken, SahhaProfileToken

__all__ = ["Credentials", "SahhaCalls"]

_ACCOUNT_TOKEN = "/api/v1/oauth/account/token"  # noqa: S105 - a path
_PROFILE_TOKEN = "/api/v1/oauth/profile/token"  # noqa: S105 - a path

_WRONG_CREDENTIALS = frozenset({400, 401, 403})
"""Answers to credentials that are wrong, or of the other environment."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_ACCOUNT = "account"
_SETTING = "CONSUMER_SAHHA__"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What Sahha gave the partner; None for what is not configured."""

    client_id: str | None
    client_secret: str | None = field(repr=False)
    app_id: str | None = None
    app_secret: str | None = field(default=None, repr=False)


class SahhaCalls:
    """Makes requests with the credentials each kind of call needs, and renews tokens by itself.

    A 401 has had no effect, so after one the token is made anew and the request repeated, once, whatever it is. Tokens
    are asked for again when 300 seconds of them are left.
    """

    def __init__(self, http: Http, credentials: Credentials) -> None:
        self._http = http
        self._credentials = credentials
        self._accounts = TokenCache(self._mint_for_account, margin=MARGIN)
        self._profiles = TokenCache(self._mint_for_profile, margin=MARGIN)

    def replace_client_secret(self, secret: str | None) -> None:
        """Use another client secret from now on; tokens made with the old one are forgotten."""
        self._credentials = replace(self._credentials, client_secret=secret)
        self._accounts.clear()
        self._profiles.clear()

    async def unauthorized(
        self, method: str, template: str, *, json: Any, headers: Mapping[str, str] = _NOTHING, repeatable: bool = False
    ) -> Reply:
        """A request without a token of this client's; `headers` are all the credentials it carries."""
        work = self._http.request(method, template, json=json, headers=headers, repeatable=repeatable)
        return await self._http.whole(f"{method} {template}", work)

    async def as_app(self, method: str, template: str, *, json: Any) -> Reply:
        """A request as the app. Raises `NotConfigured` without its credentials."""

        async def sent() -> Reply:
            return await self._http.request(method, template, json=json, headers=self._app_headers())

        return await self._http.whole(f"{method} {template}", sent())

    async def as_account(
        self,
        method: str,
        template: str,
        *,
        path: Mapping[str, str] = _NOTHING,
        query: Sequence[tuple[str, str]] = (),
        json: Any = None,
        repeatable: bool | None = None,
    ) -> Reply:
        """A request as the account. Raises `NotConfigured` without its credentials."""
        request = _Request("account", method, template, path, query, json, repeatable)
        return await self._with_token(self._accounts, _ACCOUNT, request)

    async def as_profile(
        self,
        external_id: str,
        method: str,
        template: str,
        *,
        json: Any = None,
        repeatable: bool | None = None,
    ) -> Reply:
        """A request as one profile. Raises `NotConfigured` without the credentials that its token is made with."""
        request = _Request("profile", method, template, _NOTHING, (), json, repeatable)
        return await self._with_token(self._profiles, external_id, request)

    def _app_headers(self) -> dict[str, str]:
        given = self._credentials
        app_id, secret = _both(
            ("APP_ID", given.app_id), ("APP_SECRET", given.app_secret), "registering profiles as an app needs"
        )
        if not is_header_text(app_id) or not is_header_text(secret):
            raise SettingsError(f"{_SETTING}APP_ID and {_SETTING}APP_SECRET: expected printable ASCII text")
        return {"AppId": app_id, "AppSecret": secret}

    async def account_token(self) -> SahhaAccountToken:
        """A new token of the account. Raises `NotConfigured` without its credentials."""
        call = f"POST {_ACCOUNT_TOKEN}"
        try:
            reply = await self._http.whole(call, self._ask_for_account_token())
        except ApiError as error:
            if error.status not in _WRONG_CREDENTIALS:
                raise
            raise CredentialsRefused.of(error, answered=self._http.answered(error.call)) from None
        return read_present(call, reply, SahhaAccountToken)

    async def mint_profile_token(
        self, external_id: str, *, read_only: bool | None = None, lifetime: int | None = None
    ) -> SahhaProfileToken:
        """A new token of a profile; `lifetime` in seconds. Raises `NotFound` and `NotConfigured`."""
        wishes = {"readOnly": read_only, "lifetime": lifetime}
        body = {"externalId": external_id, **{name: wish for name, wish in wishes.items() if wish is not None}}
        reply = await self.as_account("POST", _PROFILE_TOKEN, json=body, repeatable=True)
        return read_present(f"POST {_PROFILE_TOKEN}", reply, SahhaProfileToken)

    async def close(self) -> None:
        """Stop what is under way, and forget all tokens."""
        await self._accounts.close()
        await self._profiles.close()
        await self._http.close()

    async def _mint_for_account(self, _: str) -> MintedToken:
        made = await self.account_token()
        return minted(made.account_token, made.expires_in, now=time.time())

    async def _mint_for_profile(self, external_id: str) -> MintedToken:
        made = await self.mint_profile_token(external_id)
        return minted(made.profile_token, made.expires_in, now=time.time())

    async def _ask_for_account_token(self) -> Reply:
        given = self._credentials
        client_id, secret = _both(
            ("CLIENT_ID", given.client_id), ("CLIENT_SECRET", given.client_secret), "calls of Sahha's API need"
        )
        body = {"clientId": client_id, "clientSecret": secret}
        return await self._http.request("POST", _ACCOUNT_TOKEN, json=body, repeatable=True)

    async def _with_token(self, tokens: TokenCache, key: str, request: _Request) -> Reply:
        # What cannot be in a path is found before a token is made for it.
        fill(request.template, request.path)
        work = tokens.spend(key, lambda token: self._send(request, token), over=request.token_is_over)
        return await self._http.whole(f"{request.method} {request.template}", work)

    async def _send(self, request: _Request, token: str) -> Reply:
        return await self._http.request(
            request.method,
            request.template,
            path=request.path,
            query=request.query,
            json=request.json,
            headers={"authorization": f"{request.scheme} {token}"},
            repeatable=request.repeatable,
        )


@dataclass(frozen=True, slots=True)
class _Request:
    scheme: str
    method: str
    template: str
    path: Mapping[str, str] = field(repr=False)
    query: Sequence[tuple[str, str]] = field(repr=False)
    json: Any = field(repr=False)
    repeatable: bool | None

    @property
    def token_is_over(self) -> Collection[int]:
        """The statuses after which a new token may do better.

        410 says that a profile was removed; one registered again under the same id has other tokens.
        """
        return (401, 410) if self.scheme == "profile" else (401,)


def _both(first: tuple[str, str | None], second: tuple[str, str | None], needs: str) -> tuple[str, str]:
    """Both of two credentials, each with its setting's name. Raises `NotConfigured` naming what is missing."""
    (first_name, first_value), (second_name, second_value) = first, second
    if first_value and second_value:
        return first_value, second_value
    if not first_value and not second_value:
        raise NotConfigured(f"{_SETTING}{first_name} and {_SETTING}{second_name} are not set: {needs} both")
    missing, given = (second_name, first_name) if first_value else (first_name, second_name)
    raise NotConfigured(f"{_SETTING}{missing} is not set, although {_SETTING}{given} is: {needs} both")
