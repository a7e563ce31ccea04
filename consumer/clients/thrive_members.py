"""Members: who they are."""

from __future__ import annotations

import uuid
from typing import Any

from consumer.clients.thrive_calls import ThriveCalls, changed, fresh_key
from consumer.models.thrive_api import HealthProfile, Member

__all__ = ["Members"]

_MEMBER = "/v1/users/{user_id}"


class Members:
    """`thrive.members`: create, read, update and delete members."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    async def create(
        self,
        user_id: str | None = None,
        *,
        first_name: str | None = None,
        last_name: str | None = None,
        email: str | None = None,
        idempotency_key: str | None = None,
    ) -> Member:
        """Create a member under an id of the partner's, a UUID; without one, under a new one (see `user_id`)."""
        fields = {
            "user_id": user_id if user_id is not None else str(uuid.uuid4()),
            "first_name": first_name,
            "last_name": last_name,
            "email": email,
        }
        reply = await self._calls.as_partner(
            "POST",
            "/v1/users",
            json={name: value for name, value in fields.items() if value is not None},
            idempotency_key=fresh_key(idempotency_key),
            repeatable=True,
        )
        return self._calls.data("POST /v1/users", reply, Member)

    async def get(self, user_id: str) -> Member:
        """A member. Raises `NotFound` for an unknown one."""
        return await self._calls.read(Member, user_id, _MEMBER)

    async def update(self, user_id: str, **changes: Any) -> None:
        """Change a member's fields."""
        await self._calls.as_member(user_id, "PATCH", _MEMBER, json=changed(changes))

    async def delete(self, user_id: str) -> None:
        """Delete a member and everything that is known of them."""
        await self._calls.as_member(user_id, "DELETE", _MEMBER)

    async def health_profile(self, user_id: str) -> HealthProfile:
        """A member's profile, location, consents and devices in one view."""
        return await self._calls.read(HealthProfile, user_id, f"{_MEMBER}/health-profile")
