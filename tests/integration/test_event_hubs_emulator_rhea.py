"""The Event Hubs emulator through the eyes of rhea, an AMQP 1.0 library that has nothing to do with Azure's."""

from __future__ import annotations

import time

from azure.eventhub._pyamqp.utils import generate_sas_token

from tests.emulators.event_hubs import KEY_NAME, EventHubsEmulator
from tests.servers.rhea import rhea_probe


async def test_an_independent_amqp_library_agrees_with_the_emulator() -> None:
    """Sending, sections, large messages, selectors, credit, drain, management, refusals, tokens, heartbeats."""
    token = generate_sas_token("sb://here/events", KEY_NAME, "SAS_KEY_VALUE", time.time() + 60)
    async with EventHubsEmulator() as hub:
        seen = await rhea_probe(port=hub.port, user=KEY_NAME, key="SAS_KEY_VALUE", token=token, large=200_000)
        events = hub.log.hub("events").partitions[0].events

    assert seen["outcomes"] == ["accepted"] * 3
    assert [event.data for event in events] == [(b"zero",), (b"one", b"more"), (b"z" * 200_000,)]
    assert events[1].properties == {"count": 7}
    assert seen["messages"] == [
        {"sections": ["one", "more"], "properties": {"count": 7}, "sequence": 1, "key": "member-1"},
        {"sections": [200_000], "sequence": 2},
    ]
    assert (seen["within_credit"], seen["credit_after_drain"]) == (1, 0)
    assert (seen["management"]["id"], seen["management"]["status"]) == ("question", 200)
    assert seen["management"]["value"]["last_enqueued_sequence_number"] == 2
    assert seen["refused"] == ["amqp:not-found", "amqp:not-found", "com.microsoft:argument-out-of-range"]
    assert seen["too_large"] == "amqp:link:message-size-exceeded"
    assert seen["alive"]
    assert (seen["without_token"], seen["with_token"]) == ("amqp:unauthorized-access", "accepted")
    assert (seen["bad_token"], seen["good_token"]) == (401, 202)
