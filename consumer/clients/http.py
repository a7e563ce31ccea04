"""What every REST client here shares: one connection pool, time-outs, repeats, limits, and silent errors.

No exception of aiohttp, of ssl or of the operating system leaves this module: their texts hold addresses with ids,
and answers. What leaves names the method, the path's template and the status.
"""

from __future__ import annotations

import asyncio
import functools
import json as json_codec
import ssl
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

import aiohttp
import stamina
from yarl import URL

from consumer import __version__
from consumer.clients.attempts import UNREADABLE, AttemptFailed, Waits, translated
from consumer.clients.pacing import Pacer
from consumer.clients.retry_after import wait_asked
from consumer.clients.urls import fill, proxy_for, require_secure
from consumer.deadline import time_left
from consumer.errors import ApiError, ApiErrorDetail, ConsumerError, NotFound
from consumer.ops.call_spans import CallSpan, calling, class_name
from consumer.outcomes import Unavailable

__all__ = ["UNREADABLE", "Http", "HttpOptions", "Reply", "api_error", "read_json"]

T = TypeVar("T")

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024

_CHUNK = 64 * 1024
_REFUSED = 400
_REDIRECT = 300
_BROKEN = 500
_TIMEOUT = 408
_TOO_MANY = 429
_GONE = frozenset({404, 410})
_PASSING = frozenset({408, 429, 502, 503, 504})
"""Statuses by which a server says that the same request may succeed later (RFC 9110, RFC 6585)."""
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that leave the same behind however often they arrive (RFC 9110, 9.2.2)."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How a platform's API is called. Times are in seconds."""

    timeout: float = 20.0
    """Longest one attempt may take, from making a connection to the last byte of the answer."""
    connect_timeout: float = 5.0
    attempts: int = 3
    """How often a request that may safely be repeated is made, all in all."""
    max_concurrency: int = 10
    max_rps: float | None = None
    """Most requests begun in a second, repeats included."""
    retry_budget: float = 10.0
    """How long all waiting between one request's attempts may take together."""
    total: float = 25.0
    """Longest a whole call may take: getting a token, waiting for a turn, all attempts; never less than `timeout`.

    Below the 30 seconds a handler has unless told otherwise, so that a platform that hangs ends as `Unavailable`, for
    which no attempt is counted.
    """
    observe: Callable[[str, int | None, float], None] | None = field(default=None, repr=False, compare=False)
    """Told of every request made: its method and template, the status (None without an answer), its seconds."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer below 300; `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self, call: str) -> Any:
        """The body's JSON value. Raises `ApiError` with the code `unreadable_answer` for what is not JSON."""
        try:
            return read_json(self.body)
        except ValueError:
            pass
        raise ApiError(call, status=self.status, code=UNREADABLE)


ErrorReader = Callable[[str, int, Mapping[str, str], bytes], ApiError]
"""Reads the answer to a refused request: call, status, headers, body."""


def read_json(body: bytes) -> Any:
    """The JSON value of bytes from a network; `ValueError`, without a text of theirs, for everything else."""
    try:
        return json_codec.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        pass
    raise ValueError("not JSON")


def api_error(
    call: str,
    *,
    status: int,
    code: str | None = None,
    message: str | None = None,
    details: Sequence[ApiErrorDetail] = (),
    request_id: str | None = None,
) -> ApiError:
    """The error for a refused request: `NotFound` for 404 and 410, else `ApiError`."""
    kind = NotFound if status in _GONE else ApiError
    return kind(call, status=status, code=code, message=message, details=details, request_id=request_id)


class Http:
    """Makes requests to one API. Its connection pool is made by the first request, in the loop that runs then."""

    def __init__(self, base_url: str, *, options: HttpOptions, errors: ErrorReader) -> None:
        """`base_url` is https, or http on loopback, and no more than a path follows (`ValueError` otherwise)."""
        base = require_secure(base_url)
        if base.raw_query_string or base.raw_fragment:
            raise ValueError("expected an address that ends after its path")
        self._base = str(base).rstrip("/")
        self._options = options
        self._total = max(options.total, options.timeout)
        self._errors = errors
        self._pacer = Pacer(options.max_rps)
        self._turns = asyncio.Semaphore(options.max_concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._done = Counter[str]()

    async def whole(self, call: str, work: Coroutine[Any, Any, T]) -> T:
        """What a whole call gives, which may be several requests, or raises.

        Raises `Unavailable` after `HttpOptions.total` seconds, or when a handler it is made for is about to run out of
        time. What else is raised comes without the frames below:
        their variables hold credentials and answers, and there are tools that print the variables of a traceback.
        """
        failed: Exception
        limit = asyncio.timeout(self._time())
        try:
            async with limit:
                return await work
        except (ConsumerError, Unavailable, ValueError) as error:
            failed = error
        except TimeoutError:
            if not limit.expired():
                raise
            failed = Unavailable(why=f"{call}: no answer in time", answered=self.answered(call))
        try:
            raise failed.with_traceback(None)
        finally:
            del failed  # which has this frame in its traceback

    async def request(
        self,
        method: str,
        template: str,
        *,
        path: Mapping[str, str] = _NOTHING,
        query: Sequence[tuple[str, str]] = (),
        json: Any = None,
        headers: Mapping[str, str] = _NOTHING,
        repeatable: bool | None = None,
        final: Collection[int] = (),
    ) -> Reply:
        """Make a request and read its answer.

        `template` is the path with `{names}` for what `path` fills in, percent-encoded. `repeatable` says whether the
        request may be made again when it is not known whether it arrived; None: when the method allows it. Statuses
        in `final` are answers like any other refusal, although they usually pass.

        Raises `Unavailable` for connect errors, time-outs, 408, 429 and 5xx, once the attempts are used up; `ApiError`
        for other refusals (`NotFound` for 404 and 410), redirects, and answers too large or broken; `ValueError` for
        arguments that cannot be sent.
        """
        call = f"{method} {template}"
        url = URL(f"{self._base}{fill(template, path, query)}", encoded=True)
        body = None if json is None else _written(json)
        kind = {} if body is None else {"content-type": "application/json"}
        return await self._repeat(
            _Request(call, method, url, {"accept": "application/json", **kind, **headers}, body, frozenset(final)),
            repeatable=method in _REPEATABLE if repeatable is None else repeatable,
        )

    async def put_bytes(self, call: str, url: str, content: bytes, *, headers: Mapping[str, str]) -> Reply:
        """Put bytes at an address that is not this API's, such as a pre-signed one; `headers` are all it is sent.

        Raises what `request` raises, and `ValueError` for an address that is neither https nor on loopback.
        """
        return await self._repeat(
            _Request(call, "PUT", require_secure(url), dict(headers), content, frozenset()), repeatable=True
        )

    def answered(self, call: str) -> Callable[[], int]:
        """A count of how often that call, by its method and template, was answered as it should be."""
        return lambda: self._done[call]

    async def close(self) -> None:
        """Close the connections; later requests raise `ConsumerError`."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _time(self) -> float:
        left = time_left()
        return self._total if left is None else min(self._total, left)

    async def _repeat(self, request: _Request, *, repeatable: bool) -> Reply:
        self._stay_in_one_loop()
        attempts = self._options.attempts if repeatable else 1
        waits = Waits(self._options.retry_budget, attempts=attempts, ends=time.monotonic() + self._time())
        failed: AttemptFailed
        try:
            async for attempt in stamina.retry_context(on=waits.after, attempts=attempts, timeout=None):
                with attempt:
                    return await self._attempt(request)
            raise AssertionError("stamina ends with an answer or an exception")
        except AttemptFailed as error:
            failed = error
        # Outside the handler, so that nothing hangs on to what failed inside.
        raise Unavailable(failed.retry_after, why=str(failed), answered=self.answered(request.call))

    async def _attempt(self, request: _Request) -> Reply:
        async with self._turns:
            pause = self._pacer.wait(time.monotonic())
            if pause:
                await asyncio.sleep(pause)
            begun = time.monotonic()
            with calling(request.call, request.method, request.url.host, request.url.explicit_port) as span:
                answer = await self._send(request)
                _tell(span, answer)
            if self._options.observe is not None:
                status = answer.status if isinstance(answer, Reply | ApiError) else None
                self._options.observe(request.call, status, time.monotonic() - begun)
        if isinstance(answer, Exception):
            raise answer
        if answer.status < _REDIRECT or answer.status in _GONE:
            self._done[request.call] += 1
        if answer.status < _REDIRECT:
            return answer
        raise self._refusal(request, answer)

    async def _send(self, request: _Request) -> Reply | Exception:
        """The answer, or what to raise instead; returned, so that it is raised without aiohttp's error behind it."""
        session = self._opened()
        proxy = proxy_for(request.url)
        try:
            async with session.request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                proxy=proxy,
            ) as response:
                body = await _read(response)
                if body is None:
                    return ApiError(request.call, status=response.status, code="too_large_answer")
                return Reply(response.status, response.headers, body)
        except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError) as error:
            if self._closed:
                return ConsumerError(f"{request.call}: the client is closed")
            if isinstance(error, RuntimeError):
                raise
            return translated(request.call, error, proxied=proxy is not None)

    def _refusal(self, request: _Request, answer: Reply) -> Exception:
        status = answer.status
        if status < _REFUSED:
            return ApiError(request.call, status=status, code="redirect")
        passing = status in _PASSING or status >= _BROKEN
        if not passing or status in request.final:
            return self._errors(request.call, status, answer.headers, answer.body)
        return AttemptFailed(
            request.call,
            f"HTTP {status}",
            again=status in _PASSING or (status == _BROKEN and request.method == "GET"),
            retry_after=wait_asked(status, answer.headers, datetime.now(UTC)),
        )

    def _stay_in_one_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ConsumerError("the client belongs to the event loop it was first used in: make one for each loop")

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ConsumerError("the client is closed")
        if self._session is None:
            options = self._options
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=options.max_concurrency, ssl=_tls()),
                timeout=aiohttp.ClientTimeout(total=options.timeout, sock_connect=options.connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Compressions aiohttp knows without further packages, and unpacks piece by piece.
                headers={"user-agent": f"health-event-consumer/{__version__}", "accept-encoding": "gzip, deflate"},
                trust_env=False,
                raise_for_status=False,
            )
        return self._session


@dataclass(frozen=True, slots=True)
class _Request:
    call: str
    method: str
    url: URL = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    final: frozenset[int] = frozenset()


def _tell(span: CallSpan, answer: Reply | Exception) -> None:
    if isinstance(answer, Reply):
        span.answered(answer.status)
    elif isinstance(answer, AttemptFailed):
        span.failed(answer.cause)
    else:
        span.failed(class_name(type(answer)))


def _written(value: Any) -> bytes:
    try:
        return json_codec.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError):
        pass
    # Outside the handler: json's own errors show values.
    raise ValueError("the request holds something that JSON cannot")


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, unpacked; None when it is larger than is read."""
    if (response.content_length or 0) > MAX_ANSWER_BYTES:
        return None
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _refuse_constant(_: str) -> Any:
    raise ValueError("not JSON")
