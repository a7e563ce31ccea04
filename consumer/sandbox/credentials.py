"""The keys of a sandbox: random, and worth nothing anywhere else."""

from __future__ import annotations

import base64
import secrets
import uuid
from dataclasses import dataclass, field

__all__ = ["Credentials", "SahhaCredentials"]


@dataclass(frozen=True, slots=True)
class SahhaCredentials:
    """What Sahha's dashboard would show."""

    client_id: str
    client_secret: str = field(repr=False)
    app_id: str
    app_secret: str = field(repr=False)
    webhook_secret: str = field(repr=False)

    @classmethod
    def new(cls) -> SahhaCredentials:
        """Random ones; the webhook secret looks like base64, as the real one does."""
        return cls(
            client_id=str(uuid.uuid4()),
            client_secret=secrets.token_urlsafe(32),
            app_id=secrets.token_hex(12),
            app_secret=secrets.token_urlsafe(32),
            webhook_secret=base64.b64encode(secrets.token_bytes(32)).decode(),
        )


@dataclass(frozen=True, slots=True)
class Credentials:
    """What both platforms would hand over at onboarding."""

    tenant_key: str = field(repr=False)
    thrive_secret: str = field(repr=False)
    """The event-signing secret at the start; `Rotation` knows those of now."""
    sahha: SahhaCredentials

    @classmethod
    def new(cls) -> Credentials:
        """Random ones."""
        return cls(
            tenant_key=f"sandbox_{secrets.token_urlsafe(24)}",
            thrive_secret=secrets.token_hex(32),
            sahha=SahhaCredentials.new(),
        )
