"""Thrive's members: creating them, their tokens, profiles and devices."""

from __future__ import annotations

from datetime import date
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from aiohttp import web
from pydantic import ConfigDict, Field

from consumer.sandbox.answers import Refusal, data, no_content
from consumer.sandbox.members import Member, text_of
from consumer.sandbox.requests import Page, Shape, body_of, found, listed, query_of, shaped
from consumer.sandbox.thrive_state import Thrive

__all__ = ["member_routes"]

_NO_ROTATION: Final = "86400"
_LONGEST = 500


class _Whose(Shape):
    user_id: UUID


class _NewMember(_Whose):
    first_name: str | None = Field(None, max_length=100)
    last_name: str | None = Field(None, max_length=100)
    email: str | None = Field(None, max_length=254)


class _Changes(Shape):
    """What of a member may be changed. Which fields the platform takes is documented by its answer only."""

    model_config = ConfigDict(extra="allow")

    name: str | None = Field(None, max_length=_LONGEST)
    email: str | None = Field(None, max_length=254)
    phone: str | None = Field(None, max_length=50)
    timezone: str | None = Field(None, max_length=100)
    birthday: date | None = None
    weight: float | None = Field(None, gt=0)
    height: float | None = Field(None, gt=0)


class _Privacy(Shape):
    conversation_recording_opt_in: bool


class _DevicePage(Page):
    limit: int = Field(10, ge=1, le=200)


class _Members:
    """The handlers."""

    def __init__(self, thrive: Thrive) -> None:
        self._thrive = thrive
        self._world = thrive.parts.world
        self._clock = thrive.parts.clock

    async def create(self, request: web.Request) -> web.StreamResponse:
        given = await body_of(request, _NewMember)
        user_id = str(given.user_id)
        name = " ".join(part for part in (given.first_name, given.last_name) if part)
        profile = {"name": name or None, "email": given.email}
        try:
            self._world.add(user_id, {**profile, "created_at": text_of(self._clock.now())})
        except KeyError:
            raise Refusal(409, "There is a member with this user_id") from None
        except ValueError:
            raise Refusal(429, "The sandbox has too many members", headers={"Retry-After": "60"}) from None
        names = {"first_name": given.first_name, "last_name": given.last_name}
        return data({"user_id": user_id, **names, "email": given.email}, status=201)

    async def token(self, request: web.Request) -> web.StreamResponse:
        user_id = str((await body_of(request, _Whose)).user_id)
        if user_id not in self._world:
            raise Refusal(404, "There is no such member")
        tokens = self._thrive.tokens
        return data({"access_token": tokens.mint(user_id), "token_type": "Bearer", "expires_in": tokens.lifetime})

    async def no_rotation(self, _: web.Request) -> web.StreamResponse:
        """As the platform's own documents say of both."""
        raise Refusal(503, "Rotation is not implemented yet", headers={"Retry-After": _NO_ROTATION})

    async def show(self, _: web.Request, member: Member) -> web.StreamResponse:
        return data({"user_id": member.user_id, "profile": member.profile})

    async def change(self, request: web.Request, member: Member) -> web.StreamResponse:
        given = await body_of(request, _Changes)
        changes: dict[str, Any] = given.model_dump(mode="json", exclude_unset=True)
        nested = changes.pop("profile", None)
        if isinstance(nested, dict):
            changes |= shaped(nested, _Changes, "body").model_dump(mode="json", exclude_unset=True)
        if "user_id" in changes:
            detail = {"field": "user_id", "code": "immutable_field", "message": "it cannot be changed"}
            raise Refusal(422, "user_id cannot be changed", code="immutable_field", details=[detail])
        member.profile.update({name: value for name, value in changes.items() if name in member.profile})
        return no_content()

    async def remove(self, _: web.Request, member: Member) -> web.StreamResponse:
        self._world.remove(member.user_id)
        return no_content()

    async def health_profile(self, _: web.Request, member: Member) -> web.StreamResponse:
        devices = [{"provider_slug": one["provider_slug"], "status": one["status"]} for one in member.devices.all()]
        return data(
            {
                "user_id": member.user_id,
                "profile": member.profile,
                "location": {"city": "Exampleton", "state": None, "country": "XX"},
                "privacy": member.privacy,
                "connected_devices": devices,
            }
        )

    async def privacy(self, _: web.Request, member: Member) -> web.StreamResponse:
        return data(member.privacy)

    async def change_privacy(self, request: web.Request, member: Member) -> web.StreamResponse:
        member.privacy.update((await body_of(request, _Privacy)).model_dump())
        return no_content()

    async def devices(self, request: web.Request, member: Member) -> web.StreamResponse:
        return listed(member.devices.all(), query_of(request, _DevicePage))

    async def device_status(self, request: web.Request, member: Member) -> web.StreamResponse:
        device = found(member.devices.get(request.match_info["provider_slug"]), "device")
        synced = device["last_sync_at"]
        return data(
            {
                "slug": device["provider_slug"],
                "name": device["device_name"],
                "connection": {"status": device["status"], "connected_at": device["connected_at"], "error": None},
                "backfill": {
                    "status": "completed",
                    "started_at": device["connected_at"],
                    "completed_at": device["connected_at"],
                    "error": None,
                },
                "data_freshness": {
                    "last_data_received_at": synced,
                    "by_resource": {
                        name: {"status": "fresh", "last_data_at": synced} for name in ("activity", "sleep")
                    },
                },
            }
        )

    async def refresh_devices(self, _: web.Request, member: Member) -> web.StreamResponse:
        def synced() -> None:
            for device in member.devices.all():
                device["last_sync_at"] = text_of(self._clock.now())
            if member.user_id in self._world:
                self._thrive.traffic.make(1, stream="daily-device-data", user_id=member.user_id)

        job_id = self._thrive.start_job(member, then=synced)
        return data({"job_id": job_id, "status": "accepted"}, status=HTTPStatus.ACCEPTED)

    async def disconnect(self, request: web.Request, member: Member) -> web.StreamResponse:
        if not member.devices.drop(request.match_info["provider_slug"]):
            raise Refusal(404, "There is no such device")
        return no_content()


def member_routes(thrive: Thrive) -> list[web.RouteDef]:
    """The routes of members, tokens, profiles and devices."""
    here, partner, member = _Members(thrive), thrive.access.partner, thrive.access.member
    user = "/v1/users/{user_id}"
    return [
        web.post("/v1/users", partner(thrive.once.of(here.create))),
        web.post("/v1/auth/token", partner(here.token)),
        web.post("/v1/auth/tenant-key/rotate", partner(here.no_rotation)),
        web.post("/v1/auth/signing-secret/rotate", partner(here.no_rotation)),
        web.get(user, member(here.show)),
        web.patch(user, member(here.change)),
        web.delete(user, member(here.remove)),
        web.get(f"{user}/health-profile", member(here.health_profile)),
        web.get(f"{user}/privacy-settings", member(here.privacy)),
        web.patch(f"{user}/privacy-settings", member(here.change_privacy)),
        web.get(f"{user}/devices", member(here.devices)),
        web.post(f"{user}/devices/actions/refresh", member(here.refresh_devices)),
        web.get(user + "/devices/{provider_slug}/status", member(here.device_status)),
        web.delete(user + "/devices/{provider_slug}", member(here.disconnect)),
    ]
