"""Keys and digests as text: how a secret becomes a key, and how a signature is written down."""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

__all__ = [
    "ALGORITHMS",
    "ENCODINGS",
    "PREFIXES",
    "SECRET_ENCODINGS",
    "decode_digest",
    "encode_digest",
    "key_of",
    "signer_of",
    "without_prefix",
]

ALGORITHMS: Final = {"sha256": 32, "sha384": 48, "sha512": 64}
"""The hashes known, with the length of their digests in bytes."""
ENCODINGS: Final = ("hex", "base64", "base64url")
"""How a digest may be written."""
SECRET_ENCODINGS: Final = ("utf8", "hex", "base64")
"""How a secret may stand for its key."""
PREFIXES: Final = ("sha256=", "sha384=", "sha512=", "v1=")
"""What may stand before a signature unless a setting says otherwise. It says nothing: no prefix selects a hash."""

_mixed: Final = re.compile(r"[-_]").search
_foreign: Final = re.compile(r"[^A-Za-z0-9_-]").search


def key_of(secret: str, encoding: str) -> bytes:
    """The key a secret stands for: its UTF-8 text as it is, or the bytes it writes as hex or as padded base64.

    Raises `ValueError` if it cannot be read so; its text may hold the secret.
    """
    if encoding == "utf8":
        return secret.encode()
    if encoding == "hex":
        return binascii.unhexlify(secret)
    return binascii.a2b_base64(secret, strict_mode=True)


def without_prefix(text: str, prefix: str | None) -> str | None:
    """A signature without its prefix: the given one, which must be there, or with None one of `PREFIXES` or none."""
    if prefix is None:
        return text.partition("=")[2] if text.startswith(PREFIXES) else text
    return text[len(prefix) :] if text.startswith(prefix) else None


def decode_digest(text: str, encodings: Sequence[str], size: int) -> bytes | None:
    """The `size` bytes that `text` writes in one of `encodings`, strictly, or None.

    The length alone tells hex from base64 for every hash known, so nothing is tried twice.
    """
    try:
        if len(text) == 2 * size:
            digest = bytes.fromhex(text) if "hex" in encodings else b""
        elif "base64url" in encodings and ("base64" not in encodings or _mixed(text) or len(text) % 4):
            digest = _from_urlsafe(text)
        else:
            digest = binascii.a2b_base64(text, strict_mode=True) if "base64" in encodings else b""
    except ValueError:
        return None
    return digest if len(digest) == size else None


def _from_urlsafe(text: str) -> bytes:
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    # Padding is optional but not free, and the decoder below would take the other alphabet too.
    if text not in (bare, padded) or _foreign(bare):
        return b""
    return binascii.a2b_base64(padded.replace("-", "+").replace("_", "/"), strict_mode=True)


def encode_digest(digest: bytes, encoding: str) -> str:
    """Write a digest down: lower-case hex (also for `auto`), padded base64, or base64url without padding."""
    if encoding == "base64":
        return b64encode(digest).decode()
    if encoding == "base64url":
        return urlsafe_b64encode(digest).decode().rstrip("=")
    return digest.hex()


def signer_of(keys: Sequence[bytes], message: bytes, candidates: Sequence[bytes], algorithm: str) -> int | None:
    """The index of the first key that made one of `candidates` over `message`, compared in constant time, or None."""
    for index, key in enumerate(keys):
        digest = hmac.digest(key, message, algorithm)
        for candidate in candidates:
            if hmac.compare_digest(digest, candidate):
                return index
    return None
