"""A context to call a handler with, without a worker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from consumer.context import Context, Delivery, Platforms
from consumer.errors import ConsumerError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from consumer.inbox import UnitOfWork

__all__ = ["make_context"]


class _GivenSession:
    """Stands for a unit of work; whoever made the session ends its transaction."""

    def __init__(self, session: AsyncSession | None) -> None:
        self._session = session

    @property
    def session(self) -> AsyncSession:
        if self._session is None:
            raise ConsumerError("make_context was given no session: make_context(session=...), or use TestConsumer")
        return self._session


def make_context(
    *,
    session: AsyncSession | None = None,
    state: Any = None,
    thrive: Any = None,
    sahha: Any = None,
    idempotency_key: str = "test",
    **delivery: Any,
) -> Context:
    """A context for calling a handler directly.

        await store_lab_result(sample(LabResultEvent), make_context(session=session))

    `session` is yours to commit; without one `context.session` raises `ConsumerError`. `thrive` and `sahha` stand in
    for the REST clients; without them `NotConfigured` is raised as in a worker without keys. `state` is what a
    `lifespan` would have yielded. `delivery` changes fields of `Delivery`: `attempt=3`, `source="labs"`.

    Raises `TypeError` for a name that is none of these.
    """
    unit = cast("UnitOfWork", _GivenSession(session))  # a context asks it for its session and nothing else
    return Context(
        delivery=replace(_delivery(), **delivery),
        idempotency_key=idempotency_key,
        unit=unit,
        state=state,
        platforms=Platforms(thrive=thrive, sahha=sahha),
    )


def _delivery() -> Delivery:
    return Delivery(
        source="test",
        message_id="message-1",
        attempt=1,
        receive_count=1,
        accepted_at=datetime.now(UTC),
        ordering_key=None,
        headers={},
    )
