"""Pages of messages that no XML parser takes, because one message holds a character that XML forbids. Pure.

Such a page fails as a whole in the SDK, comes back when its leases end, and fails again: one message would hold up
the queue. Here others stand in for the forbidden characters while the page is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Self
from xml.etree import ElementTree as ET

__all__ = ["RawMessage", "read_page"]

_FORBIDDEN: Final = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REFERENCE: Final = re.compile(r"&#(?:x0*([0-9a-fA-F]{1,6})|0*([0-9]{1,7}));")
_FIRST: Final = 0x10000
_HIGH: Final = re.compile("[\U00010000-\U0010ffff]")
"""Stand-ins are taken from here: XML allows all of it, and it is far more than a page of 2 MiB can use up."""


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
    def read(cls, element: ET.Element, meant: Mapping[str, str]) -> Self:
        """From a `QueueMessage` element; `meant` is what stand-ins in the content stand for."""
        facts = {child.tag: child.text or "" for child in element}
        return cls(
            facts["MessageId"],
            facts["PopReceipt"],
            parsedate_to_datetime(facts["InsertionTime"]),
            parsedate_to_datetime(facts["ExpirationTime"]),
            int(facts["DequeueCount"]),
            _HIGH.sub(lambda found: meant.get(found[0], found[0]), facts["MessageText"]),
        )


def read_page(xml: str) -> list[RawMessage] | None:
    """The messages of a Get Messages reply, forbidden characters and all; None if it is no such reply."""
    text = _REFERENCE.sub(_resolve, xml).removeprefix("\ufeff")
    stand_ins = _stand_ins(text)
    meant = {stand_in: character for character, stand_in in stand_ins.items()}
    try:
        cleared = _FORBIDDEN.sub(lambda found: stand_ins[found[0]], text)
        root = ET.fromstring(cleared)  # noqa: S314 - as the SDK reads it; expat bounds entities
        return [RawMessage.read(child, meant) for child in root] if root.tag == "QueueMessagesList" else None
    except (ET.ParseError, KeyError, ValueError):
        return None


def _stand_ins(text: str) -> dict[str, str]:
    """For each forbidden character of the text one that XML takes and that the text does not hold."""
    used = set(_HIGH.findall(text))
    free = (chr(number) for number in range(sys.maxunicode, _FIRST - 1, -1) if chr(number) not in used)
    return dict(zip(set(_FORBIDDEN.findall(text)), free, strict=False))


def _resolve(reference: re.Match[str]) -> str:
    """The character a reference stands for if it is a forbidden one or might be a stand-in; the parser has the rest."""
    number = int(reference[1], 16) if reference[1] else int(reference[2])
    if number > sys.maxunicode:
        return reference[0]
    return chr(number) if number >= _FIRST or _FORBIDDEN.match(chr(number)) else reference[0]
