"""How answers of the platforms' REST APIs are printed: on standard output, and nothing else is there."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
from pydantic import BaseModel

from consumer.cli.common import Failed
from consumer.cli.console import harmless, print_table

__all__ = ["first", "note", "plain", "print_done", "print_list", "print_object"]

T = TypeVar("T")

_NOTHING: Final = "-"
_ODD: Final = "the answer cannot be shown: it is nested too deeply, or has a name that is no text"


def plain(value: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """A model, or an object in JSON already, as JSON: under the platform's own names, unknown fields included.

    Raises `Failed` for one that is nested too deeply, or has a name in it that is no text.
    """
    try:
        return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else dict(value)
    except (ValueError, RecursionError):
        raise Failed(_ODD) from None


async def first(items: AsyncIterator[T], limit: int) -> tuple[list[T], bool]:
    """The first `limit` items, and whether there are more. No page is fetched that is not needed to know it."""
    found: list[T] = []
    try:
        async for item in items:
            if len(found) == limit:
                return found, True
            found.append(item)
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
    return found, False


def print_object(value: BaseModel | Mapping[str, Any] | None, *, as_json: bool) -> None:
    """Print one object: JSON, or a line `field  value` for each field, `a.b` and `a.0` for what is inside others.

    None is an answer without data: `null`, or nothing but a note on standard error.
    """
    shown = None if value is None else plain(value)
    if as_json:
        _print_json(shown)
    elif shown:
        lines = _lines(shown)
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            click.echo(f"{name:{width}}  {text}")
    else:
        note("no data")


def print_list(
    items: Sequence[BaseModel | Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, more: bool = False
) -> None:
    """Print a list: a JSON array of all there is in each, or a table of the fields `columns` (`a.b` for nested ones).

    With `more`, a note says that the list goes on.
    """
    rows = [plain(item) for item in items]
    if as_json:
        _print_json(rows)
    elif rows:
        print_table([column.replace("_", " ") for column in columns], _table(rows, columns))
    else:
        note("no data")
    if more:
        note(f"these are the first {len(rows)}: there are more, see --limit")


def print_done(text: str, facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print that something was done, where the platform answers with nothing: a sentence, or `facts` as JSON."""
    if as_json:
        _print_json(facts)
    else:
        click.echo(harmless(text))


def note(text: str) -> None:
    """Say something beside the answer, on standard error."""
    click.echo(harmless(text), err=True)


def _print_json(value: Any) -> None:
    try:
        # ASCII only, so that nothing in it can steer a terminal.
        text = json.dumps(value, indent=2, ensure_ascii=True)
    except RecursionError:
        raise Failed(_ODD) from None
    click.echo(text)


def _lines(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    try:
        return list(_flat(value))
    except RecursionError:
        raise Failed(_ODD) from None


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    try:
        return [[_cell(row, name) for name in columns] for row in rows]
    except RecursionError:
        raise Failed(_ODD) from None


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf, with the way to it. A list of plain values is one leaf."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{name}.{number}")
    else:
        yield _line(name), _line(_text(value))


def _cell(row: Mapping[str, Any], name: str) -> str:
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value or _NOTHING
    if value is None or value in ([], {}):
        return _NOTHING
    if isinstance(value, list) and not any(isinstance(item, Mapping | list) for item in value):
        return ", ".join(map(_text, value))
    return json.dumps(value, ensure_ascii=False)


def _line(text: str) -> str:
    """A text that stays on its line."""
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")
