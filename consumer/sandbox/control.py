"""The sandbox's own controls, under `/sandbox`: what there is, events on demand, faults, rotation. No credential."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import ConfigDict, Field

from consumer import __version__
from consumer.sandbox.answers import Refusal
from consumer.sandbox.faults import FaultRule
from consumer.sandbox.requests import Shape, body_of
from consumer.sandbox.sahha import Sahha
from consumer.sandbox.streams import STREAMS, stream_of
from consumer.sandbox.thrive_state import Thrive
from consumer.sandbox.traffic import NoMember

__all__ = ["add_control_routes"]

_DAY = 86_400.0


class _Strict(Shape):
    """Unknown fields are refused: whoever controls a sandbox wants to know of a typing error."""

    model_config = ConfigDict(extra="forbid")


class _Events(_Strict):
    stream: str | None = None
    count: int = Field(1, ge=1, le=10_000)
    contract: Literal["inline", "basic", "mixed"] | None = None
    kind: Literal["good", "forged", "stale", "replay", "duplicate", "unknown"] = "good"
    user_id: str | None = None


class _Faults(_Strict):
    rules: list[FaultRule]


class _Rotate(_Strict):
    overlap: float = Field(_DAY, ge=0, description="Seconds of sandbox time.")
    secret: str | None = Field(None, min_length=16, max_length=1000)


class _Skip(_Strict):
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
        return web.json_response(
            {
                "version": __version__,
                "url": self._thrive.url,
                "seed": options.seed,
                "speed": options.speed,
                "members": self._parts.world.members,
                "thrive": thrive,
                "sahha": self._sahha.describe(),
                "faults": self._rules(),
                "control": {
                    "POST /sandbox/events": "stream?, count, contract?, user_id?, "
                    "kind: good, forged, stale, replay, duplicate or unknown",
                    "GET, POST, DELETE /sandbox/faults": "rules: path, method?, latency, error_rate, status?, "
                    "retry_after?, times?",
                    "GET /sandbox/secrets": "the event-signing secrets in use: toys, like everything here",
                    "POST /sandbox/secrets/rotate": "overlap?, secret?",
                    "POST /sandbox/tokens/expire": "makes every member token worthless",
                    "POST /sandbox/clock/skip": "seconds",
                },
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        given = await body_of(request, _Events)
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
        given = await body_of(request, _Faults)
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
        given = await body_of(request, _Rotate) if request.can_read_body else _Rotate()
        now = self._parts.clock.elapsed()
        self._thrive.rotation.rotate(now, overlap=given.overlap, secret=given.secret)
        overlap = {"sandbox_seconds": given.overlap, "real_seconds": self._parts.clock.real(given.overlap)}
        return web.json_response({"secrets": self._thrive.rotation.valid(now), "overlap": overlap})

    async def expire_tokens(self, _: web.Request) -> web.StreamResponse:
        self._thrive.tokens.expire_all()
        return web.json_response({"expired": True})

    async def skip(self, request: web.Request) -> web.StreamResponse:
        """Let sandbox time pass for what is to be published; jobs and processing wait on."""
        self._parts.clock.skip((await body_of(request, _Skip)).seconds)
        self._thrive.publisher.wake()
        return web.json_response({"elapsed": self._parts.clock.elapsed()})


def add_control_routes(app: web.Application, thrive: Thrive, sahha: Sahha) -> None:
    """What is below `/sandbox`, but for the webhooks' controls."""
    here = _Control(thrive, sahha)
    app.router.add_routes(
        [
            web.get("/sandbox", here.show),
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
