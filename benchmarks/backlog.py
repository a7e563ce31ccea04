"""The SQS stub with a long queue in it: `python -m benchmarks.backlog --count 1000000`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from benchmarks.material import signed_programs
from tests.emulators.sqs_stub import SqsStub

__all__: list[str] = []


async def _serve(count: int, latency: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with SqsStub(latency=latency) as stub:
        stub.create_queue("backlog", VisibilityTimeout="60")
        stub.fill("backlog", signed_programs(count))
        sys.stdout.write(f"{stub.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Serve a queue called `backlog` until SIGTERM; the URL is printed once it is full."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(_serve(options.count, options.latency))


if __name__ == "__main__":
    main()
