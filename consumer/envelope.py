"""What a message is made of, read strictly and by its exact bytes.

Three shapes are known: an envelope (one JSON object), several envelopes in one message (a JSON array of them), and the
neutral envelope, which carries a request's headers and body over a queue that has no headers.

A signature is over text as it was received, so nothing here is ever written out again to compare it: `read_members`
says, for each member of an object, what it means and where exactly it stands. Everything wrong is `Unreadable`, with a
fixed text and nothing chained to it, because a decoder's own exceptions carry the whole message.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, cast

from pydantic_core import from_json

from consumer.errors import Unreadable

__all__ = [
    "MAX_ENVELOPES",
    "Members",
    "Neutral",
    "Opening",
    "instant",
    "object_content",
    "read_members",
    "split",
    "unwrap_neutral",
    "wrap_neutral",
]

MAX_ENVELOPES: Final = 1_000
"""The most envelopes one message may hold: a forged array of a million `{}` must not become a million dead letters."""

Opening = Mapping[str, "Opening"]
"""Names of members that are to be read member by member too if they are objects, each with its own such names."""

_NOTHING: Final[Opening] = {}
_WHITE: Final = " \t\n\r"
_NEUTRAL_HINT: Final = b'"body_b64"'
_LONG: Final = 512
_SHORT: Final = 128
"""A value with so many characters left behind it may be worth the fast reader, if it does not end within so few."""
_LONG_STARTS: Final = ("{", '"{')
_MEMBERS: Final = range(10_000)
"""An object read member by member may have so many: each costs a microsecond, and a forger could bring 200,000."""
_MILLISECONDS_FROM: Final = 1e11
"""A number of seconds this large is the year 5138; read as milliseconds it is 1973."""


def _no_constant(_: str) -> NoReturn:
    raise ValueError


# One value from a given place on, read in C; an attribute of every decoder that its type stubs leave out.
_scan: Callable[[str, int], tuple[Any, int]] = getattr(json.JSONDecoder(parse_constant=_no_constant), "scan_once")  # noqa: B009
_blank: Final = re.compile(r"[ \t\n\r]*").match
# A member as far as one step of the walk can go: a name without escapes, and if the value is a text without any that
# another member follows, that value too, with the comma. Possessive, so that no text can make it backtrack.
_member: Final = re.compile(
    r'[ \t\n\r]*+"([^"\\\x00-\x1f]*+)"[ \t\n\r]*+:[ \t\n\r]*+(?:"([^"\\\x00-\x1f]*+)"[ \t\n\r]*+,)?'
).match
_number: Final = re.compile(r"-?[0-9]{1,17}(?:\.[0-9]{1,17})?(?:[eE]\+?[0-9]{1,2})?").fullmatch

# StopIteration and IndexError are how the scanner and the walk below meet the end of the text; MemoryError and
# RecursionError come of nesting without end.
_MALFORMED: Final = (ValueError, StopIteration, IndexError, RecursionError, MemoryError)


@dataclass(slots=True, eq=False, repr=False)
class Members:
    """The members of one JSON object, with the place of each value in the text it was read from."""

    text: str
    values: dict[str, Any]
    """Decoded values by un-escaped name, the last of a repeated name; a `Members` where the opening asked for it."""
    spans: dict[str, tuple[int, int]]
    """Start and end in `text` of each value that is no string, without the white space around it."""
    names: list[str]
    """Every name in order of occurrence, so one that occurs twice is in it twice."""
    end: int
    """Where the object ends in `text`."""

    @property
    def repeated(self) -> bool:
        """Whether any name occurs more than once."""
        return len(self.names) != len(self.values)

    def find(self, path: Sequence[str]) -> Any:
        """The value at `path`, or None.

        Raises `Unreadable` if a name on the way occurs twice: two readers could disagree about which one counts.
        """
        name = path[0]
        if len(self.names) != len(self.values) and self.names.count(name) > 1:
            raise Unreadable("a field of the envelope occurs twice")
        value = self.values.get(name)
        if len(path) == 1:
            return value
        return value.find(path[1:]) if isinstance(value, Members) else None

    def peek(self, path: Sequence[str]) -> Any:
        """The value at `path`, or None; of a name that occurs twice the last counts. For what proves nothing."""
        value = self.values.get(path[0])
        if len(path) == 1:
            return value
        return value.peek(path[1:]) if isinstance(value, Members) else None

    def text_of(self, path: Sequence[str]) -> str:
        """The text of the value at `path`, which must be there: a string's characters, or else exactly what stands."""
        name = path[0]
        value = self.values[name]
        if len(path) > 1:
            return cast("Members", value).text_of(path[1:])
        if isinstance(value, str):
            return value
        start, end = self.spans[name]
        return self.text[start:end]

    def content(self) -> dict[str, Any]:
        """The values as a plain dictionary. Raises `Unreadable` if any name occurs twice."""
        if self.repeated:
            raise Unreadable("a name occurs twice in the body")
        return self.values


def _walk(text: str, at: int, opening: Opening, last: int) -> Members:  # noqa: C901, PLR0912  a scanner's hot loop
    values: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    names: list[str] = []
    at += 1
    if text[at] != '"':
        at = _after_blank(text, at)
        if text[at] == "}":
            return Members(text, values, spans, names, at + 1)
    for _ in _MEMBERS:
        member = _member(text, at)
        if member is None:
            name, at = _odd_name(text, at)
            names.append(name)
        else:
            name, plain = member.groups()
            at = member.end()
            names.append(name)
            if plain is not None:
                values[name] = plain
                continue
        start = at
        if name in opening and text[at] == "{":
            value: Any = _walk(text, at, opening[name], at)
            at = value.end
        elif last - at > _LONG and text.startswith(_LONG_STARTS, at) and text.find("}", at, at + _SHORT) < 0:
            value, at = _long(text, at, last)
            last = 0  # one guess an object: a wrong one costs time, and a forger could bring thousands
        else:
            value, at = _scan(text, at)
        values[name] = value
        if type(value) is not str:
            spans[name] = (start, at)
        if text[at] in _WHITE:
            at = _after_blank(text, at)
        if text[at] == "}":
            return Members(text, values, spans, names, at + 1)
        if text[at] != ",":
            raise ValueError
        at += 1
    raise ValueError


def _odd_name(text: str, at: int) -> tuple[str, int]:
    """A member's name that has escapes in it, and where the value behind it begins."""
    at = _after_blank(text, at)
    if text[at] != '"':
        raise ValueError
    name, at = _scan(text, at)
    at = _after_blank(text, at)
    if text[at] != ":":
        raise ValueError
    return name, _after_blank(text, at + 1)


def _long(text: str, at: int, last: int) -> tuple[Any, int]:
    """The value at `at`, a long one perhaps, by a reader in Rust that takes half the time.

    That reader takes whole texts only, so where the value ends must be guessed: a body that is a string at the last
    brace before a quote, a body's data (which usually comes last) at the brace that closes the body. A wrong guess is
    no harm: what the reader accepts is exactly one value, and what it does not is read the slow way.
    """
    end = text.rfind('}"', at, last) + 2 if text[at] == '"' else last
    try:
        return from_json(text[at:end], allow_inf_nan=False), end
    except ValueError:
        pass
    return _scan(text, at)


def _after_blank(text: str, at: int) -> int:
    found = _blank(text, at)
    return found.end() if found else at


def read_members(source: bytes | str, opening: Opening = _NOTHING) -> Members:
    """Read one strict JSON object: UTF-8 without a byte order mark, white space around it and nothing else.

    NaN, Infinity, control characters in strings, integers too long for Python and objects of more than 10,000 members
    (where they are read member by member) are refused; a number too large for a float reads as infinity, as
    `json.loads` has it. Of a repeated name the last value is kept, and the name noted.

    Raises `Unreadable`.
    """
    try:
        text = source if isinstance(source, str) else source.decode()
        start = 0 if text[0] == "{" else _after_blank(text, 0)
        if text[start] != "{":
            raise ValueError
        members = _walk(text, start, opening, text.rfind("}"))
        if members.end == len(text) or _after_blank(text, members.end) == len(text):
            return members
    except _MALFORMED:
        pass
    # Raised here, not in the handler: a chained JSONDecodeError would carry the message along.
    raise Unreadable("not one JSON object")


def object_content(body: bytes | str) -> dict[str, Any]:
    """Read a body as a JSON object, refusing a top-level name that occurs twice; deeper the last one wins.

    Raises `Unreadable`.
    """
    return read_members(body).content()


def split(raw: bytes) -> list[bytes]:
    """Take a message apart into its envelopes, each by its exact bytes: the message itself, or an array's members.

    Raises `Unreadable` for an array that is malformed, empty, longer than `MAX_ENVELOPES` or of other things than
    objects. What is inside the envelopes is not judged here.
    """
    if raw.lstrip(b" \t\n\r")[:1] != b"[":
        return [raw]
    try:
        envelopes = _elements(raw.decode())
    except _MALFORMED:
        envelopes = []
    if not envelopes:
        raise Unreadable("not an array of envelopes")
    return envelopes


def _elements(text: str) -> list[bytes]:
    found: list[bytes] = []
    at = _after_blank(text, 0)
    while True:
        start = _after_blank(text, at + 1)
        if text[start] != "{" or len(found) == MAX_ENVELOPES:
            raise ValueError
        _, end = _scan(text, start)
        found.append(text[start:end].encode())
        at = _after_blank(text, end)
        if text[at] != ",":
            break
    if text[at] != "]" or _after_blank(text, at + 1) != len(text):
        raise ValueError
    return found


@dataclass(frozen=True, slots=True)
class Neutral:
    """A request with headers, as it travels over a queue that has none."""

    provider: str
    received_at: datetime
    """When the relay received the request; aware, and signed by nobody."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    """Exactly the bytes of the request's body."""


def unwrap_neutral(raw: bytes) -> Neutral | None:
    """Read a neutral envelope, or return None if the message is something else.

    It is one if `provider` and `body_b64` are members of the message itself; the same words deeper down, or in a text,
    mean nothing. Raises `Unreadable` if it is one and anything in it is missing, repeated or of a wrong type.
    """
    if _NEUTRAL_HINT not in raw:
        return None
    members = read_members(raw, {"headers": _NOTHING})
    values = members.values
    if "body_b64" not in values or "provider" not in values:
        return None
    headers = values.get("headers")
    if not members.repeated and isinstance(headers, Members) and not headers.repeated:
        neutral = _neutral(values, headers.values)
        if neutral is not None:
            return neutral
    raise Unreadable("a malformed neutral envelope")


def _neutral(values: Mapping[str, Any], headers: dict[str, Any]) -> Neutral | None:
    provider, received_at, text = values["provider"], values.get("received_at"), values["body_b64"]
    if not (isinstance(provider, str) and provider and isinstance(received_at, str) and isinstance(text, str)):
        return None
    if not all(isinstance(value, str) for value in headers.values()):
        return None
    at = instant(received_at)
    try:
        body = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    return None if at is None else Neutral(provider, at, headers, body)


def wrap_neutral(*, provider: str, body: bytes, headers: Mapping[str, str], received_at: datetime) -> bytes:
    """Write a neutral envelope around a request's exact body; `received_at` must be aware (`ValueError` if not)."""
    if received_at.tzinfo is None:
        raise ValueError("received_at needs a time zone")
    envelope = {
        "provider": provider,
        "received_at": received_at.isoformat(),
        "headers": dict(headers),
        "body_b64": b64encode(body).decode(),
    }
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def instant(text: str) -> datetime | None:
    """Read a time: ISO 8601 with any offset (none means UTC), or seconds or milliseconds since 1970; else None."""
    try:
        if text[4:5] != "-" and _number(text):
            seconds = float(text)
            return datetime.fromtimestamp(seconds / 1000 if abs(seconds) >= _MILLISECONDS_FROM else seconds, UTC)
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
