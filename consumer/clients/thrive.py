"""Thrive AI Health's REST API, for handlers (`context.thrive`) and `consumer thrive`.

Every call may raise

- `NotConfigured`: there is no tenant key;
- `Unavailable`: the API does not answer, asks for patience (429) or fails inside (5xx), also when asked again: a
  handler lets it pass, and the source pauses;
- `NotFound`: there is no such thing, or not for this member;
- `ApiError`: the API refused for another reason, or answered what cannot be read.

None of their texts holds an id, a key, or anything of an answer. In a handler, call before the first use of
`context.session`: a transaction that waits for a network keeps its locks and its connection meanwhile.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self, TypeVar

from consumer.clients.http import Http, HttpOptions
from consumer.clients.thrive_calls import ThriveCalls
from consumer.clients.thrive_devices import Devices, Jobs
from consumer.clients.thrive_errors import read_error
from consumer.clients.thrive_fetch import Fetcher
from consumer.clients.thrive_labs import Labs
from consumer.clients.thrive_members import Members
from consumer.clients.thrive_metrics import Metrics
from consumer.clients.thrive_nudges import Cards, HealthActions
from consumer.clients.thrive_plans import Meals, Plans
from consumer.clients.thrive_programs import Programs, Scores
from consumer.clients.thrive_queues import Queues, Rotation
from consumer.events.thrive import ThriveEvent
from consumer.models.thrive_api import HealthProfile, MemberToken
from consumer.models.thrive_api_admin import RotatedSigningSecret, RotatedTenantKey

__all__ = ["PRODUCTION", "ThriveClient"]

D = TypeVar("D")

PRODUCTION: Final = "https://api.thriveaihealth.com"


class ThriveClient:
    """Calls Thrive. Use it as an async context manager, or `close` it; it connects when it is first used.

    The parts of the API are its attributes: `members`, `labs`, `cards`, `health_actions`, `metrics`, `scores`,
    `programs`, `devices`, `jobs`, `plans`, `meals`, `queues`. Lists are async iterators that ask page by page.
    """

    def __init__(
        self, *, base_url: str = PRODUCTION, tenant_key: str | None, options: HttpOptions | None = None
    ) -> None:
        """Raises `ValueError` for an address that is neither https nor on loopback, `SettingsError` for an odd key."""
        http = Http(base_url, options=options if options is not None else HttpOptions(), errors=read_error)
        self._calls = calls = ThriveCalls(http, tenant_key)
        self._rotation = Rotation(calls)
        self.members = Members(calls)
        self.labs = Labs(calls)
        self.cards = Cards(calls)
        self.health_actions = HealthActions(calls)
        self.metrics = Metrics(calls)
        self.scores = Scores(calls)
        self.programs = Programs(calls)
        self.devices = Devices(calls)
        self.jobs = Jobs(calls)
        self.plans = Plans(calls)
        self.meals = Meals(calls)
        self.queues = Queues(calls)
        self._fetcher = Fetcher(
            labs=self.labs,
            cards=self.cards,
            health_actions=self.health_actions,
            metrics=self.metrics,
            programs=self.programs,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; later calls raise `ConsumerError`."""
        await self._calls.close()

    async def fetch(self, event: ThriveEvent[D], *, fresh: bool = False) -> D:
        """The resource an event is about, typed by the event.

        That is its inline `data`; under the basic contract, or when a `fresh` copy is wanted, one call: the lab
        result, the card or health action, the program; for a day of device data its activity, sleep and body
        summaries together. Call it before the first use of `context.session`.

        Raises `Reject` when the event names nothing to fetch, or is of a class nothing is known about.
        """
        call = f"fetching for a {type(event).__name__}"
        return await self._calls.whole(call, self._fetcher.fetch(event, fresh=fresh))

    async def token(self, user_id: str) -> MemberToken:
        """A fresh token of a member, for use elsewhere. This client's own calls mint and keep theirs."""
        return await self._calls.token(user_id)

    async def health_profile(self, user_id: str) -> HealthProfile:
        """A member's profile, location, consents and devices in one view."""
        return await self.members.health_profile(user_id)

    async def rotate_tenant_key(self) -> RotatedTenantKey:
        """A new tenant key. "Not available yet" today: the API's 503 is an `ApiError` here, and not repeated."""
        return await self._rotation.tenant_key()

    async def rotate_signing_secret(self, secret: str | None = None) -> RotatedSigningSecret:
        """A new signing secret, the given one or one the platform makes. "Not available yet" either."""
        return await self._rotation.signing_secret(secret)

    def replace_tenant_key(self, tenant_key: str | None) -> None:
        """Use another tenant key from now on, as after a rotation."""
        self._calls.replace_tenant_key(tenant_key)
