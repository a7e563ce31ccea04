"""Keeping web pages away from a sandbox: any page that a browser on this machine shows can send requests to it.

A page of another origin says so in `Origin` or `Sec-Fetch-Site`, which it cannot leave out (Fetch standard). One whose
name was made to lead here (DNS rebinding) is of the same origin, but its name is then in `Host`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from consumer.sandbox.options import LOOPBACK

__all__ = ["foreign", "from_browser"]

_MARKS: Final = ("Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")
_OWN_SITES: Final = frozenset({"none", "same-origin"})


def foreign(headers: Mapping[str, str], *, expose: bool) -> str | None:
    """Why a request with these headers is not answered, or None.

    `headers` are found in any letter case. With `expose` the sandbox may have any name.
    """
    host = headers.get("Host", "")
    if not expose and _name(host) not in LOOPBACK:
        return "Host is no name of this machine's own: only --expose allows others"
    origin = headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        return "A web page of another origin"
    if headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES:
        return "A web page of another site"
    return None


def from_browser(headers: Mapping[str, str]) -> bool:
    """Whether a browser seems to have sent a request with these headers.

    Old ones send forms without `Origin`, and know no `Sec-Fetch-Site`; all of them call themselves Mozilla.
    """
    return any(name in headers for name in _MARKS) or headers.get("User-Agent", "").startswith("Mozilla/")


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
