"""The pure parts of the Event Hubs emulator: what it keeps, who may read it, tokens, faults."""

from __future__ import annotations

import math
from typing import Any

import pytest
from azure.eventhub._pyamqp.utils import generate_sas_token

from tests.emulators.amqp_codec import MalformedFrame, Symbol
from tests.emulators.amqp_frames import AmqpError, Section, section
from tests.emulators.event_hubs_faults import Faults
from tests.emulators.event_hubs_log import BATCH_FORMAT, EventHubsLog, Hub, Partition, Reader, position
from tests.emulators.event_hubs_nodes import put_token

NOW = 1_700_000_000.0
KEYS = {"root": "secret"}
TOKEN = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": "sb://host/events"}


@pytest.fixture
def hub() -> Hub:
    """A hub of two partitions."""
    return EventHubsLog({"Events": 2}, ("$Default",), NOW).hub("events")


def filled(hub: Hub, count: int) -> Partition:
    """The first partition with so many events, one a second."""
    for number in range(count):
        hub.fill([b"%d" % number], NOW + number, partition=hub.partitions[0])
    return hub.partitions[0]


@pytest.mark.parametrize(
    ("name", "operator", "value", "expected"),
    [
        ("sequence-number", ">", 3, 4),
        ("sequence-number", ">=", 3, 3),
        ("sequence-number", ">", -1, 2),
        ("sequence-number", ">", 9, 10),
        ("sequence-number", ">=", 0, 2),
        ("offset", ">", "-1", 2),
        ("offset", ">", "@latest", 10),
        ("enqueued-time", ">", int(NOW + 5) * 1000, 6),
        ("enqueued-time", ">=", int(NOW + 5) * 1000, 5),
        ("enqueued-time", ">", int(NOW + 999) * 1000, 10),
    ],
)
def test_a_selector_names_the_first_event_to_read(
    hub: Hub, name: str, operator: str, value: object, expected: int
) -> None:
    """Positions count from events that are kept: what was deleted is passed over."""
    partition = filled(hub, 10)
    partition.trim(2)
    assert position(partition, f"amqp.annotation.x-opt-{name} {operator} '{value}'") == expected


def test_offsets_go_up_and_find_their_event(hub: Hub) -> None:
    """An offset is no sequence number; after it comes the next event, and beyond the last there is nothing."""
    partition = filled(hub, 3)
    offsets = [int(event.offset) for event in partition.events]
    assert offsets == sorted(set(offsets))
    assert offsets[1] != 1
    assert [position(partition, f"amqp.annotation.x-opt-offset > '{offset}'") for offset in offsets] == [1, 2, 3]
    for selector, condition in (
        (f"amqp.annotation.x-opt-offset > '{offsets[-1] + 1}'", "com.microsoft:argument-error"),
        ("amqp.annotation.x-opt-offset > 'x'", "com.microsoft:argument-error"),
        ("amqp.annotation.x-opt-other > '1'", "amqp:invalid-field"),
        ("anything", "amqp:invalid-field"),
    ):
        with pytest.raises(AmqpError) as caught:
            position(partition, selector)
        assert caught.value.condition == condition


def test_reading_passes_over_what_was_deleted(hub: Hub) -> None:
    """Sequence numbers stay with their events when the oldest are deleted, and new ones go on from the last."""
    partition = filled(hub, 5)
    assert partition.trim(3) == 3
    assert [event.sequence for event in partition.read(1, 10)] == [3, 4]
    assert partition.trim(99) == 2
    filled(hub, 1)
    assert [event.sequence for event in partition.read(0, 10)] == [5]
    assert (partition.first, partition.last) == (5, 5)


def test_a_batch_is_kept_whole_or_not_at_all(hub: Hub) -> None:
    """One unreadable message in a batch, and nothing of it is kept."""
    good = section(Section.DATA, section(Section.DATA, b"good"))
    with pytest.raises(MalformedFrame):
        hub.put(good + section(Section.DATA, b"\x00\x53"), BATCH_FORMAT, NOW)
    assert not any(partition.events for partition in hub.partitions)
    assert [event.body for event in hub.put(good + good, BATCH_FORMAT, NOW)] == [b"good", b"good"]


def test_a_sender_cannot_set_what_the_service_sets(hub: Hub) -> None:
    """Annotations of position and time come from the hub, whatever the message says."""
    annotations = {Symbol("x-opt-sequence-number"): 99, Symbol("x-opt-partition-key"): "k", Symbol("mine"): 1}
    [event] = hub.put(section(Section.MESSAGE_ANNOTATIONS, annotations) + section(Section.VALUE, "v"), 0, NOW)
    assert (event.sequence, event.key, event.enqueued) == (0, "k", NOW * 1000)
    assert event.encoded.count(b"x-opt-sequence-number") == 1
    assert event.encoded.count(b"mine") == 1


def reader(partition: Partition, level: int | None, lost: list[Any] | None = None, group: str = "g") -> Reader:
    """A reader that notes down why it was displaced."""
    found = Reader(partition, group, level, "r", ([] if lost is None else lost).append)
    found.register()
    return found


def test_owner_levels_displace_and_refuse(hub: Hub) -> None:
    """A level displaces readers of no, a lower and the same level; a lower one, or none, is refused beside it."""
    partition = hub.partitions[0]
    lost: list[AmqpError] = []
    readers = [reader(partition, level, lost) for level in (None, 1, 1, 2)]
    assert [error.condition for error in lost] == ["amqp:link:stolen"] * 3
    for level in (None, 1, 0):
        with pytest.raises(AmqpError, match="amqp:link:stolen"):
            reader(partition, level)
    reader(partition, 0, group="other")
    reader(hub.partitions[1], 0)
    for one in readers:
        one.leave()
    for _ in range(5):
        reader(partition, None)
    with pytest.raises(AmqpError, match="amqp:resource-limit-exceeded"):
        reader(partition, None)


def test_a_signature_opens_its_path_until_it_is_over() -> None:
    """A good signature names its path and its end; a wrong key, a changed path or a late one is refused."""
    token = generate_sas_token("sb://host:1/events", "root", "secret", NOW + 10)
    assert put_token(TOKEN, token, KEYS, NOW) == ("events", NOW + 10)
    other = generate_sas_token("sb://host:1/events", "root", "wrong", NOW + 10)
    unknown = generate_sas_token("sb://host:1/events", "nobody", "", NOW + 10)
    for wrong, now in (
        (token, NOW + 10),
        (token.replace("events", "others"), NOW),
        (other, NOW),
        (unknown, NOW),
        ("nonsense", NOW),
    ):
        with pytest.raises(AmqpError, match="amqp:unauthorized-access"):
            put_token(TOKEN, wrong, KEYS, now)
    assert put_token({**TOKEN, "type": "jwt"}, "any", KEYS, NOW) == ("events", math.inf)


def test_faults_hit_where_when_and_as_often_as_they_are_told_to() -> None:
    """A fault is narrowed down by place, count and time; clearing ends it."""
    faults = Faults()
    faults.add("refuse_links", now=NOW, partition="1", role="listen", count=2)
    assert faults.draw("refuse_links", NOW, hub="h", partition="0", role="listen") is None
    assert faults.draw("refuse_links", NOW, hub="h", partition="1", role="send") is None
    hits = [faults.draw("refuse_links", NOW, hub="h", partition="1", role="listen") for _ in range(3)]
    assert [hit is not None for hit in hits] == [True, True, False]
    faults.add("silent", now=NOW, seconds=5.0)
    assert faults.draw("silent", NOW + 4.9, hub="h", partition="0") is not None
    assert faults.draw("silent", NOW + 5.0, hub="h", partition="0") is None
    faults.add("management", now=NOW)
    faults.clear("management")
    assert faults.draw("management", NOW, hub="h") is None
    for wrong in ({"kind": "other"}, {"kind": "silent", "role": "both"}):
        with pytest.raises(ValueError, match=r"a fault is|the role"):
            faults.add(now=NOW, **wrong)
