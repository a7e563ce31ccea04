"""The dispatch table: what it takes, what it refuses, and when."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumer import Context, DispatchTable
from consumer.events import DailyDeviceEvent, Event, LabResultEvent, NudgeEvent, ThriveEvent, UnknownEvent


async def handle(event: Event, context: Context) -> None:
    """A handler of anything."""


def test_registration_returns_the_function_unchanged() -> None:
    """So it can be called in a test as what it is."""
    table = DispatchTable()
    assert table.on(LabResultEvent)(handle) is handle


def test_handlers_run_in_the_order_of_registration_and_match_exactly() -> None:
    """A handler of a base class does not get its children."""
    table = DispatchTable()

    @table.on(LabResultEvent, NudgeEvent)
    async def first(event: LabResultEvent | NudgeEvent, context: Context) -> None: ...

    @table.on(LabResultEvent)
    async def second(event: LabResultEvent, context: Context) -> None: ...

    assert [one.function for one in table.handlers_for(LabResultEvent)] == [first, second]
    assert [one.function for one in table.handlers_for(NudgeEvent)] == [first]
    assert table.handlers_for(DailyDeviceEvent) == ()

    class Partial(LabResultEvent):
        pass

    assert table.handlers_for(Partial) == ()


def sync_handler(event: Event, context: Context) -> None: ...


async def one_parameter(event: Event) -> None: ...


async def three_parameters(event: Event, context: Context, more: int) -> None: ...


async def wrong_event(event: NudgeEvent, context: Context) -> None: ...


async def too_narrow(event: LabResultEvent, context: Context) -> None: ...


async def wrong_context(event: LabResultEvent, context: dict[str, Any]) -> None: ...


async def generator(event: Event, context: Context) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    "function",
    [sync_handler, one_parameter, three_parameters, wrong_event, wrong_context, generator, 3, lambda e, c: None],
)
def test_what_cannot_be_a_handler_is_refused_at_registration(function: Any) -> None:
    """With a TypeError, long before the first event."""
    with pytest.raises(TypeError):
        DispatchTable().on(LabResultEvent)(function)


def test_a_handler_must_take_every_type_it_is_registered_for() -> None:
    """One of two is not enough, a union or a base is."""
    with pytest.raises(TypeError, match="NudgeEvent"):
        DispatchTable().on(LabResultEvent, NudgeEvent)(too_narrow)

    async def union(event: LabResultEvent | NudgeEvent, context: Context) -> None: ...
    async def base(event: ThriveEvent[Any], context: Context) -> None: ...
    async def bare(event, context) -> None: ...

    for function in (union, base, bare, functools.partial(three_parameters, more=1)):
        DispatchTable().on(LabResultEvent, NudgeEvent)(function)


@pytest.mark.parametrize("wrong", [str, "LabResultEvent", None, 3])
def test_only_event_classes_can_be_registered(wrong: Any) -> None:
    """A string or another class is a slip."""
    with pytest.raises(TypeError):
        DispatchTable().on(wrong)
    with pytest.raises(TypeError):
        DispatchTable().ignore(wrong)


def test_a_lifespan_without_its_decorator_is_refused() -> None:
    """A bare generator cannot be entered, and nothing would say so before the worker starts."""

    async def lifespan() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"put @contextlib\.asynccontextmanager on it"):
        DispatchTable(lifespan=lifespan)  # type: ignore[arg-type]  # the mistake that is meant


def test_contradictions_are_refused() -> None:
    """Ignored and handled, twice the same, no type at all, limits that cannot be."""
    table = DispatchTable()
    table.on(LabResultEvent)(handle)
    with pytest.raises(TypeError, match="already"):
        table.on(LabResultEvent)(handle)
    with pytest.raises(TypeError, match="has a handler"):
        table.ignore(LabResultEvent)
    table.ignore(NudgeEvent)
    with pytest.raises(TypeError, match="ignored"):
        table.on(NudgeEvent)(handle)
    for wrong in ({"timeout": 0}, {"timeout": -1}, {"max_concurrency": 0}):
        with pytest.raises(TypeError):
            table.on(DailyDeviceEvent, **wrong)
    with pytest.raises(TypeError):
        table.on()
    with pytest.raises(TypeError):
        table.include(table)


def test_an_included_table_brings_handlers_ignores_and_its_own_lifespan() -> None:
    """Handlers keep the state of the table they were written for."""

    @asynccontextmanager
    async def outer() -> AsyncIterator[str]:
        yield "outer"

    @asynccontextmanager
    async def inner() -> AsyncIterator[str]:
        yield "inner"

    table, other = DispatchTable(lifespan=outer), DispatchTable(lifespan=inner)
    other.on(UnknownEvent)(handle)
    other.ignore(NudgeEvent)
    table.include(other)
    assert table.takes_unknown
    assert table.ignores(NudgeEvent)
    assert table.handlers_for(UnknownEvent)[0].lifespan is inner
    assert list(table.lifespans()) == [outer, inner]
