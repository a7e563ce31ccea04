"""What a handler is given beside its event: the delivery's facts, a database session, clients, a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from consumer.errors import ConsumerError, NotConfigured

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from consumer.clients.sahha import SahhaClient
    from consumer.clients.thrive import ThriveClient
    from consumer.inbox import UnitOfWork

__all__ = ["Context", "Delivery", "Platforms"]

_logger = structlog.get_logger("handler")


@dataclass(frozen=True, slots=True)
class Delivery:
    """The facts of one delivery, never its body."""

    source: str
    """The source's name in the settings."""
    message_id: str
    """The broker's id; the same event may come under several."""
    attempt: int
    """1 for the first run of the handlers, one more for each recorded failure. Not the broker's receive count."""
    receive_count: int
    """How often the broker says it handed the message out; releases count too. 0 where it does not count."""
    accepted_at: datetime
    """When the queue accepted the message, by the queue's clock."""
    ordering_key: str | None
    """The lane the message is kept in order within, if any."""
    headers: Mapping[str, str] = field(repr=False)
    """The message's attributes; unsigned, so trust none of them."""


@dataclass(frozen=True, slots=True)
class Platforms:
    """The platforms' REST clients; without keys their calls raise `NotConfigured`. None where there is none at all."""

    thrive: ThriveClient | None = None
    sahha: SahhaClient | None = None


class Context:
    """Everything a handler may use. Valid until the handler returns."""

    __slots__ = ("_event_facts", "_log", "_platforms", "_unit", "delivery", "idempotency_key", "state")

    def __init__(
        self,
        *,
        delivery: Delivery,
        idempotency_key: str,
        unit: UnitOfWork | None,
        state: Any = None,
        platforms: Platforms | None = None,
        event_facts: Mapping[str, str | None] | None = None,
    ) -> None:
        self.delivery = delivery
        self.idempotency_key = idempotency_key
        """Stable over attempts, duplicates and replays: give it to whatever a handler calls outside the session."""
        self.state = state
        """What the dispatch table's `lifespan` yielded."""
        self._unit = unit
        self._platforms = platforms
        self._event_facts = event_facts
        self._log: Any = None

    @property
    def session(self) -> AsyncSession:
        """The transaction this event takes effect in: begun on first use, committed by the worker.

        Raises `ConsumerError` once the handler has returned.
        """
        if self._unit is None:
            raise ConsumerError("context.session is gone: it lives as long as the handler it was given to")
        return self._unit.session

    @property
    def log(self) -> Any:
        """A structlog logger bound to the event's id and type, the source and the attempt."""
        if self._log is None:
            self._log = _logger.bind(
                source=self.delivery.source, attempt=self.delivery.attempt, **(self._event_facts or {})
            )
        return self._log

    @property
    def thrive(self) -> ThriveClient:
        """The Thrive REST client. Without a key its calls raise `NotConfigured`; so does this where there is none."""
        if self._platforms is None or self._platforms.thrive is None:
            raise NotConfigured("CONSUMER_THRIVE__TENANT_KEY is not set: context.thrive needs it")
        return self._platforms.thrive

    @property
    def sahha(self) -> SahhaClient:
        """The Sahha REST client. Without credentials its calls raise `NotConfigured`; so does this without one."""
        if self._platforms is None or self._platforms.sahha is None:
            raise NotConfigured("CONSUMER_SAHHA__CLIENT_ID is not set: context.sahha needs it")
        return self._platforms.sahha

    def expire(self) -> None:
        """End the context's life: a session kept past its handler must not write into another event's transaction."""
        self._unit = None
