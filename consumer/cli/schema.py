"""`consumer schema`: the JSON Schema of the events."""

from __future__ import annotations

import json
from pathlib import Path

import click

from consumer.app import load_table
from consumer.cli.console import clear_errors
from consumer.events import Event, SahhaEvent, ThriveEvent, UnknownEvent
from consumer.events.patterns import PatternTable
from consumer.events.schema import event_schemas
from consumer.providers import SHIPPED_CLASSES

__all__ = ["command"]


@click.command(name="schema", epilog="Example: consumer schema --type LabResultEvent > lab-result.schema.json")
@click.option("--type", "wanted", metavar="NAME", help="Only this class (LabResultEvent) or event type (lab.result).")
@click.option("--handlers", metavar="MODULE[:ATTRIBUTE]", help="The classes of this dispatch table, your own included.")
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Folder the handlers are imported from; default the current one.",
)
def command(*, wanted: str | None, handlers: str | None, app_dir: Path) -> None:
    """Print the JSON Schema of event bodies: of the shipped classes, or of those of a dispatch table.

    With --type one schema, else an object of them by class name.
    """
    classes: list[type[Event]] = list(SHIPPED_CLASSES)
    if handlers is not None:
        with clear_errors():
            table = load_table(handlers, app_dir)
        classes = sorted(table.event_types, key=lambda cls: cls.__qualname__)
    if wanted is None:
        click.echo(json.dumps(event_schemas(classes), indent=2))
        return
    (schema,) = event_schemas([_find(wanted, classes)]).values()
    click.echo(json.dumps(schema, indent=2))


def _find(wanted: str, classes: list[type[Event]]) -> type[Event]:
    known: list[type[Event]] = [UnknownEvent, *classes]
    by_name = {cls.__name__: cls for cls in known}
    if wanted in by_name:
        return by_name[wanted]
    with clear_errors():
        types = PatternTable({cls: cls.event_types for cls in classes if issubclass(cls, ThriveEvent | SahhaEvent)})
    found = types.find(wanted)
    if found is None:
        names = ", ".join(cls.__name__ for cls in classes)
        raise click.UsageError(
            f"--type: neither one of {names} nor one of their event types; --handlers adds those of your own"
        )
    return found
