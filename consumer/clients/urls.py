"""Addresses: templates filled in safely, transport that may carry credentials, and proxies from the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from consumer.errors import SettingsError

__all__ = ["fill", "proxy_for", "require_secure"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def fill(template: str, path: Mapping[str, str], query: Sequence[tuple[str, str]] = ()) -> str:
    """The path and query of a request: `/v1/users/{user_id}` with `user_id` percent-encoded completely.

    Raises `ValueError`, which names the parameter and not its value, for one that a path cannot hold as a segment of
    its own: an empty one, `.` and `..`, which servers and proxies take for a way up however they are written.
    """
    segments = {name: _segment(name, value) for name, value in path.items()}
    filled = template.format_map(segments)
    return f"{filled}?{_encoded(query)}" if query else filled


def require_secure(url: str) -> URL:
    """The address, when credentials and health data may travel to it: https, or http on loopback.

    Raises `ValueError` without the address: it may hold a signature that grants access.
    """
    try:
        parsed = URL(url, encoded=True)
        host = parsed.host
        fits = parsed.scheme == "https" or (parsed.scheme == "http" and host in _LOOPBACK)
        fits = fits and bool(host) and parsed.user is None and parsed.password is None
    except (ValueError, TypeError):
        fits = False
        parsed = URL()
    if not fits:
        raise ValueError("expected an https:// address (http:// on loopback only), without a user name")
    return parsed


def proxy_for(url: URL) -> str | None:
    """The proxy that `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` ask for, as `urllib` reads them; None for none.

    aiohttp's own `trust_env` also puts the credentials of `~/.netrc` on requests, so it is not used. What is meant for
    loopback may be unencrypted, and so never leaves the machine through a proxy.
    """
    if url.host in _LOOPBACK:
        return None
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parsed = URL(proxy)
        fits = parsed.scheme in {"http", "https"} and bool(parsed.host)
    except ValueError:
        fits = False
    if not fits:
        # Without the address: it may hold a password.
        raise SettingsError(f"{url.scheme.upper()}_PROXY: expected an http:// or https:// address")
    return proxy


def _encoded(query: Sequence[tuple[str, str]]) -> str:
    return urlencode(query, quote_via=quote, safe="", errors="surrogatepass")


def _segment(name: str, value: str) -> str:
    if value in ("", ".", ".."):
        raise ValueError(f"{name} is empty or dots: it cannot be part of a path")
    # A lone surrogate, which JSON can bring, becomes bytes no id is made of, instead of an error that shows the value.
    return quote(value, safe="", errors="surrogatepass")
