"""`consumer relay`: Sahha's webhooks onto a queue."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from consumer.app import build_source, make_importable
from consumer.cli.common import config_option, load, run_async
from consumer.cli.service import open_health_server, stopping_signals
from consumer.collector import settle_collector
from consumer.ops.logs import configure_logging
from consumer.ops.server import Probes
from consumer.ops.tracing_sdk import exported_spans
from consumer.providers import build_sahha_signature
from consumer.relay import Relay, relay_source
from consumer.secret_files import read_secret_file, watch_secret_files
from consumer.settings_loading import Loaded, load_settings

__all__ = ["command"]

_HEALTH_PORT = 8082
"""Beside a worker on one machine, which has the settings' default."""

_log = structlog.get_logger("relay")


@click.command(
    name="relay",
    epilog="Example: consumer relay --source scores --port 8081. Then let https://<your host>/<any path> lead here, "
    "and enter that address in Sahha's dashboard.",
)
@config_option
@click.option("--source", help="The source whose queue is filled; default the only one with provider sahha.")
@click.option("--host", help="Address to listen on; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0: any free one; default 8081.")
def command(*, config: Path | None, source: str | None, host: str | None, port: int | None) -> None:
    """Receive Sahha's webhooks over HTTP and put them on a queue, until SIGTERM or Ctrl-C.

    A webhook is answered 200 once the queue has accepted its exact bytes and headers, and 503 if it has not; then
    nothing in hand is left unanswered at the end. HTTPS, and keeping floods of anybody's requests out, is for the
    ingress in front. The worker verifies signatures; CONSUMER_RELAY__VERIFY=true does so here as well, but a wrong
    secret would then refuse events that may never come again.
    """
    overrides = {"relay.source": source, "relay.host": host, "relay.port": port}
    loaded = load(config, overrides)
    settings = loaded.settings
    configure_logging(level=settings.log.level, form=settings.log.format)

    def reload() -> Loaded:
        return load_settings(config=config, overrides=overrides)

    async def main() -> None:
        make_importable(settings.app_dir)
        chosen = relay_source(settings)
        queue = build_source(chosen, for_sending=True)
        relay = Relay(
            settings,
            queue,
            signature=build_sahha_signature(chosen) if settings.relay.verify else None,
            open_files=_open_files(),
        )
        stop = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(exported_spans())
            stack.push_async_callback(queue.close)
            await open_health_server(
                stack,
                loaded,
                metrics=relay.metrics,
                probes=Probes(relay.not_started, relay.not_live, relay.not_ready),
                default_port=_HEALTH_PORT,
            )
            if relay.signature is not None:
                watching = asyncio.create_task(_watch_secrets(loaded, reload, relay))
                stack.callback(watching.cancel)
            settle_collector()
            with stopping_signals(stop.set):
                try:
                    await relay.serve(stop, drain_timeout=settings.drain_timeout)
                finally:
                    _log.info("stopped", accepted=relay.metrics.total(200), unavailable=relay.metrics.total(503))

    run_async(main, uvloop=settings.uvloop)


def _open_files() -> int:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if most == resource.RLIM_INFINITY else most  # which Linux says as -1


async def _watch_secrets(loaded: Loaded, reload: Callable[[], Loaded], relay: Relay) -> None:
    """Verify by the secrets in the files as they are now; what cannot be read or used changes nothing."""
    watched = [path for key, path in loaded.secret_files.items() if key.endswith("signature.secrets")]
    in_use = relay_source(loaded.settings).signature

    def changed(path: Path) -> None:
        nonlocal in_use
        read_secret_file(path)
        fresh = relay_source(reload().settings)
        if fresh.signature != in_use:
            relay.signature, in_use = build_sahha_signature(fresh), fresh.signature
            _log.info("secrets_reloaded", file=path.name)
            relay.metrics.secrets.read("done")

    def unusable(_: Path) -> None:
        relay.metrics.secrets.read("failed")

    await watch_secret_files(watched, stop=asyncio.Event(), on_change=changed, tell_first=True, on_unusable=unusable)
