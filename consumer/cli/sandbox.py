"""`consumer sandbox`: both platforms, played on this machine."""

from __future__ import annotations

import asyncio
import shlex
import signal
from pathlib import Path
from typing import Any

import click

from consumer.cli.common import run_async
from consumer.cli.console import clear_errors
from consumer.ops.logs import configure_logging
from consumer.sandbox.credentials import Credentials
from consumer.sandbox.kept import STARTS, next_start
from consumer.sandbox.options import LOOPBACK, SandboxOptions
from consumer.sandbox.project import Kept, kept_project, write_sandbox_project
from consumer.sandbox.server import Sandbox, serve_sandbox

__all__ = ["command"]

_PORT = 8090
_SHARE = click.FloatRange(0, 1)


def _url(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or value.startswith(("http://", "https://")):
        return value
    raise click.BadParameter("expected http://... or https://...")


@click.command(name="sandbox", epilog="Example: consumer sandbox try-it --rate 5 --contract basic --duplicates 0.1")
@click.argument("folder", metavar="[DIR]", default="sandbox", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help=f"Port; 0: any free one. Default what DIR/consumer.toml says, else {_PORT}.",
)
@click.option("--expose", is_flag=True, help="Allow a --host that other machines reach: all keys are toys.")
@click.option(
    "--seed", default=1, show_default=True, help="The same seed makes the same members with the same history."
)
@click.option("--members", default=5, show_default=True, type=click.IntRange(0, 1000), help="Invented members.")
@click.option("--rate", default=1.0, show_default=True, type=click.FloatRange(0, 1000), help="Thrive events a second.")
@click.option("--burst", default=0, type=click.IntRange(0, 10_000), help="Thrive events at the start, all at once.")
@click.option(
    "--contract",
    default="mixed",
    show_default=True,
    type=click.Choice(["inline", "basic", "mixed"]),
    help="Whether Thrive's events carry their resource, or it is to be fetched.",
)
@click.option("--duplicates", default=0.0, type=_SHARE, help="Share of Thrive's events that are published twice.")
@click.option(
    "--speed",
    default=600.0,
    show_default=True,
    type=click.FloatRange(1, 1_000_000),
    help="How much faster waiting passes: retries, processing, intervals.",
)
@click.option("--latency", default=0.0, type=click.FloatRange(0, 600), help="Seconds added to every answer.")
@click.option("--error-rate", default=0.0, type=_SHARE, help="Share of calls answered 429, 500 or 503.")
@click.option(
    "--webhook-url", metavar="URL", callback=_url, help="Where Sahha's webhooks go, such as http://127.0.0.1:8081/."
)
@click.option("--webhook-rate", default=0.0, type=click.FloatRange(0, 1000), help="Sahha's webhooks a second.")
@click.option(
    "--webhook-interval",
    default=0,
    type=click.IntRange(0, 720),
    help="Minutes (of the faster time) in which only the last value of a metric is sent; 0: real-time.",
)
def command(*, folder: Path, **chosen: Any) -> None:
    """Play both platforms on this machine: their APIs, Thrive's events and Sahha's webhooks. All data are invented.

    DIR (default sandbox) becomes a project that works with it, as its README.md says, and keeps its keys and the
    queues registered with it for the next time; nothing else in it is overwritten. Stop it with Ctrl-C.

    Started again with the same --seed, it has the same members as at first, and new events about them. All else is
    forgotten: labs, cards and actions of before too, so an event that announced one which was not fetched yet has
    nothing to be fetched; members and profiles added, tokens, faults, and events that waited to be published.
    """
    configure_logging()
    with clear_errors():
        kept = kept_project(folder)
    run_async(lambda: _serve(folder, kept, chosen))


async def _serve(folder: Path, kept: Kept | None, chosen: dict[str, Any]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serve_sandbox(_options(folder, kept, chosen)) as sandbox:
        if kept is None:
            url = sandbox.url if chosen["host"] in LOOPBACK else f"http://127.0.0.1:{sandbox.port}"
            write_sandbox_project(folder, url=url, credentials=sandbox.parts.credentials)
        _show(sandbox, folder, kept)
        await stopped.wait()


def _options(folder: Path, kept: Kept | None, chosen: dict[str, Any]) -> SandboxOptions:
    port = chosen["port"]
    if port is None:
        port = _PORT if kept is None or kept.port is None else kept.port
    credentials = Credentials.new() if kept is None else kept.credentials
    file = folder / "secrets" / "queues.json"
    start = 0 if kept is None else next_start(folder / STARTS)
    fixed = {"port": port, "credentials": credentials, "queues_file": file, "start": start}
    return SandboxOptions(**{**chosen, **fixed})


def _show(sandbox: Sandbox, folder: Path, kept: Kept | None) -> None:
    members = len(sandbox.world.members)
    click.echo(f"Both platforms at {sandbox.url}, with {members} invented members. Ctrl-C ends it.")
    if kept is None:
        click.echo(f"Written to {folder}: a project that works with it.")
    else:
        click.echo(f"{folder / 'consumer.toml'} was there: its keys are used.")
        if kept.port != sandbox.port:
            click.echo(f"It says port {kept.port}, and this is port {sandbox.port}: change its base_url.", err=True)
    click.echo("Next, in another terminal:")
    for line in (
        f"cd {shlex.quote(str(folder))}",
        "consumer thrive queues register all --source events   # have the events published to the project's queue",
        "HANDLERS_REPORT_CARDS_AS=opened consumer run          # handle them; fetch and report what is nudged",
        f"curl {sandbox.url}/sandbox                    # what there is, and what it can be told to do",
    ):
        click.echo(f"  {line}")
    click.echo("Sahha's webhooks: `consumer relay` receives them, with --webhook-url http://127.0.0.1:8081/ here.")
