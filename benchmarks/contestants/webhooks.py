"""A sender of webhooks: so many keep-alive connections, on each of which the next follows as soon as one is answered.

Written against the sockets, so that it leaves the machine to what is measured. Prints one line of JSON: webhooks
answered 200 a second, and how long they took; anything else than 200 is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from benchmarks.material import SECRET
from consumer import SahhaSignature

__all__ = ["body", "request"]

_WARM_UP = 1.0
_FIELDS = '"profileId":"p","accountId":"a","type":"readiness","state":"high","score":0.93,"dataSources":["sleep"],'
_FACTOR = '{"id":"f","name":"sleep_debt","value":0.438,"goal":0,"score":0.97,"state":"high","unit":"hour"}'
_FACTORS = 9
"""With which a score has 1.2 KB, in the middle of what scores have."""
_PROFILES = 500


def body(number: int) -> tuple[bytes, str]:
    """The body of a score, each of another id, and whose it is."""
    user = f"user-{number % _PROFILES}"
    factors = ",".join([_FACTOR] * _FACTORS)
    text = (
        f'{{"id":"{number}","externalId":"{user}",{_FIELDS}"factors":[{factors}],'
        '"scoreDateTime":"2025-07-09T00:00:00+12:00","createdAtUtc":"2025-07-12T03:01:33Z","version":1}'
    )
    return text.encode(), user


def request(number: int, signature: SahhaSignature) -> bytes:
    """A whole request, signed."""
    raw, user = body(number)
    signed = signature.sign(raw, external_id=user, event_type="ScoreCreatedIntegrationEvent")
    head = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    return (
        f"POST /sahha HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\n{head}"
        f"Content-Length: {len(raw)}\r\n\r\n"
    ).encode() + raw


class _Client(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, requests: list[bytes], taken: list[tuple[float, float]]) -> None:
        self._requests = requests
        self._taken = taken
        self._transport: asyncio.Transport
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        """An answer; ours come whole."""
        if not data.startswith(b"HTTP/1.1 200") or not data.endswith(b"\r\n\r\n"):
            sys.exit(f"an answer that is no 200: {data[:200]!r}")
        now = time.perf_counter()
        self._taken.append((now, now - self._sent))
        self._next()

    def _next(self) -> None:
        if self._requests:
            self._sent = time.perf_counter()
            self._transport.write(self._requests.pop())
        else:
            self._transport.close()


async def _main(port: int, connections: int, seconds: float) -> None:
    signature = SahhaSignature(secrets=[SECRET])
    # Made before anything is sent; so many as no relay could take in the time.
    requests = [request(number, signature) for number in range(int(seconds * 8_000))]
    taken: list[tuple[float, float]] = []
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Client(requests, taken), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    requests.clear()
    counted = sorted(latency for at, latency in taken if begun + _WARM_UP < at <= begun + seconds)
    figures = {
        "rate": len(counted) / (seconds - _WARM_UP),
        "p50": counted[len(counted) // 2] * 1e3,
        "p99": counted[int(len(counted) * 0.99)] * 1e3,
        "worst": counted[-1] * 1e3,
    }
    print(json.dumps(figures))


def main() -> None:
    """Send for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    asyncio.run(_main(options.port, options.connections, options.seconds))


if __name__ == "__main__":
    main()
