"""What a profile itself says to the sandbox's Sahha: demographics, its device, and data logs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web

from consumer.sandbox.sahha_access import Access, guarded
from consumer.sandbox.sahha_answers import Problem, body_object, done, flag, json_body, moment_of
from consumer.sandbox.sahha_profiles import DATA_LOG, HookEvent, Profile
from consumer.testing.synthetic_sahha import name_id

__all__ = ["Records"]

_TEXTS: Final = ("id", "logType", "dataType", "startDateTime", "endDateTime")
_TIMES: Final = ("startDateTime", "endDateTime")
_AGES: Final = range(18, 101)
_TITLE: Final = "One or more validation errors occurred."


class Records:
    """The handlers; all of them take a profile's token. `publish` takes what webhooks are to tell."""

    def __init__(self, access: Access, publish: Callable[[Sequence[HookEvent]], None]) -> None:
        self._access = access
        self._publish = publish

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_post("/api/v1/profile/data/log", guarded(self.upload))
        router.add_get("/api/v1/profile/demographic", guarded(self.demographic))
        router.add_put("/api/v1/profile/demographic", guarded(self.put_demographic))
        router.add_patch("/api/v1/profile/demographic", guarded(self.patch_demographic))
        router.add_get("/api/v1/profile/deviceInformation", guarded(self.device))
        router.add_put("/api/v1/profile/deviceInformation", guarded(self.put_device))

    async def upload(self, request: web.Request) -> web.Response:
        """Take data logs in, all of them or none: 400 when one is not as it should be. Answers with nothing.

        A webhook tells of each kind of log at once, and the scores and biomarkers they move are computed again.
        `fireLogEvents=false` keeps the former from being told.
        """
        profile = self._access.profile(request, writing=True)
        items = await json_body(request)
        if not isinstance(items, list):
            raise Problem(400, _TITLE, ("body", "Expected a list of data logs."))
        checked = [_checked(item, number) for number, item in enumerate(items)]
        told = flag(request.query["fireLogEvents"], "fireLogEvents") if "fireLogEvents" in request.query else True
        events = self._access.profiles.received(profile, checked, self._access.parts.clock.now()) if checked else []
        self._publish([event for event in events if told or event.event_type != DATA_LOG])
        return done()

    async def demographic(self, request: web.Request) -> web.Response:
        """204 when nothing is known."""
        return _single(self._access.profile(request).demographic)

    async def put_demographic(self, request: web.Request) -> web.Response:
        """Replaces what is known."""
        profile = self._access.profile(request, writing=True)
        return _say(profile, await _demographic(request))

    async def patch_demographic(self, request: web.Request) -> web.Response:
        """Changes what is named, and leaves the rest."""
        profile = self._access.profile(request, writing=True)
        return _say(profile, {**(profile.demographic or {}), **await _demographic(request)})

    async def device(self, request: web.Request) -> web.Response:
        """204 when no device was ever told of."""
        return _single(self._access.profile(request).device)

    async def put_device(self, request: web.Request) -> web.Response:
        """Replaces what is known; what is read later has a `deviceInformationId` more."""
        profile = self._access.profile(request, writing=True)
        body = await body_object(request)
        for name, value in body.items():
            if value is not None and not isinstance(value, str):
                raise Problem(400, _TITLE, (name, "Expected a text."))
        profile.device = {"deviceInformationId": name_id("device", profile.who.profile_id), **body}
        return done()


def _single(record: dict[str, Any] | None) -> web.Response:
    return done(204) if record is None else web.json_response(record)


def _say(profile: Profile, demographic: dict[str, Any]) -> web.Response:
    profile.demographic = demographic
    return done()


async def _demographic(request: web.Request) -> dict[str, Any]:
    body = await body_object(request)
    for name, value in body.items():
        if name == "age":
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value not in _AGES):
                raise Problem(400, _TITLE, ("age", "Expected a whole number from 18 to 100."))
        elif value is not None and not isinstance(value, str):
            raise Problem(400, _TITLE, (name, "Expected a text."))
    return body


def _checked(item: object, number: int) -> dict[str, Any]:
    """A data log as webhooks tell it: with a number for a value that was written as a text."""
    where = f"[{number}]"
    if not isinstance(item, dict):
        raise Problem(400, _TITLE, (where, "Expected an object."))
    for name in _TEXTS:
        if not isinstance(item.get(name), str) or not item[name].strip():
            raise Problem(400, _TITLE, (f"{where}.{name}", "Expected a text."))
    for name in _TIMES:
        moment_of(item[name], f"{where}.{name}")
    measured = _number(item.get("value"))
    if measured is None:
        raise Problem(400, _TITLE, (f"{where}.value", "Expected a number."))
    return {"parentId": None, "additionalProperties": None, **item, "value": measured}


def _number(value: object) -> float | None:
    """A finite number, written as one or as a text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value) if isinstance(value, str) else value
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None
