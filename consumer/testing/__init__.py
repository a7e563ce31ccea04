"""What you import to test your handlers: sample events, signatures, and a worker in a box.

    from consumer.testing import Handled, TestConsumer, sample

    async def test_a_lab_result_is_kept():
        async with TestConsumer(table) as consumer:
            assert await consumer.send(sample(LabResultEvent, user_id="u1")) == Handled()

Nothing here needs pytest. `consumer.testing.conformance`, for people who write a source, does, and is imported by name.
"""

from __future__ import annotations

from consumer.outcomes import DeadLettered, Duplicate, Handled, Outcome, WillRetry
from consumer.testing.consumer import TestConsumer
from consumer.testing.context import make_context
from consumer.testing.samples import sample, sample_body
from consumer.testing.signing import sign_sahha, sign_thrive

__all__ = [
    "DeadLettered",
    "Duplicate",
    "Handled",
    "Outcome",
    "TestConsumer",
    "WillRetry",
    "make_context",
    "sample",
    "sample_body",
    "sign_sahha",
    "sign_thrive",
]
