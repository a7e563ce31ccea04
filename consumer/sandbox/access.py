"""Who may call what on Thrive's side, and creating things once under an `Idempotency-Key`."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from consumer.sandbox.answers import Refusal
from consumer.sandbox.members import Member
from consumer.sandbox.tokens import MemberTokens
from consumer.sandbox.world import World

__all__ = ["Access", "Handler", "MemberHandler", "Once"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MemberHandler = Callable[[web.Request, Member], Awaitable[web.StreamResponse]]

_TENANT_KEY: Final = "taih-tenant-key"
_REMEMBERED: Final = 1000
_LONGEST_KEY: Final = 255


class Access:
    """Wraps handlers so that only those with the right credential reach them (`/docs/authentication`)."""

    def __init__(self, *, tenant_key: str, tokens: MemberTokens, world: World) -> None:
        self._tenant_key = tenant_key.encode()
        self._tokens = tokens
        self._world = world

    def partner(self, handler: Handler) -> Handler:
        """With the tenant key; 401 without it or with another."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            _refuse_both(request)
            given = request.headers.get(_TENANT_KEY, "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._tenant_key):
                raise Refusal(401, "The tenant key is missing or not known")
            return await handler(request)

        return guarded

    def bearer(self, handler: Handler) -> Handler:
        """With the token of any member."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            self._subject(request)
            return await handler(request)

        return guarded

    def member(self, handler: MemberHandler) -> Handler:
        """With the token of the member in the path; another member's looks like a missing row."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            subject = self._subject(request)
            member = self._world.find(_canonical(request.match_info["user_id"]))
            if member is None or member.user_id != subject:
                raise Refusal(404, "There is no such member")
            return await handler(request, member)

        return guarded

    def _subject(self, request: web.Request) -> str:
        _refuse_both(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        subject = self._tokens.subject(token.strip()) if scheme.lower() == "bearer" else None
        if subject is None:
            raise Refusal(401, "The member token is missing, not ours or expired")
        return subject


def _refuse_both(request: web.Request) -> None:
    if _TENANT_KEY in request.headers and "authorization" in request.headers:
        raise Refusal(400, "Tenant key and member token on one request")


def _canonical(user_id: str) -> str:
    try:
        return str(uuid.UUID(user_id))
    except ValueError:
        return user_id


class Once:
    """Answers a repeated create as the first time.

    How long the platform remembers a key, and what it says to a key that comes with another body, is not published:
    here the last thousand are remembered, and the latter is a 422.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str, str], tuple[bytes, int, bytes | None]] = OrderedDict()

    def of(self, handler: Handler) -> Handler:
        """A handler that creates something, and does so at most once for a key."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, lambda: handler(request))

        return guarded

    def of_member(self, handler: MemberHandler) -> MemberHandler:
        """The same for a member's handler."""

        async def guarded(request: web.Request, member: Member) -> web.StreamResponse:
            return await self._answer(request, lambda: handler(request, member))

        return guarded

    async def _answer(
        self, request: web.Request, act: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        key = request.headers.get("idempotency-key")
        if key is None:
            return await act()
        if not 0 < len(key) <= _LONGEST_KEY:
            raise Refusal(422, f"Idempotency-Key: expected 1 to {_LONGEST_KEY} characters")
        place = (request.method, request.path, key)
        digest = hashlib.sha256(await request.read()).digest()
        before = self._answers.get(place)
        if before is not None:
            return _again(before, digest)
        # The body is read, so nothing is waited for between here and the answer: two of a key cannot both act.
        response = await act()
        if isinstance(response, web.Response):
            body = response.body if isinstance(response.body, bytes) else None
            self._answers[place] = (digest, response.status, body)
            if len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        return response


def _again(before: tuple[bytes, int, bytes | None], digest: bytes) -> web.Response:
    first_digest, status, body = before
    if digest != first_digest:
        raise Refusal(
            422,
            "The Idempotency-Key was used for another body",
            details=[{"field": "Idempotency-Key", "code": "invalid_value", "message": "used before"}],
        )
    return web.Response(status=status, body=body, content_type="application/json")
