"""AMQP 1.0 frames: performatives, SASL, errors and outcomes, and the sections of a message.

Every field of a performative is written, null or not: the specification lets a writer leave trailing nulls out, but
clients exist that read fields by position. Source: OASIS AMQP 1.0, parts 2, 3 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from tests.emulators.amqp_codec import Array, Described, MalformedFrame, Symbol, Ubyte, Uint, Ulong, decode, encode

__all__ = [
    "ACCEPTED",
    "AMQP_HEADER",
    "EMPTY_FRAME",
    "SASL_HEADER",
    "AmqpError",
    "Attach",
    "Begin",
    "Close",
    "Detach",
    "Disposition",
    "End",
    "Flow",
    "Open",
    "Performative",
    "SaslInit",
    "SaslMechanisms",
    "SaslOutcome",
    "Section",
    "Transfer",
    "frame",
    "parse",
    "rejected",
    "section",
    "sections",
    "terminus_address",
]

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"
_HEAD = struct.Struct(">IBBH")
ACCEPTED = Described(Ulong(0x24), [])
"""The outcome of a delivery that was taken."""


class AmqpError(Exception):
    """A refusal with its condition, such as amqp:not-found, and a text for people."""

    def __init__(self, condition: str, description: str = "") -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description

    def described(self) -> Described:
        """The error as it goes into a frame."""
        return Described(Ulong(0x1D), [Symbol(self.condition), self.description, {}])


def rejected(error: AmqpError) -> Described:
    """The outcome of a delivery that was not taken."""
    return Described(Ulong(0x25), [error.described()])


class Performative:
    """What a frame says; the subclasses list their fields in the order of the specification."""

    code: ClassVar[int]


@dataclass(slots=True)
class Open(Performative):
    code: ClassVar[int] = 0x10
    container_id: str = ""
    hostname: str | None = None
    max_frame_size: Uint | None = None
    channel_max: int | None = None
    idle_timeout: Uint | None = None
    outgoing_locales: Any = None
    incoming_locales: Any = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: dict[Any, Any] | None = None


@dataclass(slots=True)
class Begin(Performative):
    code: ClassVar[int] = 0x11
    remote_channel: int | None = None
    next_outgoing_id: int = Uint(0)
    incoming_window: int = Uint(0)
    outgoing_window: int = Uint(0)
    handle_max: int | None = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: Any = None


@dataclass(slots=True)
class Attach(Performative):
    code: ClassVar[int] = 0x12
    name: str = ""
    handle: int = Uint(0)
    role: bool = False
    snd_settle_mode: int | None = None
    rcv_settle_mode: int | None = None
    source: Described | None = None
    target: Described | None = None
    unsettled: Any = None
    incomplete_unsettled: Any = None
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: dict[Any, Any] | None = None


@dataclass(slots=True)
class Flow(Performative):
    code: ClassVar[int] = 0x13
    next_incoming_id: int | None = None
    incoming_window: int = Uint(0)
    next_outgoing_id: int = Uint(0)
    outgoing_window: int = Uint(0)
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool | None = None
    echo: bool | None = None
    properties: Any = None


@dataclass(slots=True)
class Transfer(Performative):
    code: ClassVar[int] = 0x14
    handle: int = Uint(0)
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool | None = None
    rcv_settle_mode: int | None = None
    state: Any = None
    resume: bool | None = None
    aborted: bool | None = None
    batchable: bool | None = None


@dataclass(slots=True)
class Disposition(Performative):
    code: ClassVar[int] = 0x15
    role: bool = False
    first: int = Uint(0)
    last: int | None = None
    settled: bool | None = None
    state: Any = None
    batchable: bool | None = None


@dataclass(slots=True)
class Detach(Performative):
    code: ClassVar[int] = 0x16
    handle: int = Uint(0)
    closed: bool | None = None
    error: Described | None = None


@dataclass(slots=True)
class End(Performative):
    code: ClassVar[int] = 0x17
    error: Described | None = None


@dataclass(slots=True)
class Close(Performative):
    code: ClassVar[int] = 0x18
    error: Described | None = None


@dataclass(slots=True)
class SaslMechanisms(Performative):
    code: ClassVar[int] = 0x40
    mechanisms: Array | None = None


@dataclass(slots=True)
class SaslInit(Performative):
    code: ClassVar[int] = 0x41
    mechanism: str = ""
    initial_response: bytes | None = None
    hostname: str | None = None


@dataclass(slots=True)
class SaslOutcome(Performative):
    code: ClassVar[int] = 0x44
    outcome: int = Ubyte(0)
    additional_data: bytes | None = None


_AMQP = (Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close)
_KINDS: dict[int, Any] = {kind.code: kind for kind in (*_AMQP, SaslMechanisms, SaslInit, SaslOutcome)}
_VALUES = {kind: tuple(field.name for field in fields(kind)) for kind in _KINDS.values()}


def frame(performative: Performative, *, channel: int = 0, payload: bytes = b"") -> bytes:
    """Return a whole frame: its head, the performative with all its fields, and what it carries."""
    kind = type(performative)
    values = [getattr(performative, name) for name in _VALUES[kind]]
    body = encode(Described(Ulong(kind.code), values))
    head = _HEAD.pack(8 + len(body) + len(payload), 2, int(kind.code >= 0x40), channel)
    return head + body + payload


def parse(data: bytes) -> tuple[int, Any, bytes]:
    """Return channel, performative (None: an empty frame) and payload of one whole frame. Raises MalformedFrame."""
    if len(data) < _HEAD.size:
        raise MalformedFrame("a frame without a head")
    _, offset, _, channel = _HEAD.unpack_from(data)
    start = offset * 4
    if start >= len(data):
        return channel, None, b""
    described, end = decode(data, start)
    kind = _KINDS.get(described.descriptor) if isinstance(described, Described) else None
    if kind is None or not isinstance(described.value, list) or len(described.value) > len(_VALUES[kind]):
        raise MalformedFrame("a frame without a known performative")
    return channel, kind(*described.value), data[end:]


def terminus_address(terminus: Described | None) -> str:
    """The address of a source or target; empty if it has none."""
    if not isinstance(terminus, Described) or not isinstance(terminus.value, list) or not terminus.value:
        return ""
    return str(terminus.value[0] or "")


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a message, as it came: its number, its value, and where it lies."""

    HEADER: ClassVar[int] = 0x70
    DELIVERY_ANNOTATIONS: ClassVar[int] = 0x71
    MESSAGE_ANNOTATIONS: ClassVar[int] = 0x72
    PROPERTIES: ClassVar[int] = 0x73
    APPLICATION_PROPERTIES: ClassVar[int] = 0x74
    DATA: ClassVar[int] = 0x75
    SEQUENCE: ClassVar[int] = 0x76
    VALUE: ClassVar[int] = 0x77

    code: int
    value: Any
    start: int
    end: int


def sections(message: bytes) -> Iterator[Section]:
    """The sections of an encoded message in order. Raises MalformedFrame."""
    at = 0
    while at < len(message):
        described, end = decode(message, at)
        if not isinstance(described, Described) or not isinstance(described.descriptor, int):
            raise MalformedFrame("a message whose section has no number")
        yield Section(int(described.descriptor), described.value, at, end)
        at = end


def section(code: int, value: Any) -> bytes:
    """One section of a message on the wire."""
    return encode(Described(Ulong(code), value))
