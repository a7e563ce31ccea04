"""The HTTP core of the REST clients: repeats, limits, silence."""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import logging
import socket
import ssl
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import stamina
import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.clients import http as http_module
from consumer.clients.http import Http, HttpOptions, api_error
from consumer.clients.pacing import Pacer
from consumer.clients.retry_after import LONGEST, parse_retry_after, wait_asked
from consumer.clients.urls import fill, proxy_for, require_secure
from consumer.errors import ApiError, ConsumerError, NotFound, SettingsError
from consumer.outcomes import Unavailable
from tests.servers.processes import free_port
from tests.servers.scripted import answering, raw_server, scripted, stream_server

NOW = datetime(2026, 3, 16, 8, tzinfo=UTC)
SECRET = "s3cr3t-member-4711"


@pytest.fixture(autouse=True)
def _no_waits():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def errors(call: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    return api_error(call, status=status, message=body.decode(errors="replace"))


def client(url: str, **options) -> Http:
    return Http(url, options=HttpOptions(**options), errors=errors)


async def call(server, answer_to="GET", **options):
    http = client(server.url, **options)
    try:
        return await http.request(answer_to, "/v1/users/{user_id}", path={"user_id": SECRET})
    finally:
        await http.close()


async def test_an_answer_is_returned_with_status_headers_and_json():
    async with scripted(answering(web.json_response({"a": 1}, status=201, headers={"X-Thing": "t"}))) as server:
        reply = await call(server)
    assert (reply.status, reply.headers["x-thing"], reply.json("GET /x")) == (201, "t", {"a": 1})
    assert repr(reply) == "Reply(status=201)"


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000, b"NaN", b'{"a": Infinity}', b"1" * 5000])
async def test_what_is_not_json_is_an_api_error_without_context(body):
    async with scripted(answering(web.Response(body=body))) as server:
        reply = await call(server)
    with pytest.raises(ApiError) as caught:
        reply.json("GET /v1/users/{user_id}")
    assert (caught.value.code, caught.value.__context__) == ("unreadable_answer", None)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_passing_refusal_is_repeated_where_that_is_safe(method, status):
    async with scripted(answering(web.Response(status=status), web.Response(text="ok"))) as server:
        reply = await call(server, method)
        assert reply.body == b"ok"
        assert len(server.requests) == 2


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_take_effect_twice_is_not_repeated(method):
    async with scripted(answering(web.Response(status=503, headers={"Retry-After": "7"}))) as server:
        with pytest.raises(Unavailable) as caught:
            await call(server, method)
        assert len(server.requests) == 1
    assert caught.value.retry_after == 7
    assert caught.value.why == f"{method} /v1/users/{{user_id}}: HTTP 503"


async def test_a_post_said_to_be_repeatable_is():
    async with scripted(answering(web.Response(status=503), web.Response())) as server:
        http = client(server.url)
        await http.request("POST", "/v1/x", json={"a": 1}, repeatable=True)
        await http.close()
        assert [request.body for request in server.requests] == [b'{"a":1}'] * 2


@pytest.mark.parametrize(("method", "made"), [("GET", 3), ("PUT", 1)])
async def test_a_plain_500_is_repeated_for_reads_only(method, made):
    async with scripted(answering(web.Response(status=500))) as server:
        with pytest.raises(Unavailable):
            await call(server, method)
        assert len(server.requests) == made


@pytest.mark.parametrize("status", [400, 401, 403, 409, 422])
async def test_other_refusals_are_api_errors_at_once(status):
    async with scripted(answering(web.Response(status=status, text="no"))) as server:
        with pytest.raises(ApiError) as caught:
            await call(server)
        assert len(server.requests) == 1
    assert (type(caught.value), caught.value.status, caught.value.message) == (ApiError, status, "no")


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_not_there_is_not_found(status):
    async with scripted(answering(web.Response(status=status))) as server:
        with pytest.raises(NotFound):
            await call(server)


async def test_a_final_status_is_an_api_error_although_it_usually_passes():
    async with scripted(answering(web.Response(status=503, headers={"Retry-After": "86400"}))) as server:
        http = client(server.url)
        with pytest.raises(ApiError):
            await http.request("GET", "/v1/rotate", final={503})
        await http.close()
        assert len(server.requests) == 1


async def test_a_redirect_is_not_followed():
    async with scripted(answering(web.Response(status=302, headers={"Location": "/elsewhere"}))) as server:
        with pytest.raises(ApiError) as caught:
            await call(server)
        assert len(server.requests) == 1
    assert caught.value.code == "redirect"


async def test_a_wait_longer_than_the_budget_is_left_to_the_caller():
    async with scripted(answering(web.Response(status=503, headers={"Retry-After": "11"}))) as server:
        with pytest.raises(Unavailable) as caught:
            await call(server)
        assert len(server.requests) == 1
    assert caught.value.retry_after == 11


async def test_several_waits_share_the_budget():
    async with scripted(answering(web.Response(status=429, headers={"Retry-After": "4"}))) as server:
        with pytest.raises(Unavailable):
            await call(server, attempts=50)
        assert len(server.requests) == 3


async def test_what_the_server_asks_for_is_waited():
    async with scripted(answering(web.Response(status=503, headers={"Retry-After": "0.2"}), web.Response())) as server:
        with stamina.set_testing(False):
            began = time.monotonic()
            await call(server)
    assert time.monotonic() - began >= 0.2


async def test_nobody_listening_is_unavailable_after_all_attempts():
    http = client(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match=r"^GET /v1: connection refused$"):
        await http.request("GET", "/v1")
    await http.close()


async def test_a_name_that_nobody_has_is_told_from_a_server_that_is_down(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, SECRET)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    http = client("https://api.example.invalid", attempts=1)
    with pytest.raises(Unavailable, match=r"^GET /v1: the name is not known$"):
        await http.request("GET", "/v1")
    await http.close()


async def test_a_server_without_tls_is_told_apart():
    async def plain(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with stream_server(plain) as port:
        http = client(f"https://localhost:{port}", attempts=1)
        with pytest.raises(Unavailable, match=r"^GET /v1: no TLS of 1\.2 or later is spoken there$"):
            await http.request("GET", "/v1")
        await http.close()


async def test_a_proxy_that_is_down_is_not_taken_for_the_server(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
    http = client("https://api.example.com", attempts=1)
    with pytest.raises(Unavailable, match=r"^GET /v1: the proxy cannot be reached$"):
        await http.request("GET", "/v1")
    await http.close()


async def test_no_answer_in_time_is_unavailable():
    async def slow(_):
        await asyncio.sleep(30)
        return web.Response()

    async with scripted(slow) as server:
        with pytest.raises(Unavailable, match="no answer in time"):
            await call(server, timeout=0.05, attempts=1)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"])
async def test_a_connection_cut_short_is_unavailable(data):
    async with raw_server(data) as url:
        http = client(url)
        with pytest.raises(Unavailable, match="no connection"):
            await http.request("GET", "/v1")
        await http.close()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip",
    ],
)
async def test_what_is_not_http_is_an_api_error(data):
    async with raw_server(data) as url:
        http = client(url)
        with pytest.raises(ApiError) as caught:
            await http.request("GET", "/v1")
        await http.close()
    assert (caught.value.code, caught.value.__context__) == ("unreadable_answer", None)


async def test_an_answer_is_not_unpacked_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(http_module, "MAX_ANSWER_BYTES", 100_000)
    bomb = gzip.compress(b"0" * 200_000)
    assert len(bomb) < 1000
    async with scripted(answering(web.Response(body=bomb, headers={"Content-Encoding": "gzip"}))) as server:
        with pytest.raises(ApiError) as caught:
            await call(server)
    assert caught.value.code == "too_large_answer"


async def test_compressed_answers_are_read():
    packed = web.Response(body=gzip.compress(b'"x"' * 1), headers={"Content-Encoding": "gzip"})
    async with scripted(answering(packed)) as server:
        assert (await call(server)).json("GET /x") == "x"


async def test_an_announced_size_beyond_the_limit_is_not_read():
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n") as url:
        http = client(url)
        with pytest.raises(ApiError) as caught:
            await http.request("GET", "/v1")
        await http.close()
    assert caught.value.code == "too_large_answer"


async def test_no_log_line_or_error_shows_an_id_a_header_or_a_body(caplog):
    caplog.set_level(logging.DEBUG)
    lines = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(lines))
    stamina.instrumentation.set_on_retry_hooks(None)
    try:
        async with scripted(answering(web.Response(status=503, text=SECRET))) as server:
            http = client(server.url)
            with pytest.raises(Unavailable) as caught:
                await http.request(
                    "POST", "/v1/{id}", path={"id": SECRET}, query=[("q", SECRET)], json=SECRET,
                    headers={"authorization": SECRET}, repeatable=True,
                )  # fmt: skip
            await http.close()
    finally:
        structlog.reset_defaults()
        stamina.instrumentation.set_on_retry_hooks(None)
    assert "HTTP 503" in lines.getvalue(), "the line about a repeat is what is looked at here"
    shown = lines.getvalue() + caplog.text + "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert caught.value.__context__ is None


async def test_cancelling_ends_the_request_at_once():
    entered = asyncio.Event()

    async def slow(_):
        entered.set()
        await asyncio.sleep(30)
        return web.Response()

    async with scripted(slow) as server:
        task = asyncio.create_task(call(server))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(server.requests) == 1


async def test_no_more_requests_than_allowed_are_under_way_at_once():
    under_way, most = 0, 0

    async def counted(_):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.Response()

    async with scripted(counted) as server:
        http = client(server.url, max_concurrency=3)
        await asyncio.gather(*(http.request("GET", "/x") for _ in range(12)))
        await http.close()
    assert most == 3


async def test_waiting_for_a_turn_is_not_part_of_the_time_a_request_may_take():
    async def slow(_):
        await asyncio.sleep(0.1)
        return web.Response()

    async with scripted(slow) as server:
        http = client(server.url, max_concurrency=1, timeout=0.35, attempts=1)
        await asyncio.gather(*(http.request("GET", "/x") for _ in range(6)))
        await http.close()


async def test_an_answer_that_trickles_in_is_given_up_in_time():
    async def trickle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with stream_server(trickle) as port:
        http = client(f"http://127.0.0.1:{port}", timeout=0.1, attempts=1)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            await http.request("GET", "/v1")
        assert time.monotonic() - began < 1.5
        await http.close()


async def test_requests_are_spread_over_time_where_a_rate_is_set():
    async with scripted(answering(web.Response())) as server:
        http = client(server.url, max_rps=20)
        began = time.monotonic()
        await asyncio.gather(*(http.request("GET", "/x") for _ in range(4)))
        await http.close()
    assert time.monotonic() - began >= 0.15


async def test_credentials_of_netrc_and_cookies_are_never_sent(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with scripted(answering(web.Response(headers={"Set-Cookie": "a=b"}))) as server:
        http = client(server.url)
        await http.request("GET", "/x")
        await http.request("GET", "/x", headers={"authorization": "Bearer b"})
        await http.close()
        first, second = server.requests
    assert "authorization" not in first.headers
    assert second.headers["authorization"] == "Bearer b"
    assert "cookie" not in second.headers
    assert second.headers["user-agent"].startswith("health-event-consumer/")


async def test_a_proxy_of_the_environment_is_asked_and_sees_no_credential_of_ours(monkeypatch):
    asked = []

    async def proxy(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with stream_server(proxy) as port:
        monkeypatch.setenv("https_proxy", f"http://user:word@127.0.0.1:{port}")
        http = client("https://api.example.com", attempts=1)
        with pytest.raises(Unavailable, match=r"^GET /v1/\{id\}: the proxy refused, HTTP 407$"):
            await http.request("GET", "/v1/{id}", path={"id": SECRET}, headers={"authorization": f"Bearer {SECRET}"})
        await http.close()
    (head,) = asked
    assert head.startswith("CONNECT api.example.com:443 ")
    assert "Proxy-Authorization: Basic " in head
    assert SECRET not in head


def test_what_is_meant_for_this_machine_never_goes_through_a_proxy(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example.net:3128")
    assert [proxy_for(require_secure(f"http://{host}:1")) for host in ("127.0.0.1", "localhost", "[::1]")] == [None] * 3


def test_no_proxy_is_honoured_and_a_proxy_that_cannot_work_is_named(monkeypatch):
    url = require_secure("https://api.example.com")
    monkeypatch.setenv("no_proxy", "example.com")
    monkeypatch.setenv("https_proxy", "proxy.example.net:3128")
    assert proxy_for(url) is None
    monkeypatch.setenv("no_proxy", "other.example")
    assert proxy_for(url) == "http://proxy.example.net:3128"
    for proxy in ("socks5://x", "http://user:word@[::1", "http://", "https://:443"):
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(SettingsError, match=r"^HTTPS_PROXY: expected an http:// or https:// address$"):
            proxy_for(url)


async def test_a_closed_client_says_so():
    http = client("http://127.0.0.1:1")
    await http.close()
    with pytest.raises(ConsumerError, match="closed"):
        await http.request("GET", "/x")


async def test_bytes_put_elsewhere_carry_only_the_given_headers():
    async with scripted(answering(web.Response(status=201))) as server:
        http = client("https://api.example.com")
        await http.put_bytes("PUT upload_url", f"{server.url}/a?sig=x%2Fy", b"123", headers={"x-ms-blob-type": "B"})
        await http.close()
        (seen,) = server.requests
    assert (seen.target, seen.body, seen.headers["x-ms-blob-type"]) == ("/a?sig=x%2Fy", b"123", "B")
    assert "authorization" not in seen.headers


async def test_a_server_that_cannot_prove_who_it_is_is_unavailable(tmp_path):
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(*self_signed(tmp_path))

    async def nothing(reader, writer):
        pass

    async with stream_server(nothing, tls=served) as port:
        http = client(f"https://localhost:{port}")
        with pytest.raises(Unavailable, match=r"^GET /v1: the server's certificate is not valid$"):
            await http.request("GET", "/v1")
        await http.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    return folder / "cert.pem", folder / "key.pem"


def test_tls_is_verified_and_at_least_1_2():
    context = http_module._tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("url", ["http://api.example.com", "ftp://x", "https://u:p@x", "https://", "x", "http://[::1"])
def test_an_address_that_must_not_see_credentials_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match=r"^expected an https") as caught:
        require_secure(url)
    assert "example" not in str(caught.value)
    assert caught.value.__context__ is None


@settings(max_examples=50)
@given(st.text(min_size=1))
def test_no_value_changes_the_shape_of_a_path(value):
    if value in (".", ".."):
        with pytest.raises(ValueError, match=r"^user_id"):
            fill("/v1/users/{user_id}/labs", {"user_id": value})
        return
    filled = fill("/v1/users/{user_id}/labs", {"user_id": value})
    assert filled.count("/") == 4
    assert filled.startswith("/v1/users/")
    assert not set(filled) & set("?#{} \\")
    assert filled.isascii()


async def test_path_and_query_arrive_as_given():
    async with scripted(answering(web.Response())) as server:
        http = client(server.url)
        await http.request("GET", "/v1/{a}", path={"a": "../x y/%2e?#"}, query=[("q", "a&b"), ("q", "ü")])
        await http.close()
        assert server.requests[0].target == "/v1/..%2Fx%20y%2F%252e%3F%23?q=a%26b&q=%C3%BC"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0), (" 12 ", 12), ("1.5", 1.5), ("86400", 86400), ("999999999", LONGEST), ("9" * 18, LONGEST),
        ("-5", None), ("NaN", None), ("inf", None), ("1e9", None), ("", None), ("soon", None), ("9" * 400, None),
        ("Mon, 16 Mar 2026 08:00:30 GMT", 30), ("Mon, 16 Mar 2026 07:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST), ("Mon, 99 Mar 2026 08:00:30 GMT", None), ("٣", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_nothing_else(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@settings(max_examples=50)
@given(st.one_of(st.text(), st.datetimes().map(format_datetime), st.floats().map(str), st.integers().map(str)))
def test_whatever_retry_after_says_the_wait_is_none_or_bounded(value):
    wait = parse_retry_after(value, NOW)
    assert wait is None or 0 <= wait <= LONGEST


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (503, {"retry-after": "3", "ratelimit-reset": "9"}, 3),
        (429, {"ratelimit-reset": "9"}, 9),
        (429, {"x-ratelimit-reset": str(int((NOW + timedelta(seconds=20)).timestamp()))}, 20),
        (503, {"ratelimit-reset": "9"}, None),
        (429, {"ratelimit-reset": "x"}, None),
        (429, {}, None),
    ],
)
def test_a_rate_limits_window_is_waited_for_where_there_is_no_retry_after(status, headers, seconds):
    assert wait_asked(status, headers, NOW) == seconds


@settings(max_examples=50)
@given(st.floats(0.1, 1000), st.lists(st.floats(0, 0.5), min_size=2, max_size=40))
def test_requests_begin_no_closer_than_the_rate_allows(rate, pauses):
    pacer, now, begun = Pacer(rate), 100.0, []
    for pause in pauses:
        now += pause
        begun.append(now + pacer.wait(now))
    assert begun == sorted(begun)
    assert all(later - earlier >= 1 / rate - 1e-9 for earlier, later in itertools.pairwise(begun))


def test_without_a_rate_nothing_waits():
    pacer = Pacer(None)
    assert [pacer.wait(1.0) for _ in range(3)] == [0.0, 0.0, 0.0]
