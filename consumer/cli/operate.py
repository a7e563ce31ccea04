"""`consumer status`, `pause`, `resume` and `skip`: an operator's hand on a worker that runs on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from consumer.cli.common import Failed, WrongSettings, config_option, load
from consumer.cli.console import harmless, print_table
from consumer.ops.control import Refused, ask
from consumer.ops.control_folder import ControlError, check_folder, default_folder, sockets

__all__ = ["pause", "resume", "skip", "status"]

_pid = click.option("--pid", help="The worker's process id, if several run here.")


@click.command(name="status", epilog="Example: consumer status --json | jq '.sources[].state'")
@_pid
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, with why the probes are red and what waits to be skipped too."
)
@config_option
def status(*, pid: str | None, as_json: bool, config: Path | None) -> None:
    """Show how a running worker's sources are: state, what is in hand, what waits for another attempt.

    Events are shown by id and type, never by user. What its queue holds besides is among the metrics (queue_messages).
    """
    answer = _ask(config, pid, {"command": "status"})
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    sources: list[dict[str, Any]] = answer["sources"]
    print_table(
        ("source", "state", "in hand", "oldest", "retrying", "lanes blocked"),
        [
            (
                one["name"],
                ": ".join(filter(None, (one["state"], one["why"]))),
                str(one["in_hand"]),
                f"{one['oldest_age']:.0f} s",
                str(one["retrying_count"]),
                str(one["lanes_blocked"]),
            )
            for one in sources
        ],
    )
    retrying = [(one["name"], event) for one in sources for event in one["retrying"]]
    if retrying:
        click.echo("")
        print_table(
            ("source", "event", "type", "failed attempts", "next in", "message"),
            [
                (
                    name,
                    event["event_id"] or "-",
                    event["event_type"] or "-",
                    str(event["failed_attempts"]),
                    f"{event['due_in']:.0f} s",
                    event["message_id"],
                )
                for name, event in retrying
            ],
        )


@click.command(name="pause", epilog='Example: consumer pause labs --reason "database moves at 14:00"')
@click.argument("source")
@click.option("--reason", default="", help="Why; shown by /readyz, `consumer status` and the log.")
@_pid
@config_option
def pause(*, source: str, reason: str, pid: str | None, config: Path | None) -> None:
    """Let a running worker receive no more from SOURCE, until `consumer resume` or its end.

    What has not started goes back to the queue, what runs may finish, no attempt is counted. Events that their queue
    is about to delete are still put aside in time. Only this worker is paused, not others of the same queue, and a
    worker that is started again is not: scale to none for that. /readyz is red meanwhile.
    """
    _say(_ask(config, pid, {"command": "pause", "source": source, "reason": reason}))


@click.command(name="resume", epilog="Example: consumer resume labs")
@click.argument("source")
@_pid
@config_option
def resume(*, source: str, pid: str | None, config: Path | None) -> None:
    """End what `consumer pause` began. A source that is paused for trouble as well goes on once that is over."""
    _say(_ask(config, pid, {"command": "resume", "source": source}))


@click.command(name="skip", epilog="Example: consumer skip labs EVENT_ID --yes. Its dead letter can be replayed later.")
@click.argument("source")
@click.argument("event_id")
@click.option("--yes", is_flag=True, help="Do not ask whether to; needed where there is no terminal.")
@_pid
@config_option
def skip(*, source: str, event_id: str, yes: bool, pid: str | None, config: Path | None) -> None:
    """Put one event of SOURCE aside instead of trying it again: a dead letter, with the reason `skipped`.

    EVENT_ID is the event's own id, or its message's; `consumer status` shows both of those that wait for another
    attempt. An event in hand is skipped at its next attempt. One that waits in its queue is skipped when it comes to
    this worker, within a day: where several share a queue, tell each of them.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("skip puts the event aside: look with `consumer status` first, then add --yes")
    if not yes:
        click.confirm(f"Put the event {harmless(event_id)} of {harmless(source)} aside?", abort=True, err=True)
    _say(_ask(config, pid, {"command": "skip", "source": source, "event_id": event_id}))


def _say(answer: Mapping[str, Any]) -> None:
    click.echo(harmless(str(answer["say"])))


def _ask(config: Path | None, pid: str | None, request: Mapping[str, Any]) -> dict[str, Any]:
    settings = load(config).settings
    try:
        folder = settings.control.path or default_folder()
        return ask(_socket(folder, pid), request)
    except Refused as refused:
        raise (WrongSettings if refused.wrong else Failed)(harmless(str(refused))) from None
    except ControlError as error:
        raise Failed(str(error)) from None


def _socket(folder: Path, pid: str | None) -> Path:
    """The socket of the worker that is meant. Raises `ControlError` when there is none, or more than one."""
    if not folder.exists():
        raise ControlError(_nobody(folder))
    check_folder(folder)
    found = [path for path in sockets(folder) if _answers(path)]
    if pid is not None:
        found = [path for path in found if path.stem == pid]
    if not found:
        raise ControlError(_nobody(folder) if pid is None else f"no worker with the id {pid} answers in {folder}")
    if len(found) > 1:
        raise ControlError(f"several workers run here, choose one with --pid: {', '.join(path.stem for path in found)}")
    return found[0]


def _answers(path: Path) -> bool:
    try:
        ask(path, {"command": "status"})
    except (ControlError, Refused):
        return False
    return True


def _nobody(folder: Path) -> str:
    return (
        f"no worker answers in {folder}: is one running as this user, with CONSUMER_CONTROL__PATH as it is here, "
        "and CONSUMER_CONTROL__ENABLED?"
    )
