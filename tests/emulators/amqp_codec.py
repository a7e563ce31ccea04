"""The types of AMQP 1.0 on the wire, both ways, without loss: what was decoded encodes to the same value and type.

Python's own None, bool, int, float, str, bytes, UUID, list and dict stand for null, boolean, long, double, string,
binary, uuid, list and map; the classes here stand for the rest. Source: OASIS AMQP 1.0, part 1.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

__all__ = [
    "Array",
    "Byte",
    "Described",
    "Int",
    "MalformedFrame",
    "Opaque",
    "Short",
    "Symbol",
    "Timestamp",
    "Ubyte",
    "Uint",
    "Ulong",
    "Ushort",
    "decode",
    "encode",
]


class MalformedFrame(ValueError):
    """Bytes that are not AMQP."""


class Ubyte(int):
    """An unsigned byte."""


class Ushort(int):
    """Unsigned, 16 bits."""


class Uint(int):
    """Unsigned, 32 bits."""


class Ulong(int):
    """Unsigned, 64 bits."""


class Byte(int):
    """Signed, 8 bits."""


class Short(int):
    """Signed, 16 bits."""


class Int(int):
    """Signed, 32 bits."""


class Timestamp(int):
    """Milliseconds since the epoch."""


class Symbol(str):
    """A name from a set of known ones, in ASCII."""

    __slots__ = ()


class Array(list[Any]):
    """Values of one type."""


@dataclass(frozen=True, slots=True)
class Described:
    """A value with a descriptor: a number or a symbol that says what it is."""

    descriptor: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value nobody here looks into (float, char, decimals): its constructor and its bytes."""

    constructor: int
    data: bytes


_FIXED: Mapping[int, tuple[type[Any], str]] = {
    0x50: (Ubyte, ">B"),
    0x51: (Byte, ">b"),
    0x52: (Uint, ">B"),
    0x53: (Ulong, ">B"),
    0x54: (Int, ">b"),
    0x55: (int, ">b"),
    0x56: (bool, ">B"),
    0x60: (Ushort, ">H"),
    0x61: (Short, ">h"),
    0x70: (Uint, ">I"),
    0x71: (Int, ">i"),
    0x80: (Ulong, ">Q"),
    0x81: (int, ">q"),
    0x82: (float, ">d"),
    0x83: (Timestamp, ">q"),
}
_STRUCTS = {code: (kind, struct.Struct(form)) for code, (kind, form) in _FIXED.items()}
_CONSTANTS = {0x40: None, 0x41: True, 0x42: False, 0x43: Uint(0), 0x44: Ulong(0)}
_WIDE = {0x72: 4, 0x73: 4, 0x74: 4, 0x84: 8, 0x94: 16, 0x98: 16}
_VARIABLE: Mapping[int, Callable[[bytes], Any]] = {
    0xA0: bytes,
    0xA1: lambda data: data.decode(),
    0xA3: lambda data: Symbol(data.decode("ascii")),
}
_U32 = struct.Struct(">I")
_TWO = struct.Struct(">II")
_SHORT_LIMIT = 255


def decode(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Return the value that starts at `at`, and where the next one starts. Raises MalformedFrame."""
    try:
        return _decode(data, at)
    except MalformedFrame:
        raise
    except (IndexError, struct.error, ValueError, RecursionError) as error:
        raise MalformedFrame(f"malformed AMQP value ({type(error).__name__})") from None


def _decode(data: bytes, at: int) -> tuple[Any, int]:
    code = data[at]
    if code == 0:
        descriptor, at = _decode(data, at + 1)
        value, at = _decode(data, at)
        return Described(descriptor, value), at
    return _decode_body(data, at + 1, code)


def _decode_body(data: bytes, at: int, code: int) -> tuple[Any, int]:
    if code in _STRUCTS:
        kind, form = _STRUCTS[code]
        return kind(form.unpack_from(data, at)[0]), at + form.size
    if code in _CONSTANTS:
        return _CONSTANTS[code], at
    if code == 0x45:  # an empty list: a new one each time
        return [], at
    if code & 0xE0 == 0xA0:
        return _decode_variable(data, at, code)
    if code & 0xE0 >= 0xC0:
        return (_decode_array if code & 0x20 else _decode_compound)(data, at, code)
    return _decode_wide(data, at, code)


def _decode_wide(data: bytes, at: int, code: int) -> tuple[Any, int]:
    if code not in _WIDE:
        raise MalformedFrame(f"unknown AMQP constructor 0x{code:02x}")
    end = at + _WIDE[code]
    raw = _slice(data, at, _WIDE[code])
    return (UUID(bytes=raw) if code == 0x98 else Opaque(code, raw)), end


def _slice(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise MalformedFrame("an AMQP value ends too early")
    return bytes(data[at : at + size])


def _decode_variable(data: bytes, at: int, code: int) -> tuple[Any, int]:
    if code & 0x10:
        size, at = _U32.unpack_from(data, at)[0], at + 4
    else:
        size, at = data[at], at + 1
    make = _VARIABLE.get(code & 0xEF)
    if make is None:
        raise MalformedFrame(f"unknown AMQP constructor 0x{code:02x}")
    return make(_slice(data, at, size)), at + size


def _head(data: bytes, at: int, code: int) -> tuple[int, int, int]:
    """How many items a list, map or array has, where they start, and where it ends."""
    if code & 0x10:
        size, count = _TWO.unpack_from(data, at)
        start, end = at + 8, at + 4 + size
    else:
        size, count = data[at], data[at + 1]
        start, end = at + 2, at + 1 + size
    if end > len(data) or count > len(data):
        raise MalformedFrame("an AMQP list, map or array ends too early")
    return count, start, end


def _decode_compound(data: bytes, at: int, code: int) -> tuple[Any, int]:
    if code & 0x0F > 1:
        raise MalformedFrame(f"unknown AMQP constructor 0x{code:02x}")
    count, at, _ = _head(data, at, code)
    items = []
    for _ in range(count):
        item, at = _decode(data, at)
        items.append(item)
    if code & 0x0F == 0:
        return items, at
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}, at


def _key(key: Any) -> Any:
    try:
        hash(key)
    except TypeError:
        raise MalformedFrame("a list or map cannot be the key of a map here") from None
    return key


def _decode_array(data: bytes, at: int, code: int) -> tuple[Any, int]:
    if code & 0x0F:
        raise MalformedFrame(f"unknown AMQP constructor 0x{code:02x}")
    count, at, end = _head(data, at, code)
    if count == 0:
        return Array(), end
    if data[at] == 0:
        raise MalformedFrame("arrays of described values are not known here")
    inner, at = data[at], at + 1
    items = Array()
    for _ in range(count):
        item, at = _decode_body(data, at, inner)
        items.append(item)
    return items, at


def encode(value: Any) -> bytes:
    """Return a value on the wire. Raises TypeError for what AMQP has no type for."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise TypeError(f"AMQP has no type for {type(value).__name__}")
    return encoder(value)


def _packed(code: int, form: str) -> Callable[[Any], bytes]:
    packer = struct.Struct(f">B{form}")
    return lambda value: packer.pack(code, value)


def _unsigned(zero: int, short: int, full: int, form: str) -> Callable[[Any], bytes]:
    packer = struct.Struct(f">B{form}")

    def make(value: int) -> bytes:
        if value == 0:
            return bytes((zero,))
        return bytes((short, value)) if value <= _SHORT_LIMIT else packer.pack(full, value)

    return make


def _variable(code: int, to_bytes: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def make(value: Any) -> bytes:
        data = to_bytes(value)
        if len(data) <= _SHORT_LIMIT:
            return bytes((code, len(data))) + data
        return bytes((code | 0x10,)) + _U32.pack(len(data)) + data

    return make


def _compound(code: int, count: int, content: bytes) -> bytes:
    if count <= _SHORT_LIMIT and len(content) < _SHORT_LIMIT:
        return bytes((code, len(content) + 1, count)) + content
    return bytes((code | 0x10,)) + _U32.pack(len(content) + 4) + _U32.pack(count) + content


def _encode_list(items: Sequence[Any]) -> bytes:
    # Never the short form for an empty list (0x45): a client of Event Hubs that is much used cannot read it everywhere.
    return _compound(0xC0, len(items), b"".join(map(encode, items)))


def _encode_map(pairs: Mapping[Any, Any]) -> bytes:
    return _compound(0xC1, 2 * len(pairs), b"".join(encode(key) + encode(value) for key, value in pairs.items()))


def _encode_array(items: Array) -> bytes:
    inner, forms = _array_form(items)
    content = bytes((inner,)) + b"".join(forms)
    if len(items) <= _SHORT_LIMIT and len(content) < _SHORT_LIMIT:
        return bytes((0xE0, len(content) + 1, len(items))) + content
    return b"\xf0" + _U32.pack(len(content) + 4) + _U32.pack(len(items)) + content


def _array_form(items: Array) -> tuple[int, list[bytes]]:
    """One constructor for all, and the items without it: the widest form that one of them needs."""
    encoded = [encode(item) for item in items]
    codes = {item[0] for item in encoded}
    if not codes:
        return 0x40, []
    if len(codes) == 1:
        return codes.pop(), [item[1:] for item in encoded]
    if codes in ({0xA3, 0xB3}, {0xA1, 0xB1}, {0xA0, 0xB0}):
        wide = max(codes)
        return wide, [item[1:] if item[0] == wide else b"\0\0\0" + item[1:] for item in encoded]
    raise TypeError("an AMQP array of mixed or of small and large numbers is not known here")


_ENCODERS: Mapping[type[Any], Callable[[Any], bytes]] = {
    type(None): lambda _: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    int: _packed(0x81, "q"),
    float: _packed(0x82, "d"),
    Ubyte: _packed(0x50, "B"),
    Byte: _packed(0x51, "b"),
    Ushort: _packed(0x60, "H"),
    Short: _packed(0x61, "h"),
    Int: _packed(0x71, "i"),
    Timestamp: _packed(0x83, "q"),
    Uint: _unsigned(0x43, 0x52, 0x70, "I"),
    Ulong: _unsigned(0x44, 0x53, 0x80, "Q"),
    bytes: _variable(0xA0, bytes),
    str: _variable(0xA1, lambda value: str(value).encode()),
    Symbol: _variable(0xA3, lambda value: str(value).encode("ascii")),
    UUID: lambda value: b"\x98" + bytes(value.bytes),
    list: _encode_list,
    dict: _encode_map,
    Array: _encode_array,
    Described: lambda value: b"\0" + encode(value.descriptor) + encode(value.value),
    Opaque: lambda value: bytes((value.constructor,)) + value.data,
}
