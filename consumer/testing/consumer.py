"""A worker in a box: the production path from a message's bytes to its outcome, without a queue."""

from __future__ import annotations

import json
import tempfile
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.ext.asyncio import AsyncSession

from consumer.app import enter_lifespans, enter_platforms, opened_database
from consumer.context import Platforms
from consumer.database import Database
from consumer.dead_letters.record import DeadLetter
from consumer.dead_letters.writing import record_of
from consumer.deliveries import Held, Item
from consumer.dispatch import DispatchTable
from consumer.envelope import split, unwrap_neutral
from consumer.errors import ConsumerError, Unreadable
from consumer.events import Event, SahhaEvent
from consumer.forgetting import forget_kept
from consumer.guard import Guard
from consumer.inbox import Inbox
from consumer.member import Member
from consumer.opening import open_message
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import open_spans
from consumer.outcomes import (
    DeadLettered,
    Duplicate,
    GivenBack,
    Handled,
    Outcome,
    Reject,
    Retry,
    Unavailable,
    WillRetry,
)
from consumer.pipeline import Pipeline
from consumer.providers import build_readers, build_route, build_sahha_signature, build_thrive_signature
from consumer.route import Route
from consumer.running import HandlerFailed, Runner
from consumer.settings import Settings, SourceSettings
from consumer.settings_loading import load_settings
from consumer.signatures import SahhaSignature, ThriveSignature
from consumer.sources.base import Message

if TYPE_CHECKING:
    from consumer.inbox import UnitOfWork

__all__ = ["TestConsumer"]

_SOURCE = "test"
_SAHHA_SOURCE = "sahha"
_SOMEBODY = "somebody"
_SECRET = "a secret for tests"  # noqa: S105 - it protects nothing


@dataclass(slots=True)
class _Open:
    """What exists between enter and exit."""

    database: Database
    inbox: Inbox
    pipeline: Pipeline
    routes: Mapping[str, Route]
    """By provider."""
    thrive: ThriveSignature
    sahha: SahhaSignature
    stack: AsyncExitStack


class _NoMeter:
    def handler_ran(self, name: str, seconds: float) -> None:
        """Measure nothing."""

    def handler_failed(self, name: str, error: BaseException) -> None:
        """Count nothing."""


class _TellingRunner(Runner):
    """Prints what handlers raise, text and all: it is their author who looks, and the data are made up."""

    async def run_alone(self, item: Item, unit: UnitOfWork) -> None:
        try:
            await super().run_alone(item, unit)
        except HandlerFailed as failed:
            if not isinstance(failed.error, Retry | Reject | Unavailable):
                traceback.print_exception(failed.error)
            raise


class TestConsumer:
    """Takes events the way a worker does, and tells what became of each.

        async with TestConsumer(table) as consumer:
            outcome = await consumer.send(sample(LabResultEvent, user_id="u1"))
            assert outcome == Handled()

    Everything but the queue is real: the signature is made and verified, the body is read, the inbox is asked, the
    handlers run in a transaction of a private SQLite database. Each `send` is one delivery; after `WillRetry`, send the
    same event again to see its next attempt. What a handler raises is printed with its traceback, on standard error.

    `settings` are settings by their dotted names, such as `{"max_attempts": 3}`, or `{"database.url": "postgresql://..."}`
    for another, empty database. Neither environment nor files are read. `thrive` and `sahha` stand in for the REST
    clients, which otherwise have no keys: their calls raise `NotConfigured`. Sahha's events may be of any age unless
    `sahha.signature.max_age` is set. Entering raises `SettingsError` for a setting that is wrong.
    """

    __test__ = False
    """Keeps pytest from taking the class for tests."""

    def __init__(
        self,
        table: DispatchTable,
        *,
        secret: str = _SECRET,
        settings: Mapping[str, Any] | None = None,
        thrive: Any = None,
        sahha: Any = None,
    ) -> None:
        self.dead_letters: list[DeadLetter] = []
        """What was put aside, in order."""
        self._table = table
        secrets = {"thrive.signature.secrets": [secret], "sahha.signature.secrets": [secret]}
        self._settings: dict[str, Any] = {**secrets, **(settings or {})}
        self._platforms = Platforms(thrive=thrive, sahha=sahha)
        self._open: _Open | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="consumer-test-")))
            self._open = await self._opened(folder, stack)
            self._open.stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._open = self._opened_parts, None
        await opened.stack.__aexit__(kind, error, trace)

    @property
    def database(self) -> Database:
        """The database: `async with consumer.database.engine.connect() as connection`."""
        return self._opened_parts.database

    def session(self) -> AsyncSession:
        """A session of your own, to prepare rows and to look at what handlers wrote; committing is up to you.

        Close it before the next `send`: SQLite has one transaction at a time.
        """
        return AsyncSession(self.database.engine, expire_on_commit=False)

    async def send(self, event: Event, *, signed_at: datetime | str | None = None) -> Outcome:
        """Sign an event as its platform does, deliver it and return what became of it.

        `signed_at` is now unless given; Sahha signs none. The event takes the way over its JSON: a class of your own
        comes back as itself only if the table says something about it.
        """
        parts = self._opened_parts
        if event.provider == "sahha":
            # Of an unknown event, all of the body is among the extras.
            body = event.model_dump_json(by_alias=True) if isinstance(event, SahhaEvent) else _extras(event)
            headers = parts.sahha.sign(body, external_id=event.user_id or _SOMEBODY, event_type=event.event_type)
            return await self.send_raw(body.encode(), headers)
        return await self.send_raw(parts.thrive.sign(event.model_dump_json(by_alias=True), signed_at=signed_at))

    async def send_raw(self, raw: bytes, headers: Mapping[str, str] | None = None) -> Outcome:
        """Deliver a message's bytes as they are, with `headers` as its attributes.

        With an `X-Signature` header, or as a neutral envelope of Sahha's, it comes from a source of Sahha's. A message
        of several envelopes has the outcome that its queue would see: a retry before a dead letter before anything
        else.
        """
        now = datetime.now(UTC)
        message = Message(
            body=raw, message_id=str(uuid.uuid4()), receipt=None, accepted_at=now, headers=dict(headers or {})
        )
        # A guard of its own for each delivery: a test may well send nothing but forged messages.
        route = replace(self._opened_parts.routes[_provider(raw, message.headers)], guard=Guard())
        items = open_message(Held(message, received_at=time.monotonic()), route)
        outcomes = [await self._outcome(item, now) for item in items]
        return min(outcomes, key=_weight)

    async def forget(
        self, user_id: str, *, provider: str | None = None, profile_ids: Sequence[str] = ()
    ) -> dict[str, int]:
        """Erase a member by the table's `forget` functions, as `consumer forget` does; how many rows, by table.

        `provider` and `profile_ids` are those of `consumer.Member`. Raises `ConsumerError` when the table has no such
        function, or one fails.
        """
        if not self._table.forgetters:
            raise ConsumerError("the table has no function that forgets: register one with @table.forget")
        member = Member(user_id, provider=provider, profile_ids=tuple(profile_ids))
        return await forget_kept(self._opened_parts.inbox, self._table.forgetters, member)

    async def _outcome(self, item: Item, now: datetime) -> Outcome:
        parts = self._opened_parts
        verdict = item.verdict or await parts.pipeline.outcome(item)
        if isinstance(verdict, DeadLettered):
            self.dead_letters.append(record_of(item, verdict, first_received_at=now, now=datetime.now(UTC)))
            if item.key:
                await parts.inbox.forget_attempts([item.key])
        elif isinstance(verdict, GivenBack):
            return WillRetry(verdict.retry_after or 0.0)
        if isinstance(verdict, Handled | Duplicate | WillRetry | DeadLettered):
            return verdict
        raise ConsumerError("the delivery was lost: there is no lease here that could be")

    @property
    def _opened_parts(self) -> _Open:
        if self._open is None:
            raise ConsumerError("use it as `async with TestConsumer(table) as consumer`")
        return self._open

    async def _opened(self, folder: Path, stack: AsyncExitStack) -> _Open:
        settings = load_settings(env={}, cwd=folder, overrides={**_defaults(folder), **self._settings}).settings
        table = self._table
        thrive, sahha = settings.source(_SOURCE), _sahha_source(settings)
        readers = build_readers(settings, table)
        # Sample events, and captured ones, are as old as they are.
        any_age = "sahha.signature.max_age" not in self._settings
        routes = {
            "thrive": build_route(thrive, settings, table, readers),
            "sahha": replace(build_route(sahha, settings, table, readers), any_age=any_age),
        }
        database = await stack.enter_async_context(opened_database(settings, table))
        states = await enter_lifespans(stack, table)
        keyless = await enter_platforms(stack, settings)
        given = self._platforms
        platforms = Platforms(
            thrive=keyless.thrive if given.thrive is None else given.thrive,
            sahha=keyless.sahha if given.sahha is None else given.sahha,
        )
        inbox = Inbox(database)
        spans = open_spans(TracedQueue.of(source) for source in (thrive, sahha))
        pipeline = Pipeline(
            database=database,
            inbox=inbox,
            runner=_TellingRunner(states=states, platforms=platforms, meter=_NoMeter(), spans=spans),
            retry_base=settings.retry.base,
            retry_cap=settings.retry.cap,
        )
        return _Open(
            database, inbox, pipeline, routes, build_thrive_signature(thrive), build_sahha_signature(sahha), stack
        )


def _sahha_source(settings: Settings) -> SourceSettings:
    """What the source of Thrive's has from the settings, for Sahha."""
    changes = {"name": _SAHHA_SOURCE, "provider": "sahha", "signature": settings.sahha.signature}
    return settings.source(_SOURCE).model_copy(update=changes)


def _provider(raw: bytes, headers: Mapping[str, str]) -> str:
    """Whose source a message belongs to."""
    if any(name.lower() == "x-signature" for name in headers):
        return "sahha"
    try:
        neutral = unwrap_neutral(split(raw)[0])
    except Unreadable:
        neutral = None
    return "sahha" if neutral is not None and neutral.provider == "sahha" else "thrive"


def _extras(event: Event) -> str:
    return json.dumps(event.model_extra or {})


def _defaults(folder: Path) -> dict[str, Any]:
    return {
        f"sources.{_SOURCE}.kind": "local",
        f"sources.{_SOURCE}.path": str(folder / "queue"),
        "database.url": f"sqlite:///{folder / 'consumer.db'}",
        "database.auto_migrate": True,
    }


def _weight(outcome: Outcome) -> int:
    order: Sequence[type[Any]] = (WillRetry, DeadLettered, Handled, Duplicate)
    return order.index(type(outcome))
