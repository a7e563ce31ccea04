"""The dispatch table: which handlers get which events."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, overload

from consumer.context import Context
from consumer.events import Event, UnknownEvent
from consumer.member import Member
from consumer.pace import Pace

if TYPE_CHECKING:
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["DispatchTable", "ForgetFunction", "Forgetter", "Handler", "HandlerFunction", "Lifespan"]

E = TypeVar("E", bound=Event)
A = TypeVar("A", bound=Event)
B = TypeVar("B", bound=Event)
C = TypeVar("C", bound=Event)
D = TypeVar("D", bound=Event)

HandlerFunction = Callable[[E, Context], Coroutine[Any, Any, None]]
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
ForgetFunction = Callable[[Member, "AsyncSession"], Coroutine[Any, Any, int | Mapping[str, int]]]
F = TypeVar("F", bound=ForgetFunction)


@dataclass(frozen=True, slots=True)
class Forgetter:
    """One function that erases what handlers keep of a member."""

    function: Callable[..., Coroutine[Any, Any, object]]
    """Typed to return counts; what a careless one returns is looked at all the same."""
    name: str
    """module.qualname: what reports and errors call it."""


@dataclass(eq=False, slots=True)
class Handler:
    """One registered function, with its limits and how fast it has lately been."""

    function: Callable[..., Coroutine[Any, Any, object]]
    """Typed to return None; what a careless one returns is looked at all the same."""
    name: str
    """module.qualname: what logs, metrics and dead letters call it."""
    timeout: float | None
    """Seconds one run may take; None: the source's `handler_timeout`."""
    max_concurrency: int | None
    """How many runs may be under way in this process; None: as many as there are deliveries in hand."""
    lifespan: Lifespan | None
    """Of the table it was registered on."""
    pace: Pace = field(default_factory=Pace)


class DispatchTable:
    """Maps event classes to handlers.

    `lifespan` is a function without parameters that returns an async context manager: entered before the first
    event, left after the last; what it yields is `context.state` for the handlers of this very table.

    `metadata` is a SQLAlchemy `MetaData` with the handlers' own tables: those that are missing in the worker's database
    are created where its own are (at the start, or by `consumer migrate`). None is ever changed or dropped.
    """

    def __init__(self, *, lifespan: Lifespan | None = None, metadata: MetaData | None = None) -> None:
        if inspect.isasyncgenfunction(lifespan):
            raise TypeError("the lifespan is a generator: put @contextlib.asynccontextmanager on it")
        self._lifespan = lifespan
        self._metadata: tuple[MetaData, ...] = () if metadata is None else (metadata,)
        self._handlers: dict[type[Event], tuple[Handler, ...]] = {}
        self._ignored: set[type[Event]] = set()
        self._forgetters: tuple[Forgetter, ...] = ()

    @overload
    def on(
        self, first: type[A], /, *, timeout: float | None = None, max_concurrency: int | None = None
    ) -> Callable[[HandlerFunction[A]], HandlerFunction[A]]: ...
    @overload
    def on(
        self, first: type[A], second: type[B], /, *, timeout: float | None = None, max_concurrency: int | None = None
    ) -> Callable[[HandlerFunction[A | B]], HandlerFunction[A | B]]: ...
    @overload
    def on(
        self,
        first: type[A],
        second: type[B],
        third: type[C],
        /,
        *,
        timeout: float | None = None,
        max_concurrency: int | None = None,
    ) -> Callable[[HandlerFunction[A | B | C]], HandlerFunction[A | B | C]]: ...
    @overload
    def on(
        self,
        first: type[A],
        second: type[B],
        third: type[C],
        fourth: type[D],
        /,
        *,
        timeout: float | None = None,
        max_concurrency: int | None = None,
    ) -> Callable[[HandlerFunction[A | B | C | D]], HandlerFunction[A | B | C | D]]: ...
    @overload
    def on(
        self, *event_types: type[E], timeout: float | None = None, max_concurrency: int | None = None
    ) -> Callable[[HandlerFunction[E]], HandlerFunction[E]]: ...

    def on(self, *event_types: type[Any], timeout: float | None = None, max_concurrency: int | None = None) -> Any:
        """Register an `async def handler(event, context)` for these event classes, matched exactly.

        `timeout` is in seconds. Several handlers of one class run in the order they were registered, in one
        transaction. Returns the function unchanged. Raises `TypeError` for anything that is not an event class, a
        function that is not `async def`, or parameters that do not fit.
        """
        if not event_types:
            raise TypeError("on() needs at least one event class: @table.on(LabResultEvent)")
        for event_type in event_types:
            _check_event_type(event_type)
        if timeout is not None and not timeout > 0:
            raise TypeError("timeout is a number of seconds above 0")
        if max_concurrency is not None and max_concurrency < 1:
            raise TypeError("max_concurrency is at least 1")

        def register(function: Any) -> Any:
            name = _check_function(function, event_types)
            handler = Handler(function, name, timeout, max_concurrency, self._lifespan)
            for event_type in event_types:
                self._add(event_type, handler)
            return function

        return register

    def ignore(self, *event_types: type[Event]) -> None:
        """Acknowledge events of these classes on purpose, without a handler and without a dead letter."""
        for event_type in event_types:
            _check_event_type(event_type)
            if event_type in self._handlers:
                raise TypeError(f"{event_type.__name__} has a handler, so it cannot be ignored")
            self._ignored.add(event_type)

    def forget(self, function: F) -> F:
        """Register what erases all that the handlers keep of a member: an `async def` of (member, session).

            @table.forget
            async def forget_member(member: Member, session: AsyncSession) -> dict[str, int]:
                gone = await session.execute(delete(lab_results).where(lab_results.c.user_id == member.user_id))
                return {"lab_results": gone.rowcount}

        It returns how many rows it erased: one number, or one for each table. `consumer forget` calls every such
        function, in the order they were registered, in one transaction that it commits, or rolls back after a dry run.
        So what is not in the session, leave alone when `member.dry_run` is set. Called for a member who is forgotten
        already it finds nothing and returns 0. Returns the function unchanged; raises `TypeError` for one that is not
        `async def`, does not fit, or is registered already.
        """
        name = _check_forgetter(function)
        self._add_forgetter(Forgetter(function, name))
        return function

    def include(self, other: DispatchTable) -> None:
        """Take over another table's handlers, database tables and `forget` functions.

        The handlers keep their own lifespan's state.
        """
        if other is self:
            raise TypeError("a table cannot include itself")
        for event_type, handlers in other._handlers.items():
            for handler in handlers:
                self._add(event_type, handler)
        self.ignore(*other._ignored)
        for forgetter in other._forgetters:
            self._add_forgetter(forgetter)
        self._metadata += tuple(theirs for theirs in other._metadata if theirs not in self._metadata)

    def handlers_for(self, event_type: type[Event]) -> tuple[Handler, ...]:
        """The handlers of exactly this class, in order; empty when it has none."""
        return self._handlers.get(event_type, ())

    def ignores(self, event_type: type[Event]) -> bool:
        """Whether events of exactly this class are acknowledged without being handled."""
        return event_type in self._ignored

    @property
    def event_types(self) -> frozenset[type[Event]]:
        """Every class the table says something about."""
        return frozenset(self._handlers) | self._ignored

    @property
    def takes_unknown(self) -> bool:
        """Whether a handler, or `ignore`, was given for events that no type names."""
        return UnknownEvent in self.event_types

    def lifespans(self) -> Iterator[Lifespan]:
        """Each distinct lifespan of the table and those it includes, the table's own first."""
        seen: dict[int, Lifespan] = {}
        if self._lifespan is not None:
            seen[id(self._lifespan)] = self._lifespan
        for handlers in self._handlers.values():
            for handler in handlers:
                if handler.lifespan is not None:
                    seen.setdefault(id(handler.lifespan), handler.lifespan)
        return iter(seen.values())

    @property
    def metadata(self) -> tuple[MetaData, ...]:
        """The database tables of this dispatch table's handlers and of those it includes."""
        return self._metadata

    @property
    def forgetters(self) -> tuple[Forgetter, ...]:
        """What erases members' data, of this table and of those it includes, in order."""
        return self._forgetters

    def _add_forgetter(self, forgetter: Forgetter) -> None:
        if any(known.function is forgetter.function for known in self._forgetters):
            raise TypeError(f"{forgetter.name} is registered already")
        self._forgetters += (forgetter,)

    def _add(self, event_type: type[Event], handler: Handler) -> None:
        if event_type in self._ignored:
            raise TypeError(f"{event_type.__name__} is ignored, so it cannot have a handler")
        present = self._handlers.get(event_type, ())
        if any(known.function is handler.function for known in present):
            raise TypeError(f"{handler.name} is registered for {event_type.__name__} already")
        self._handlers[event_type] = (*present, handler)


def _check_event_type(event_type: Any) -> None:
    if not (inspect.isclass(event_type) and issubclass(event_type, Event)):
        hint = "write @table.on(LabResultEvent)" if inspect.isfunction(event_type) else "such as LabResultEvent"
        what = getattr(event_type, "__qualname__", repr(event_type))
        raise TypeError(f"{what} is not an event class: {hint}")


def _name_of(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def _check_forgetter(function: Any) -> str:
    from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 - importing the package must not import it

    name = _name_of(function)
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{name} cannot forget: write it as `async def forget(member, session)`")
    try:
        inspect.signature(function).bind(object(), object())
    except TypeError:
        raise TypeError(f"{name} does not fit: it is called with (member, session)") from None
    member_hint, session_hint = _hints(function)
    if not _accepts(member_hint, Member):
        raise TypeError(f"{name} does not fit: its first parameter is the Member")
    if not _accepts(session_hint, AsyncSession):
        raise TypeError(f"{name} does not fit: its second parameter is the AsyncSession")
    return name


def _check_function(function: Any, event_types: tuple[type[Event], ...]) -> str:
    name = _name_of(function)
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{name} is not a handler: a handler is an `async def` function")
    try:
        inspect.signature(function).bind(object(), object())
    except TypeError:
        raise TypeError(f"{name} does not fit: a handler is called with (event, context)") from None
    event_hint, context_hint = _hints(function)
    for event_type in event_types:
        if not _accepts(event_hint, event_type):
            raise TypeError(f"{name} does not fit: its first parameter does not take {event_type.__name__}")
    if not _accepts(context_hint, Context):
        raise TypeError(f"{name} does not fit: its second parameter is the Context")
    return name


def _hints(function: Any) -> tuple[Any, Any]:
    """The annotations of the two parameters a handler is called with; Any where there is none."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - a name imported for type checkers only cannot be resolved; mypy sees to those
        return Any, Any
    names = [*inspect.signature(function).parameters, "", ""]
    return hints.get(names[0], Any), hints.get(names[1], Any)


def _accepts(hint: Any, given: type[Any]) -> bool:
    """Whether a parameter annotated `hint` takes an instance of `given`; what cannot be told is let through."""
    if hint is Any or hint is inspect.Parameter.empty:
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_accepts(member, given) for member in get_args(hint))
    # pydantic makes `ThriveEvent[LabResult]` a class of its own, which no other one derives from.
    pydantic_origin = getattr(hint, "__pydantic_generic_metadata__", {}).get("origin")
    target = origin or pydantic_origin or hint
    if isinstance(target, TypeVar):
        return target.__bound__ is None or _accepts(target.__bound__, given)
    if inspect.isclass(target):
        return issubclass(given, target) or getattr(target, "_is_protocol", False)
    return True
