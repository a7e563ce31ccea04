"""Pages of messages that no XML parser takes, because one message holds a character that XML forbids. Pure.

Such a page fails as a whole in the SDK, comes back when its leases end, and fails again: one message would hold up
the queue. Here the forbidden characters are moved out of the way while the page is read, and put back.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Self
from xml.etree import ElementTree as ET

__all__ = ["RawMessage", "read_page"]

_SHIFT: Final = 0xF0000
"""Into a plane for private use: XML takes all of it, and nobody has use for these few of it."""
_FORBIDDEN: Final = "\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_CHARACTER: Final = re.compile(f"[{_FORBIDDEN}]")
_REFERENCE: Final = re.compile(r"&#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}));")
_SHIFTED: Final = re.compile("[\U000f0000-\U000f001f\U000fd800-\U000fdfff\U000ffffe\U000fffff]")


@dataclass(frozen=True, slots=True)
class RawMessage:
    """What the SDK would have made of one message, by the same names."""

    id: str
    pop_receipt: str
    inserted_on: datetime
    expires_on: datetime
    dequeue_count: int
    content: str

    @classmethod
    def read(cls, element: ET.Element) -> Self:
        """From a `QueueMessage` element."""
        facts = {child.tag: child.text or "" for child in element}
        return cls(
            facts["MessageId"],
            facts["PopReceipt"],
            parsedate_to_datetime(facts["InsertionTime"]),
            parsedate_to_datetime(facts["ExpirationTime"]),
            int(facts["DequeueCount"]),
            _SHIFTED.sub(lambda found: chr(ord(found[0]) - _SHIFT), facts["MessageText"]),
        )


def read_page(xml: str) -> list[RawMessage] | None:
    """The messages of a Get Messages reply, forbidden characters and all; None if it is no such reply."""
    cleared = _CHARACTER.sub(lambda found: chr(ord(found[0]) + _SHIFT), _REFERENCE.sub(_resolve, xml))
    try:
        root = ET.fromstring(cleared.removeprefix("\ufeff"))  # noqa: S314 - as the SDK reads it; expat bounds entities
        return [RawMessage.read(child) for child in root] if root.tag == "QueueMessagesList" else None
    except (ET.ParseError, KeyError, ValueError):
        return None


def _resolve(reference: re.Match[str]) -> str:
    """The character that a reference stands for if it is a forbidden one; the others are left to the parser."""
    number = int(reference[1], 16) if reference[1] else int(reference[2])
    return chr(number) if number <= sys.maxunicode and _CHARACTER.match(chr(number)) else reference[0]
