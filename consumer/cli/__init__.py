"""The command line: one module for each command, imported only when it is called."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from typing import Any

import click

from consumer import __version__

__all__ = ["main"]

_COMMANDS = {
    "demo": ("consumer.cli.demo", "Sign sample events, consume them with the shipped handlers, show the result."),
    "init": ("consumer.cli.init", "Write out a new partner project."),
    "run": ("consumer.cli.run", "Consume the configured sources."),
    "status": ("consumer.cli.operate", "Show how a running worker's sources are."),
    "pause": ("consumer.cli.operate", "Let a running worker receive no more from a source."),
    "resume": ("consumer.cli.operate", "Let it receive again."),
    "skip": ("consumer.cli.operate", "Put one event aside instead of trying it again."),
    "replay": ("consumer.cli.replay", "Handle dead letters again."),
    "dead-letters": ("consumer.cli.dead_letters", "List, show, export and purge dead letters."),
    "forget": ("consumer.cli.forget", "Erase a member from everything that is kept."),
    "publish": ("consumer.cli.publish", "Sign bodies and send them to a configured source."),
    "probe": ("consumer.cli.probe", "Find which signature scheme a captured message was signed with."),
    "check": ("consumer.cli.check", "Say whether the worker could run: settings, access, timers."),
    "routes": ("consumer.cli.routes", "Show which handlers get which events."),
    "schema": ("consumer.cli.schema", "Print the JSON Schema of the events."),
    "settings": ("consumer.cli.settings", "Print every setting with its value and origin."),
    "migrate": ("consumer.cli.migrate", "Create or update the database's tables."),
    "thrive": ("consumer.cli.thrive", "Thrive's REST API: members, labs, cards, queues."),
    "sahha": ("consumer.cli.sahha", "Sahha's REST API: profiles, scores, biomarkers, logs."),
    "relay": ("consumer.cli.relay", "Receive Sahha's webhooks and put them on a queue."),
    "sandbox": ("consumer.cli.sandbox", "Play both platforms locally: their APIs, events and faults."),
}


class _LazyGroup(click.Group):
    """Knows its commands by name and one line of help; loads a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(_COMMANDS[cmd_name][0])
        # A module of several small commands names each; others have one.
        command: click.Command = getattr(module, "command", None) or getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if os.getpid() == 1:
            # A container's first process: the kernel drops a SIGTERM that it has no handler for, so one that comes
            # before a command has set its own would be lost, and the container killed when its grace is over.
            signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
        return super().main(*args, **kwargs)


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `consumer demo`; `consumer COMMAND --help` shows an example of each.",
)
@click.version_option(__version__, prog_name="consumer")
def main() -> None:
    """Take signed health events off your queue and call your handlers, once in effect."""
