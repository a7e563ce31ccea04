"""The settings of what is put aside; see `consumer.settings`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from consumer.settings_azure import blob_problems, expand_development
from consumer.settings_platforms import DAY, HOUR, Section
from consumer.settings_sources import MEBIBYTE
from consumer.settings_types import (
    AgeLimit,
    FilePath,
    OptionalFilePath,
    OptionalSecret,
    OptionalText,
    PositiveDuration,
    Size,
    Text,
    Texts,
)

__all__ = ["DEFAULT_DEAD_LETTER_AGE", "DeadLetterSettings", "dead_letter_problems"]

DEFAULT_DEAD_LETTER_AGE: Final = 60 * DAY
"""Seconds."""

_KINDS_OF: Final = {
    "bucket": ("s3",),
    "region": ("s3",),
    "endpoint_url": ("s3",),
    "sse_kms_key_id": ("s3",),
    "account_url": ("blob",),
    "connection_string": ("blob",),
    "container": ("blob",),
    "prefix": ("s3", "blob"),
}
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|arn:[a-z0-9:/-]+", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_=.-]*(/[A-Za-z0-9_=-][A-Za-z0-9_=.-]*)*/?", re.ASCII)
_LONGEST_PREFIX: Final = 256


class DeadLetterSettings(Section):
    """What is put aside."""

    kind: Literal["file", "s3", "blob", "queue"] = Field(
        "file",
        description="Kind of store: file, s3, blob, or queue (of sqs and storage_queue: see dead_letter_queue).",
    )
    path: FilePath = Field(Path("dead-letters"), description="file: folder of the *.jsonl segments.")
    bucket: OptionalText = Field(None, description="s3: the bucket's name.")
    region: OptionalText = Field(None, description="s3: region, if not in the AWS configuration.")
    endpoint_url: OptionalText = Field(None, description="s3: another endpoint, such as an emulator.")
    sse_kms_key_id: OptionalText = Field(
        None, description="s3: KMS key that objects are encrypted with; unset: as the bucket says."
    )
    account_url: OptionalText = Field(None, description="blob: account URL, with DefaultAzureCredential.")
    connection_string: Annotated[OptionalSecret, AfterValidator(expand_development)] = Field(
        None, description="blob: connection string of the storage account."
    )
    container: OptionalText = Field(None, description="blob: the container's name.")
    prefix: Text = Field("dead-letters", description="s3, blob: folder in the bucket or container.")
    max_age: AgeLimit = Field(DEFAULT_DEAD_LETTER_AGE, description="How long dead letters may be replayed, or off.")
    purge: bool = Field(True, description="Whether the worker deletes what is older than max_age; never from queues.")
    recipients: Texts = Field(default_factory=list, description="age public keys to which dead letters are encrypted.")
    identity_file: OptionalFilePath = Field(None, description="age identity that reads them; not for the worker.")
    unproven_limit: Size = Field(
        256 * MEBIBYTE, description="Most bytes kept of messages that nobody is known to have signed."
    )
    roll_after: PositiveDuration = Field(
        HOUR, description="file: how long a worker writes to one segment, which cannot be purged meanwhile."
    )


def dead_letter_problems(letters: DeadLetterSettings) -> Iterator[tuple[str, str]]:
    """Yield (key below dead_letters, what is expected) for what the kind of store lacks or cannot use."""
    for key in sorted(letters.model_fields_set & _KINDS_OF.keys()):
        if letters.kind not in _KINDS_OF[key] and getattr(letters, key) is not None:
            yield key, f"expected none, since dead_letters.kind is {letters.kind}"
    if letters.kind == "s3":
        yield from _s3_problems(letters)
    elif letters.kind == "blob":
        yield from blob_problems(letters)
    if letters.kind in {"s3", "blob"} and not _is_prefix(letters.prefix):
        yield "prefix", "expected a folder such as dead-letters/worker: letters, digits, . _ = - and / between"


def _s3_problems(letters: DeadLetterSettings) -> Iterator[tuple[str, str]]:
    if letters.bucket is None:
        yield "bucket", "missing, expected the bucket's name"
    elif not _BUCKET.fullmatch(letters.bucket):
        yield "bucket", "expected a bucket's name, or the ARN of an access point"
    if letters.endpoint_url is not None and not _is_endpoint(letters.endpoint_url):
        yield "endpoint_url", "expected a URL, https://..., without a password"


def _is_prefix(prefix: str) -> bool:
    return len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix) is not None


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.password is None
