"""What the commands say of a platform that cannot be reached or refuses the credentials: where to look.

Addresses stand in the settings, and are told to whoever runs a command; never in a log.
"""

from __future__ import annotations

from dataclasses import dataclass

from consumer.cli.console import harmless
from consumer.durations import format_duration
from consumer.outcomes import Unavailable
from consumer.settings import Settings

__all__ = ["Platform", "sahha_of", "thrive_of"]


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform, as far as its settings say where it is and who asks."""

    name: str
    base_url: str
    setting: str
    """Of the address, as `CONSUMER_THRIVE__BASE_URL`."""
    credentials: str
    """The settings of the credentials, in words."""

    @property
    def place(self) -> str:
        """The address, and the setting it comes from."""
        return f"{harmless(self.base_url)} ({self.setting})"

    @property
    def advice(self) -> str:
        """What to look at when the credentials are refused."""
        return f"look at {self.credentials}, and whether {self.setting} is of the same environment"

    def unreachable(self, error: Unavailable) -> str:
        """One line about a call that could not be made, with its cause as `Unavailable.why` tells it."""
        call, _, cause = (error.why or "").rpartition(": ")
        again = f"; try again in {format_duration(error.retry_after)}" if error.retry_after else ""
        if cause.startswith("HTTP "):
            return f"{self.name} is overloaded or out of order: {error.why}{again or '; try again later'}"
        _, _, path = call.partition(" ")
        if not path.startswith("/"):
            # Such as the address somebody else gave for an upload: no setting is to blame.
            return f"cannot be reached: {error.why or self.name}{again}"
        return f"{self.name} cannot be reached at {self.place}: {cause}{again}"


def thrive_of(settings: Settings) -> Platform:
    """Thrive, as configured."""
    key, address = "CONSUMER_THRIVE__TENANT_KEY", "CONSUMER_THRIVE__BASE_URL"
    return Platform("Thrive", settings.thrive.base_url, address, key)


def sahha_of(settings: Settings) -> Platform:
    """Sahha, as configured."""
    pair, address = "CONSUMER_SAHHA__CLIENT_ID and CONSUMER_SAHHA__CLIENT_SECRET", "CONSUMER_SAHHA__BASE_URL"
    return Platform("Sahha", settings.sahha.base_url, address, pair)
