"""When a message must leave its queue, because the queue itself would soon delete it."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from consumer.sources.base import Message

__all__ = ["time_left"]

_MARGIN = timedelta(hours=1)
_SHARE = 10


def time_left(message: Message, now: datetime) -> float:
    """Seconds until the message has to be put aside; 0 or less: it is time. Infinite where queues keep for ever.

    The margin before the queue's own deletion is an hour, or a tenth of the retention if that is shorter.
    """
    if message.expires_at is None:
        return math.inf
    margin = min(_MARGIN, (message.expires_at - message.accepted_at) / _SHARE)
    return (message.expires_at - margin - now).total_seconds()
