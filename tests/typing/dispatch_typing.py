"""What the type checker must know of the dispatch table: mypy checks this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from consumer import Context, Delivery, DispatchTable
from consumer.events import DailyDeviceEvent, Event, LabResultEvent, NudgeEvent, ThriveEvent, UnknownEvent

table = DispatchTable()


@table.on(LabResultEvent)
async def one(event: LabResultEvent, context: Context) -> None:
    assert_type(context.delivery, Delivery)
    if event.data is not None:
        assert_type(event.data.lab_result_id, str | None)


@table.on(LabResultEvent, NudgeEvent, timeout=5.0, max_concurrency=2)
async def union(event: LabResultEvent | NudgeEvent, context: Context) -> None: ...


@table.on(LabResultEvent, NudgeEvent, DailyDeviceEvent)
async def base(event: Event, context: Context) -> None: ...


@table.on(UnknownEvent)
async def unknown(event: UnknownEvent, context: Context) -> None: ...


@table.on(NudgeEvent)  # type: ignore[arg-type] # the handler takes another event
async def wrong_event(event: LabResultEvent, context: Context) -> None: ...


@table.on(LabResultEvent, NudgeEvent)  # type: ignore[arg-type] # the handler takes only one of the two
async def too_narrow(event: LabResultEvent, context: Context) -> None: ...


@table.on(LabResultEvent)  # type: ignore[arg-type] # not async
def not_async(event: LabResultEvent, context: Context) -> None: ...


@table.on(LabResultEvent)  # type: ignore[arg-type] # no context
async def no_context(event: LabResultEvent) -> None: ...


table.on(str)  # type: ignore[type-var] # not an event class


def returns_what_it_was_given() -> None:
    assert_type(one, Callable[[LabResultEvent, Context], Coroutine[Any, Any, None]])


class Journey(ThriveEvent[dict[str, Any]]):
    """A partner's own event."""


@table.on(Journey)
async def journey(event: Journey, context: Context) -> None:
    assert_type(event.data, dict[str, Any] | None)
