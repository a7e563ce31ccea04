"""How Thrive is called: as the partner, with the tenant key, or for a member, with a token of theirs. Never both."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

from consumer.clients.http import UNREADABLE, Http, Reply
from consumer.clients.member_tokens import MintedToken, TokenCache
from consumer.clients.paging import Page, walk
from consumer.clients.thrive_errors import envelope, fit
from consumer.clients.urls import fill
from consumer.errors import ApiError, CredentialsRefused, NotConfigured, SettingsError
from consumer.models.base import PlatformModel, is_header_text
from consumer.models.thrive_api import MemberToken

__all__ = ["Changes", "ThriveCalls", "changed", "day_text", "fresh_key", "time_text"]

M = TypeVar("M", bound=PlatformModel)
T = TypeVar("T")

Changes = Mapping[str, Any]

_TENANT_KEY: Final = "CONSUMER_THRIVE__TENANT_KEY"
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_LONGEST_TOKEN_LIFE: Final = 86_400.0
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    template: str
    path: Mapping[str, str] = field(repr=False)
    query: Sequence[tuple[str, str]] = field(repr=False)
    json: Any = field(repr=False)
    idempotency_key: str | None
    repeatable: bool | None
    final: Collection[int]

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


class ThriveCalls:
    """Makes calls with the right credential, and reads their `{"data": ...}`.

    Which credential a call takes is in `/docs/authentication`: the tenant key on `/v1/auth/*`, `POST /v1/users` and
    `/v1/admin/*`, a member's token on everything else.
    """

    def __init__(self, http: Http, tenant_key: str | None) -> None:
        """Raises `SettingsError` for a key that a header cannot hold."""
        self._http = http
        self._tenant_key = _usable(tenant_key)
        self._tokens = TokenCache(self._mint)

    def replace_tenant_key(self, tenant_key: str | None) -> None:
        """Use another key from now on. Tokens minted with the old one are forgotten."""
        self._tenant_key = _usable(tenant_key)
        self._tokens.clear()

    async def close(self) -> None:
        """Stop what is under way."""
        await self._tokens.close()
        await self._http.close()

    async def as_partner(
        self,
        method: str,
        template: str,
        *,
        path: Mapping[str, str] = _NOTHING,
        query: Sequence[tuple[str, str | None]] = (),
        json: Any = None,
        idempotency_key: str | None = None,
        repeatable: bool | None = None,
        final: Collection[int] = (),
    ) -> Reply:
        """Call with the tenant key. Raises `NotConfigured` without one, else what `Http.request` raises."""
        call = _Call(method, template, path, _given(query), json, idempotency_key, repeatable, final)
        return await self._http.whole(str(call), self._with_tenant_key(call))

    async def as_member(
        self,
        user_id: str,
        method: str,
        template: str,
        *,
        path: Mapping[str, str] = _NOTHING,
        query: Sequence[tuple[str, str | None]] = (),
        json: Any = None,
        idempotency_key: str | None = None,
        repeatable: bool | None = None,
    ) -> Reply:
        """Call with the member's token, minted if need be; `{user_id}` in the template is the member.

        A 401 has had no effect, so whatever the request is, it is made once more with a new token. Raises
        `NotConfigured` without a tenant key, else what `Http.request` raises.
        """
        everything = {"user_id": user_id, **path}
        call = _Call(method, template, everything, _given(query), json, idempotency_key, repeatable, ())
        # What cannot be in a path is found before a token is minted for it.
        fill(template, everything)
        return await self._http.whole(
            str(call), self._tokens.spend(user_id, lambda token: self._with_bearer(call, token))
        )

    async def put_bytes(self, url: str, content: bytes, headers: Mapping[str, str]) -> None:
        """Put bytes at a pre-signed address of somebody else's, without any credential of ours."""
        call = "PUT {upload_url}"
        await self._http.whole(call, self._http.put_bytes(call, url, content, headers=headers))

    async def whole(self, call: str, work: Coroutine[Any, Any, T]) -> T:
        """Several calls as one, as far as time goes: see `Http.whole`."""
        return await self._http.whole(call, work)

    async def read(self, model: type[M], user_id: str, template: str, **kwargs: Any) -> M:
        """GET a member's resource as a model; `kwargs` as for `as_member`."""
        return self.data(f"GET {template}", await self.as_member(user_id, "GET", template, **kwargs), model)

    async def create(
        self, model: type[M], user_id: str, template: str, *, idempotency_key: str | None = None, **kwargs: Any
    ) -> M:
        """POST something new of a member's. The key is the same over repeats, so it is repeated like a GET."""
        reply = await self.as_member(
            user_id, "POST", template, idempotency_key=fresh_key(idempotency_key), repeatable=True, **kwargs
        )
        return self.data(f"POST {template}", reply, model)

    def data(self, call: str, reply: Reply, model: type[M]) -> M:
        """The answer's `data` as a model; `ApiError` when it does not fit."""
        return fit(call, reply.status, model, envelope(call, reply)["data"])

    async def pages(
        self,
        model: type[M],
        user_id: str,
        template: str,
        *,
        path: Mapping[str, str] = _NOTHING,
        query: Sequence[tuple[str, str | None]] = (),
        page_size: int = 100,
        most: int | None = None,
    ) -> AsyncIterator[M]:
        """A member's list as models, page by page (`limit` and `offset`, `pagination.total`); at most `most` items."""
        call = f"GET {template}"

        async def fetch(offset: int, limit: int) -> Page:
            window = [("limit", str(limit)), ("offset", str(offset))]
            reply = await self.as_member(user_id, "GET", template, path=path, query=[*query, *window])
            return _page(call, reply)

        async for item in walk(fetch, partial(fit, call, _OK, model), page_size=page_size, most=most):
            yield item

    async def token(self, user_id: str) -> MemberToken:
        """A fresh token of a member (`POST /v1/auth/token`); the cache is not asked."""
        template = "/v1/auth/token"
        # A token more does no harm, so minting may be repeated.
        reply = await self.as_partner("POST", template, json={"user_id": user_id}, repeatable=True)
        return self.data(f"POST {template}", reply, MemberToken)

    async def _mint(self, user_id: str) -> MintedToken:
        token = await self.token(user_id)
        # Without a known end it is used once, and the next call mints another.
        return MintedToken(token.access_token, min(float(token.expires_in or 0), _LONGEST_TOKEN_LIFE))

    def _key(self) -> str:
        if self._tenant_key is None:
            raise NotConfigured(f"{_TENANT_KEY} is not set: Thrive's API needs it")
        return self._tenant_key

    async def _with_tenant_key(self, call: _Call) -> Reply:
        try:
            return await self._request(call, {"taih-tenant-key": self._key()})
        except ApiError as error:
            if error.status != _UNAUTHORIZED:
                raise
            refused = error
        raise CredentialsRefused.of(refused, answered=self._http.answered(refused.call))

    async def _with_bearer(self, call: _Call, token: str) -> Reply:
        return await self._request(call, {"authorization": f"Bearer {token}"})

    async def _request(self, call: _Call, credential: Mapping[str, str]) -> Reply:
        key = {} if call.idempotency_key is None else {"idempotency-key": call.idempotency_key}
        return await self._http.request(
            call.method,
            call.template,
            path=call.path,
            query=call.query,
            json=call.json,
            headers={"x-request-id": str(uuid.uuid4()), **key, **credential},
            repeatable=call.repeatable,
            final=call.final,
        )


def fresh_key(given: str | None) -> str:
    """The idempotency key given, or a new one. Raises `ValueError` for one that a header cannot hold."""
    if given is None:
        return str(uuid.uuid4())
    if not is_header_text(given):
        raise ValueError("idempotency_key: expected printable ASCII text")
    return given


def changed(changes: Changes) -> dict[str, Any]:
    """What an update sends: `ValueError` when that is nothing; dates and times become text."""
    if not changes:
        raise ValueError("nothing to change was given")
    return {name: _plain(value) for name, value in changes.items()}


def time_text(moment: datetime) -> str:
    """A time as the API writes it, `2026-03-16T08:00:00Z`; `ValueError` for one without an offset."""
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError("expected a datetime with an offset, such as datetime.now(UTC)")
    return (moment.replace(tzinfo=None) - offset).isoformat() + "Z"


def day_text(day: date | None) -> str | None:
    """A calendar date as the API writes it, `2026-03-16`; a datetime is refused, its day depends on the place."""
    if isinstance(day, datetime):
        raise ValueError("expected a date, not a datetime")  # noqa: TRY004 - a datetime is a date to Python
    return None if day is None else day.isoformat()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return time_text(value)
    return value.isoformat() if isinstance(value, date) else value


def _given(query: Sequence[tuple[str, str | None]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in query if value is not None]


def _usable(tenant_key: str | None) -> str | None:
    key = (tenant_key or "").strip()
    if key and not is_header_text(key):
        raise SettingsError(f"{_TENANT_KEY}: expected printable ASCII text")
    return key or None


def _page(call: str, reply: Reply) -> Page:
    answer = envelope(call, reply)
    if isinstance(answer["data"], list):
        return Page(answer["data"], _total(answer))
    del answer  # there are tools that print the variables of a traceback
    raise ApiError(call, status=reply.status, code=UNREADABLE)


def _total(answer: Mapping[str, Any]) -> int | None:
    pagination = answer.get("pagination")
    total = pagination.get("total") if isinstance(pagination, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None
