"""The sandbox's own controls, under `/sandbox`: what there is, events on demand, faults, rotation. No credential."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import Field, model_validator

from consumer import __version__
from consumer.sandbox.answers import Refusal
from consumer.sandbox.commands import Command, Control, command_of, listed_controls
from consumer.sandbox.faults import FaultRule
from consumer.sandbox.sahha import Sahha
from consumer.sandbox.sahha_control import CONTROLS
from consumer.sandbox.streams import STREAMS, stream_of
from consumer.sandbox.thrive_state import Thrive
from consumer.sandbox.traffic import NoMember

__all__ = ["add_control_routes"]

_DAY = 86_400.0
_CONTROLS: Final = (
    Control("GET /sandbox", "this"),
    Control("GET /sandbox/examples", "the examples alone, one a line, ready to be copied"),
    Control(
        "POST /sandbox/events",
        "stream?, count, contract? (inline, basic, mixed), user_id?, "
        "kind: good, forged, stale, replay, duplicate or unknown",
        '{"count": 5, "stream": "coaching-nudges", "kind": "forged"}',
    ),
    Control("GET /sandbox/faults", "the rules in force"),
    Control(
        "POST /sandbox/faults",
        "rules (or a list of them, or one): path (a prefix, such as /v1 or /api; * for all), method?, latency "
        "(seconds), error_rate (0 to 1), status?, retry_after?, times?. They replace those in force, and of those that "
        "fit a request the first one counts. A path or method of which there is no route is refused",
        '{"rules": [{"path": "/v1", "error_rate": 0.5, "status": 503}]}',
    ),
    Control("DELETE /sandbox/faults", "no faults from now on"),
    Control("GET /sandbox/secrets", "the event-signing secrets in use: toys, like everything here"),
    Control("POST /sandbox/secrets/rotate", "overlap? (seconds of sandbox time; a day), secret?", '{"overlap": 86400}'),
    Control("POST /sandbox/tokens/expire", "makes every member token worthless"),
    Control("POST /sandbox/clock/skip", "seconds (of sandbox time)", '{"seconds": 3600}'),
)


class _Events(Command):
    stream: str | None = None
    count: int = Field(1, ge=1, le=10_000)
    contract: Literal["inline", "basic", "mixed"] | None = None
    kind: Literal["good", "forged", "stale", "replay", "duplicate", "unknown"] = "good"
    user_id: str | None = None


class _Faults(Command):
    rules: list[FaultRule]

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, given: Any) -> Any:
        """A list of rules, and one rule, do as well."""
        if isinstance(given, dict) and given and "rules" not in given:
            given = [given]
        return {"rules": given} if isinstance(given, list) else given


class _Rotate(Command):
    overlap: float = Field(_DAY, ge=0, description="Seconds of sandbox time.")
    secret: str | None = Field(None, min_length=16, max_length=1000)


class _Skip(Command):
    seconds: float = Field(ge=0, le=365 * _DAY)


class _Control:
    """The handlers."""

    def __init__(self, thrive: Thrive, sahha: Sahha) -> None:
        self._thrive = thrive
        self._sahha = sahha
        self._parts = thrive.parts

    async def show(self, _: web.Request) -> web.StreamResponse:
        """What there is, without a key."""
        options = self._parts.options
        thrive = {
            "contract": options.contract,
            "rate": options.rate,
            "queues": self._thrive.queues.registered,
            "streams": self._thrive.publisher.counts(),
        }
        return _indented(
            {
                "version": __version__,
                "url": self._thrive.url,
                "seed": options.seed,
                "speed": options.speed,
                "members": self._parts.world.members,
                "thrive": thrive,
                "sahha": self._sahha.describe(self._thrive.url),
                "faults": self._rules(),
                "control": listed_controls(_CONTROLS, self._thrive.url),
            }
        )

    async def examples(self, _: web.Request) -> web.StreamResponse:
        """In JSON their quotation marks have backslashes, which a shell does not understand."""
        lines = [one.example(self._thrive.url) for one in (*_CONTROLS, *CONTROLS)]
        return web.Response(text="\n".join(lines) + "\n")

    async def events(self, request: web.Request) -> web.StreamResponse:
        given = await command_of(request, _Events)
        stream = None if given.stream is None else stream_of(given.stream)
        if given.stream is not None and stream not in STREAMS:
            raise Refusal(422, f"stream: expected one of {', '.join(STREAMS)}")
        if given.kind in ("replay", "duplicate"):
            count = self._thrive.publisher.repeat(stream, given.count, verbatim=given.kind == "replay")
            if not count:
                raise Refusal(409, "Nothing was published yet that could be published again")
            return web.json_response({"count": count}, status=202)
        try:
            ids = self._thrive.traffic.make(
                given.count,
                stream=stream,
                contract=given.contract,
                user_id=given.user_id,
                unknown=given.kind == "unknown",
                forged=given.kind == "forged",
                stale=given.kind == "stale",
            )
        except NoMember:
            raise Refusal(404, "There is no such member") from None
        return web.json_response({"count": len(ids), "event_ids": ids}, status=202)

    async def faults(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"rules": self._rules()})

    async def set_faults(self, request: web.Request) -> web.StreamResponse:
        given = await command_of(request, _Faults)
        routes = _platforms_routes(request.app)
        for number, rule in enumerate(given.rules):
            if not rule.reaches(routes):
                raise Refusal(
                    422,
                    f"rules[{number}].path: nothing that the platforms answer has such a method or begins so; expected "
                    "the beginning of a path, such as /v1, /v1/users or /api, or * for all",
                )
        try:
            self._parts.faults.replace(given.rules)
        except ValueError as error:
            raise Refusal(422, f"rules: {error}") from None
        return web.json_response({"rules": self._rules()})

    async def clear_faults(self, _: web.Request) -> web.StreamResponse:
        self._parts.faults.replace(())
        return web.json_response({"rules": []})

    def _rules(self) -> list[dict[str, object]]:
        return [rule.model_dump(exclude_none=True) for rule in self._parts.faults.rules]

    async def secrets(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"secrets": self._thrive.rotation.valid(self._parts.clock.elapsed())})

    async def rotate(self, request: web.Request) -> web.StreamResponse:
        given = await command_of(request, _Rotate) if request.can_read_body else _Rotate()
        now = self._parts.clock.elapsed()
        self._thrive.rotation.rotate(now, overlap=given.overlap, secret=given.secret)
        overlap = {"sandbox_seconds": given.overlap, "real_seconds": self._parts.clock.real(given.overlap)}
        return web.json_response({"secrets": self._thrive.rotation.valid(now), "overlap": overlap})

    async def expire_tokens(self, _: web.Request) -> web.StreamResponse:
        self._thrive.tokens.expire_all()
        return web.json_response({"expired": True})

    async def skip(self, request: web.Request) -> web.StreamResponse:
        """Let sandbox time pass for what is to be published; jobs and processing wait on."""
        self._parts.clock.skip((await command_of(request, _Skip)).seconds)
        self._thrive.publisher.wake()
        return web.json_response({"elapsed": self._parts.clock.elapsed()})


def _indented(value: Any) -> web.Response:
    return web.json_response(value, dumps=lambda given: json.dumps(given, indent=2) + "\n")


def _platforms_routes(app: web.Application) -> list[tuple[str, str]]:
    found = [(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None]
    return [(method, path) for method, path in found if path.startswith(("/v1/", "/api/"))]


def add_control_routes(app: web.Application, thrive: Thrive, sahha: Sahha) -> None:
    """What is below `/sandbox`, but for the webhooks' controls."""
    here = _Control(thrive, sahha)
    app.router.add_routes(
        [
            web.get("/sandbox", here.show),
            web.get("/sandbox/examples", here.examples),
            web.post("/sandbox/events", here.events),
            web.get("/sandbox/faults", here.faults),
            web.post("/sandbox/faults", here.set_faults),
            web.delete("/sandbox/faults", here.clear_faults),
            web.get("/sandbox/secrets", here.secrets),
            web.post("/sandbox/secrets/rotate", here.rotate),
            web.post("/sandbox/tokens/expire", here.expire_tokens),
            web.post("/sandbox/clock/skip", here.skip),
        ]
    )
