"""The relay: Sahha's webhooks in, messages on a queue out."""

from __future__ import annotations

from consumer.relay.server import Relay, relay_source

__all__ = ["Relay", "relay_source"]
