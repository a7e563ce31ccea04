"""Controls of the sandbox's Sahha: `/sandbox/webhooks` and `/sandbox/sahha`. What a dashboard would do, and more."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import AfterValidator, Field, SecretStr

from consumer.sandbox.answers import Refusal
from consumer.sandbox.commands import Command, Control, command_of
from consumer.sandbox.sahha_access import Access
from consumer.sandbox.sahha_mischief import KINDS, Kind, made
from consumer.sandbox.sahha_profiles import SCORE, HookEvent
from consumer.sandbox.sahha_tokens import MAX_LIFETIME
from consumer.sandbox.sahha_webhooks import Delivery, Webhooks

__all__ = ["CONTROLS", "SahhaControl", "describe_quirks"]

CONTROLS: Final = (
    Control("GET /sandbox/webhooks", "what was sent and answered"),
    Control(
        "POST /sandbox/webhooks",
        "url?, secret?, encoding?, interval_minutes?, event_types?, retries?, rate?",
        '{"url": "http://127.0.0.1:8081/", "rate": 1}',
    ),
    Control("POST /sandbox/webhooks/test", "event_type?, wait?", '{"wait": true}'),
    Control(
        "POST /sandbox/webhooks/events",
        f"count, event_type?, external_id?, same_metric?, wait?, kind: {', '.join(KINDS)}",
        '{"count": 5, "kind": "forged"}',
    ),
    Control(
        "POST /sandbox/sahha",
        "score_shape?, page_base?, no_data?, token_lifetime?, revoke_tokens?",
        '{"revoke_tokens": true}',
    ),
)
"""The controls."""

_Type = Literal[
    "ScoreCreatedIntegrationEvent",
    "BiomarkerCreatedIntegrationEvent",
    "ArchetypeCreatedIntegrationEvent",
    "DataLogReceivedIntegrationEvent",
]
_MOST_EVENTS: Final = 1_000


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an http or https URL")
    return url


T = TypeVar("T", bound=Command)


class WebhookCommand(Command):
    """Body of POST /sandbox/webhooks: what is not named stays as it is."""

    url: Annotated[str, AfterValidator(_web_address)] | None = Field(
        None, description="Where webhooks go; null stops them. Sahha itself demands https."
    )
    secret: SecretStr = Field(SecretStr(""), min_length=1, description="What they are signed with.")
    encoding: Literal["hex", "base64"] = Field("hex", description="How the signature is written.")
    interval_minutes: int = Field(0, ge=0, le=720, description="0 is real-time; otherwise sandbox time.")
    event_types: list[_Type] = Field([], description="The types that are sent.")
    retries: int = Field(3, ge=0, le=20, description="How often a failed delivery is tried again.")
    rate: float = Field(0.0, ge=0, le=1_000, description="Events a second, made up and sent by themselves.")


class EventsCommand(Command):
    """Body of POST /sandbox/webhooks/events."""

    count: int = Field(1, ge=1, le=_MOST_EVENTS)
    kind: Kind = "good"
    event_type: _Type | None = Field(None, description="Unless given, drawn anew for each event.")
    external_id: str | None = Field(None, description="Unless given, profiles are drawn.")
    same_metric: bool = Field(False, description="Let the interval count: all are updates of one score.")
    wait: bool = Field(False, description="Answer when each was tried once, or taken.")


class TestCommand(Command):
    """Body of POST /sandbox/webhooks/test."""

    __test__ = False

    event_type: _Type = SCORE
    wait: bool = False


class QuirksCommand(Command):
    """Body of POST /sandbox/sahha: what is not named stays as it is."""

    score_shape: Literal["score", "value"] = "score"
    page_base: Literal[0, 1] = 1
    no_data: Literal["alternate", "204", "empty"] = "alternate"
    token_lifetime: int = Field(MAX_LIFETIME, ge=1, le=MAX_LIFETIME, description="Of new tokens, in real seconds.")
    revoke_tokens: bool = Field(False, description="Make all tokens so far worthless, as if they had expired.")


class SahhaControl:
    """The handlers."""

    def __init__(self, access: Access, webhooks: Webhooks) -> None:
        self._access = access
        self._webhooks = webhooks

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_get("/sandbox/webhooks", self.show)
        router.add_post("/sandbox/webhooks", self.configure)
        router.add_post("/sandbox/webhooks/test", self.test)
        router.add_post("/sandbox/webhooks/events", self.events)
        router.add_post("/sandbox/sahha", self.quirks)

    async def show(self, request: web.Request) -> web.Response:
        """What was sent and answered."""
        del request
        return web.json_response(self._webhooks.describe())

    async def configure(self, request: web.Request) -> web.Response:
        """What Sahha's dashboard sets: the URL, the secret, the interval, the types of events."""
        command = await _read(request, WebhookCommand)
        target = self._webhooks.target
        for name in command.model_fields_set & {"url", "encoding", "retries", "rate"}:
            setattr(target, name, getattr(command, name))
        if "secret" in command.model_fields_set:
            target.secret = command.secret.get_secret_value()
        if "event_types" in command.model_fields_set:
            target.event_types = frozenset(command.event_types)
        if "interval_minutes" in command.model_fields_set:
            self._webhooks.windows.interval = command.interval_minutes * 60.0
        return web.json_response(self._webhooks.describe())

    async def test(self, request: web.Request) -> web.Response:
        """Send Test Event: about the sample profile, outside the interval. What Sahha's own one holds is unknown."""
        command = await _read(request, TestCommand)
        self._demand_url()
        samples = [external_id for external_id in self._access.profiles.ids() if external_id.startswith("Sample")]
        event = self._event(samples[0] if samples else None, command.event_type)
        return await self._send([self._webhooks.signed(event)], wait=command.wait)

    async def events(self, request: web.Request) -> web.Response:
        """Send so many webhooks of a kind at once, outside the interval unless they are of the `same_metric`."""
        command = await _read(request, EventsCommand)
        self._demand_url()
        if command.same_metric:
            profile = self._access.profiles.find(self._someone(command.external_id))
            now = self._access.parts.clock.now()
            if profile is not None:
                scores = [self._access.profiles.score(profile, now, "sleep") for _ in range(command.count)]
                self._webhooks.publish(scores)
            return web.json_response({"published": command.count}, status=202)
        events = [self._event(command.external_id, command.event_type) for _ in range(command.count)]
        deliveries = made(command.kind, events, self._webhooks)
        if not deliveries:
            raise Refusal(409, "Nothing was taken yet that could be sent again")
        return await self._send(deliveries, wait=command.wait, good=command.kind == "good")

    async def quirks(self, request: web.Request) -> web.Response:
        """In which of the ways that sources tell of the API is to answer."""
        command = await _read(request, QuirksCommand)
        given = command.model_fields_set
        for name in given & {"score_shape", "page_base", "no_data"}:
            setattr(self._access.quirks, name, getattr(command, name))
        if "token_lifetime" in given:
            self._access.tokens.lifetime = command.token_lifetime
        if command.revoke_tokens:
            self._access.tokens.revoke()
        return web.json_response(describe_quirks(self._access))

    def _demand_url(self) -> None:
        if self._webhooks.target.url is None:
            raise Refusal(409, 'There is no URL to send webhooks to: POST /sandbox/webhooks {"url": "http://..."}')

    def _someone(self, external_id: str | None) -> str:
        profiles = self._access.profiles
        if external_id is None:
            if not len(profiles):
                raise Refusal(409, "There is no profile left")
            return profiles.draw().who.external_id
        if profiles.find(external_id) is None:
            raise Refusal(404, "There is no such profile")
        return external_id

    def _event(self, external_id: str | None, event_type: str | None) -> HookEvent:
        profiles = self._access.profiles
        profile = profiles.find(self._someone(external_id))
        if profile is None:
            raise Refusal(404, "There is no such profile")
        return profiles.invented(profile, self._access.parts.clock.now(), event_type)

    async def _send(self, deliveries: list[Delivery], *, wait: bool, good: bool = True) -> web.Response:
        # What is asked for once is sent once: a receiver's refusal is often what is to be seen.
        tasks = [self._webhooks.send(delivery, good=good, retries=0) for delivery in deliveries]
        started = [task for task in tasks if task is not None]
        if wait and started:
            await asyncio.wait(started)
        return web.json_response({"published": len(started)}, status=200 if wait else 202)


def describe_quirks(access: Access) -> dict[str, Any]:
    """How the API answers now."""
    quirks = access.quirks
    return {
        "score_shape": quirks.score_shape,
        "page_base": quirks.page_base,
        "no_data": quirks.no_data,
        "token_lifetime": access.tokens.lifetime,
    }


async def _read(request: web.Request, command: type[T]) -> T:
    """The body, or the defaults when there is none. Raises `Refusal`."""
    return await command_of(request, command) if request.can_read_body else command()
