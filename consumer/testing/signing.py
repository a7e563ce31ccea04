"""Signing as the platforms do, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from consumer.signatures import SahhaSignature, ThriveSignature

__all__ = ["sign_sahha", "sign_thrive"]


def sign_thrive(
    body: bytes | str | Mapping[str, Any],
    secret: str,
    *,
    signed_at: datetime | str | None = None,
    as_object: bool = False,
    **scheme: Any,
) -> bytes:
    """A signed Thrive envelope: the message as it would lie in the queue.

    `signed_at` is now unless given; as text it is used as it is. With `as_object` the body is an object of the envelope
    instead of a JSON string. `scheme` is what `ThriveSignature` takes: `template`, `algorithm`, `encoding`, `prefix`,
    `secret_encoding`, `fields`. Raises `SettingsError` for a scheme that cannot work.
    """
    signature = ThriveSignature(secrets=[secret], **scheme)
    return signature.sign(_written(body), signed_at=signed_at, as_object=as_object)


def sign_sahha(
    body: bytes | str | Mapping[str, Any],
    secret: str,
    *,
    external_id: str,
    event_type: str,
    encoding: str = "auto",
) -> dict[str, str]:
    """The headers of a Sahha webhook request with this body; send the same bytes or text, not the mapping, with them.

    A mapping is signed as `json.dumps` writes it. Raises `SettingsError` for an encoding that is none.
    """
    signature = SahhaSignature(secrets=[secret], encoding=encoding)
    return signature.sign(_written(body), external_id=external_id, event_type=event_type)


def _written(body: bytes | str | Mapping[str, Any]) -> bytes | str:
    return json.dumps(body) if isinstance(body, Mapping) else body
