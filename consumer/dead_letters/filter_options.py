"""The filters as command-line options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click

from consumer.dead_letters.filters import Filter, parse_time
from consumer.outcomes import REASONS, REDRIVEN

__all__ = ["filter_options"]


class _Time(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_time(value, now=datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _ids(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    if any(len(one) < _SHORTEST_ID for one in given):
        raise click.BadParameter(f"expected the first {_SHORTEST_ID} characters of an id, or more")
    return given


_TIME: Final = _Time()
_SHORTEST_ID: Final = 8
"""One more than chance makes equal among many, since a purge believes it."""
_OPTIONS: Final = (
    click.option(
        "--id",
        "ids",
        metavar="ID",
        multiple=True,
        callback=_ids,
        help=f"With this id, of which {_SHORTEST_ID} characters are enough; may be repeated.",
    ),
    click.option(
        "--reason",
        "reasons",
        type=click.Choice([*REASONS, REDRIVEN]),
        metavar="REASON",
        multiple=True,
        help=f"Put aside for this reason; may be repeated. One of: {', '.join([*REASONS, REDRIVEN])}.",
    ),
    click.option("--type", "types", metavar="GLOB", multiple=True, help="Of this event type, such as 'lab.*'."),
    click.option("--source", "sources", metavar="NAME", multiple=True, help="Received from this source."),
    click.option("--provider", "providers", metavar="NAME", multiple=True, help="Of this provider."),
    click.option("--user", "users", metavar="ID", multiple=True, help="About this user (sealed: needs the identity)."),
    click.option("--since", type=_TIME, metavar="TIME", help="Put aside since: ISO 8601, or 2h for 2 hours ago."),
    click.option("--until", type=_TIME, metavar="TIME", help="Put aside before this time."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many, oldest first."),
)  # fmt: skip
_NAMES: Final = ("ids", "reasons", "types", "sources", "providers", "users", "since", "until", "limit")


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the filter options; it gets them as one argument, `chosen`, a `Filter`."""

    @functools.wraps(function)
    def with_filter(*args: Any, **given: Any) -> Any:
        chosen = Filter(**{name: given.pop(name) for name in _NAMES})
        return function(*args, chosen=chosen, **given)

    for option in reversed(_OPTIONS):
        with_filter = option(with_filter)
    return with_filter
