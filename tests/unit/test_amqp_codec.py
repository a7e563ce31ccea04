"""AMQP values, frames and sections on the wire."""

from __future__ import annotations

import uuid
from dataclasses import fields
from typing import Any

import pytest
from azure.eventhub._pyamqp._decode import decode_frame, decode_payload
from azure.eventhub._pyamqp._encode import encode_payload
from azure.eventhub._pyamqp.message import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.emulators import amqp_codec, amqp_frames
from tests.emulators.amqp_codec import (
    Array,
    Byte,
    Described,
    Int,
    MalformedFrame,
    Opaque,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
    decode,
    encode,
)
from tests.emulators.amqp_frames import AmqpError, Attach, Flow, Open, Section, Transfer, frame, parse, sections


def numbers(kind: type[int], low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high).map(kind)


UNSIGNED = [numbers(kind, 0, 2**bits - 1) for kind, bits in ((Ubyte, 8), (Ushort, 16), (Uint, 32), (Ulong, 64))]
SIGNED = [
    numbers(kind, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for kind, bits in ((Byte, 8), (Short, 16), (Int, 32), (int, 64), (Timestamp, 64))
]
SYMBOLS = st.text(st.characters(max_codepoint=127), max_size=300).map(Symbol)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
    st.uuids(),
    st.binary(min_size=4, max_size=4).map(lambda data: Opaque(0x72, data)),
    SYMBOLS,
    *UNSIGNED,
    *SIGNED,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(SCALARS, inner, max_size=4),
        st.builds(Described, st.one_of(SYMBOLS, numbers(Ulong, 0, 2**64 - 1)), inner),
        st.lists(SYMBOLS, max_size=4).map(Array),
    ),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """A value with its types, so that 1, True and Uint(1) differ."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        return type(value), [shape(item) for item in value]
    if isinstance(value, Described):
        return Described, shape(value.descriptor), shape(value.value)
    return type(value), value


@given(VALUES)
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    """What is encoded decodes to the same value of the same type, and to nothing more."""
    data = encode(value)
    found, end = decode(data)
    assert shape(found) == shape(value)
    assert end == len(data)


@given(VALUES, st.data())
def test_a_value_cut_short_is_malformed(value: Any, draw: st.DataObject) -> None:
    """Half a value is MalformedFrame, never another exception."""
    data = encode(value)
    with pytest.raises(MalformedFrame):
        decode(data[: draw.draw(st.integers(0, len(data) - 1))])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    """Bytes from anywhere never break the decoder in another way."""
    for read in (decode, parse, lambda message: list(sections(message))):
        try:
            read(data)
        except MalformedFrame:
            continue


def test_what_amqp_has_no_type_for_is_refused() -> None:
    """A value of another type, and an array of mixed ones, is a TypeError."""
    for value in (object(), {1, 2}, Array(["text", 1])):
        with pytest.raises(TypeError):
            encode(value)


@pytest.mark.parametrize(
    "performative",
    [
        Open(container_id="c", max_frame_size=Uint(512)),
        Attach(name="n" * 300, handle=Uint(3), role=True, properties={Symbol("k"): Int(-1)}),
        Flow(handle=Uint(1), link_credit=Uint(1000)),
    ],
)
def test_frames_carry_every_field(performative: Any) -> None:
    """Every field is on the wire, null or not, so that a client which reads by position finds it."""
    data = frame(performative, channel=7)
    channel, found, payload = parse(data)
    assert (channel, found, payload) == (7, performative, b"")
    code, values = decode_frame(memoryview(data)[8:])
    assert code == performative.code
    assert len(values) == len(fields(performative))


def test_a_transfer_carries_its_payload() -> None:
    """What follows the performative of a transfer is its payload."""
    transfer = Transfer(handle=Uint(0), delivery_id=Uint(5), delivery_tag=b"t", more=True)
    assert parse(frame(transfer, payload=b"payload")) == (0, transfer, b"payload")


def test_an_empty_frame_has_no_performative() -> None:
    """A heartbeat is a frame that says nothing."""
    assert parse(amqp_frames.EMPTY_FRAME) == (0, None, b"")


def test_messages_of_another_encoder_are_read_and_its_decoder_reads_ours() -> None:
    """Sections that Azure's library wrote are found where they lie, and it reads those written here."""
    message: Any = Message(
        data=[b"one", b"two"], application_properties={"a": 1}, message_annotations={b"k": "v", b"n": uuid.UUID(int=5)}
    )
    output = bytearray()
    encode_payload(output, message)
    found = list(sections(bytes(output)))
    codes = [Section.MESSAGE_ANNOTATIONS, Section.APPLICATION_PROPERTIES, Section.DATA, Section.DATA]
    assert [part.code for part in found] == codes
    assert [part.value for part in found][2:] == [b"one", b"two"]
    again: Any = decode_payload(memoryview(b"".join(amqp_frames.section(part.code, part.value) for part in found)))
    assert again.data == [b"one", b"two"]
    assert again.message_annotations[b"n"] == uuid.UUID(int=5)


def test_an_error_says_condition_and_text_only_in_its_places() -> None:
    """An error has all three fields, with an empty map of details."""
    described = AmqpError("amqp:not-found", "gone").described()
    assert described.value == ["amqp:not-found", "gone", {}]
    assert isinstance(described.value[0], amqp_codec.Symbol)
