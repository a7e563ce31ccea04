"""Sending to SQS: which message of a batch was taken, and which was not and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from consumer.errors import SourceError, SourceRefused, SourceUnavailable
from consumer.sources.sqs_errors import fate_of_entry

__all__ = ["send_batch"]

_ROUNDS: Final = 3


async def send_batch(
    batch: Sequence[dict[str, Any]], *, name: str, call: Callable[[list[dict[str, Any]]], Awaitable[Any]]
) -> list[SourceError | None]:
    """Send at most ten entries, again as far as SQS did not take them for a passing reason; an answer for each.

    `call` makes one SendMessageBatch call with numbered entries and returns the reply; what it raises passes.
    """
    answers: dict[int, SourceError | None] = {}
    for _ in range(_ROUNDS):
        left = [number for number in range(len(batch)) if number not in answers]
        if not left:
            break
        reply = await call([{"Id": str(number), **batch[number]} for number in left])
        answers.update((int(one["Id"]), None) for one in reply.get("Successful") or ())
        for failure in reply.get("Failed") or ():
            code = str(failure.get("Code", ""))
            if fate_of_entry(code, sender_fault=bool(failure.get("SenderFault"))) != "again":
                answers[int(failure["Id"])] = SourceRefused(f"source {name}: SQS did not take a message: {code}")
    missing = sum(number not in answers for number in range(len(batch)))
    passing = SourceUnavailable(f"source {name}: SQS did not take {missing} messages, for now")
    return [answers.get(number, passing) for number in range(len(batch))]
