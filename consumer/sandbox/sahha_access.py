"""Who asks, and for whom: the sandbox's Sahha as its API's handlers see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web

from consumer.sandbox.parts import Parts
from consumer.sandbox.sahha_answers import Problem, done, problem
from consumer.sandbox.sahha_profiles import Profile, Profiles
from consumer.sandbox.sahha_tokens import Holder, Refused, Tokens

__all__ = ["Access", "Quirks", "guarded"]

Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(slots=True)
class Quirks:
    """In which of the ways that sources tell of the API answers; can be changed while it runs."""

    score_shape: Literal["score", "value"] = "score"
    """`score`: as observed, 0 to 1, `createdAtUtc`. `value`: as one introduction shows it, 0 to 100, `createdAt`."""
    page_base: Literal[0, 1] = 1
    no_data: Literal["alternate", "204", "empty"] = "alternate"


class Access:
    """The profiles, the tokens and the quirks, with what every handler asks of them first."""

    def __init__(self, parts: Parts) -> None:
        options = parts.options
        self.parts = parts
        self.tokens = Tokens()
        self.profiles = Profiles(parts.world)
        self.quirks = Quirks(options.score_shape, options.page_base, options.no_data)
        self._empty_answers = 0

    def account(self, request: web.Request) -> None:
        """Demand an account token. Raises `Refused`."""
        if self._holder(request).kind != "account":
            raise Refused("this path takes an account token")

    def profile(self, request: web.Request, *, writing: bool = False) -> Profile:
        """The profile whose token the request shows.

        Raises `Refused`, also for a token that may only read when `writing`, and `Problem` 410 for a deleted profile.
        """
        holder = self._holder(request)
        if holder.external_id is None:
            raise Refused("this path takes a profile's token")
        if writing and holder.read_only:
            raise Refused("the token may only read")
        return self.named(holder.external_id)

    def asked_for(self, request: web.Request) -> Profile:
        """The profile a request is about: in its path, with an account token, or else the one whose token it shows.

        Raises `Refused`, and `Problem` 404 or 410.
        """
        if "external_id" not in request.match_info:
            return self.profile(request)
        self.account(request)
        return self.named(request.match_info["external_id"])

    def named(self, external_id: str) -> Profile:
        """A profile by its external id. Raises `Problem`: 404 (inferred), or 410 for one that was deleted [D]."""
        profile = self.profiles.find(external_id)
        if profile is not None:
            return profile
        if self.profiles.is_gone(external_id):
            raise Problem(410, "The profile was removed.", location="domain")
        raise Problem(404, "The profile was not found.", location="domain")

    def results(self, items: list[dict[str, Any]]) -> web.Response:
        """A list of results; an empty one is said in one of two ways, as documented (204) or as observed (`[]`)."""
        if items or self.quirks.no_data == "empty":
            return web.json_response(items)
        if self.quirks.no_data == "204":
            return done(204)
        self._empty_answers += 1
        return done(204) if self._empty_answers % 2 else web.json_response([])

    def _holder(self, request: web.Request) -> Holder:
        return self.tokens.read(request.headers.get("Authorization"))


def guarded(handler: Handler) -> Handler:
    """The handler, with what it raises made into answers.

    401 for no token, a wrong or an expired one. A scheme that is not Sahha's (`Bearer`) is answered 500, as the one
    report of it says [T], with the body that was seen in a real 500 [O].
    """

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Problem as error:
            return problem(error)
        except Refused as refused:
            if refused.foreign_scheme:
                return problem(Problem(500, "An internal exception has occurred.", location="domain"))
            return problem(Problem(401, "Unauthorized", ("authorization", refused.why)))

    return answer
