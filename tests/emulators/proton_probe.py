"""Sends to and reads from an Event Hubs emulator with Apache Qpid Proton, an independent AMQP 1.0 implementation.

    pip install python-qpid-proton      # compiles C, so the test suite does not count on it
    python -m tests.emulators.event_hubs --port 5672 &
    python tests/emulators/proton_probe.py 5672

Prints one line for each thing that was right and ends with 1 at the first that was not.
"""

from __future__ import annotations

import sys
from typing import Any

from proton import Message, symbol
from proton.reactor import Selector
from proton.utils import BlockingConnection, LinkDetached, SendException

__all__ = ["main"]

_KEY = ("RootManageSharedAccessKey", "SAS_KEY_VALUE")
_READER = "events/ConsumerGroups/$Default/Partitions/1"


def _expect(what: str, *, right: bool) -> None:
    sys.stdout.write(f"{'ok' if right else 'WRONG'}: {what}\n")
    if not right:
        sys.exit(1)


def _send(connection: Any) -> None:
    sender = connection.create_sender("events/Partitions/1")
    for number in range(3):
        message = Message(body=b"event %d" % number, properties={"count": number}, inferred=True)
        message.annotations = {symbol("x-opt-partition-key"): "member-1"}
        sender.send(message)
    sender.send(Message(body=b"z" * 300_000, inferred=True))
    _expect("four messages were accepted, one of them in many frames", right=True)
    try:
        sender.send(Message(body=b"z" * 1_100_000, inferred=True))
        _expect("a message over the limit is refused", right=False)
    except (LinkDetached, SendException) as error:
        _expect("a message over the limit is refused", right="message-size-exceeded" in str(error))


def _read(connection: Any) -> None:
    after = Selector("amqp.annotation.x-opt-sequence-number > '0'")
    receiver = connection.create_receiver(_READER, credit=2, options=after)
    messages = [receiver.receive(timeout=5) for _ in range(3)]
    bodies = [bytes(message.body) for message in messages]
    _expect("reading starts after the event that the selector names", right=bodies[:2] == [b"event 1", b"event 2"])
    _expect("a message in many frames arrives whole", right=bodies[2] == b"z" * 300_000)
    notes = [message.annotations for message in messages]
    _expect("sequence numbers go up", right=[n["x-opt-sequence-number"] for n in notes] == [1, 2, 3])
    _expect("the partition key is kept", right=notes[0]["x-opt-partition-key"] == "member-1")
    _expect("application properties are kept", right=messages[0].properties == {"count": 1})
    receiver.close()


def _ask(connection: Any) -> None:
    receiver = connection.create_receiver("$management", name="replies")
    request = {"operation": "READ", "type": "com.microsoft:partition", "name": "events", "partition": "1"}
    connection.create_sender("$management").send(Message(id="question", properties=request))
    reply = receiver.receive(timeout=5)
    _expect("a request is answered", right=(reply.correlation_id, reply.properties["status-code"]) == ("question", 200))
    _expect("the partition is described", right=reply.body["last_enqueued_sequence_number"] == 3)


def _refused(connection: Any) -> None:
    try:
        connection.create_receiver("events/ConsumerGroups/nobody/Partitions/0")
        _expect("a missing consumer group is refused", right=False)
    except LinkDetached as error:
        _expect("a missing consumer group is refused", right="amqp:not-found" in str(error))


def main() -> None:
    """Run the probe on the port that is given."""
    connection = BlockingConnection(
        f"amqp://127.0.0.1:{int(sys.argv[1])}", timeout=10, user=_KEY[0], password=_KEY[1], allowed_mechs="PLAIN"
    )
    for part in (_send, _read, _ask, _refused):
        part(connection)
    connection.close()


if __name__ == "__main__":
    main()
