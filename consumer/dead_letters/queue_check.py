"""What `consumer check` says of dead-letter queues. Nothing is sent or received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consumer.dead_letters.queues import DeadLetterQueue
from consumer.durations import format_duration
from consumer.errors import ConsumerError
from consumer.sources.base import Finding, SendChecking
from consumer.sources.sqs_messages import Facts

if TYPE_CHECKING:
    from consumer.settings import Settings, SourceSettings

__all__ = ["describe", "queue_findings"]

_LONGEST: Final = 14 * 86_400.0
"""Seconds SQS can keep a message."""


async def queue_findings(settings: Settings) -> list[Finding]:
    """Whether each source's dead-letter queue is there, takes messages, and keeps them."""
    found: list[Finding] = []
    for name in settings.sources:
        try:
            found += await _findings(DeadLetterQueue(settings.source(name)), settings.dead_letters.max_age)
        except ConsumerError as error:
            found.append(Finding(f"queue of {name}", ok=False, detail=str(error)))
    return found


async def _findings(letters: DeadLetterQueue, max_age: float | None) -> list[Finding]:
    name = letters.source.name
    settings = await letters.settings()
    queue = letters.make(settings)
    try:
        await queue.open()
        reached = (await queue.check())[0]
        found = [Finding(f"queue of {name}", ok=reached.ok, warning=reached.warning, detail=reached.detail)]
        if isinstance(queue, SendChecking):
            found += [replace(one, name=f"{one.name} of {name}") for one in await queue.check_sending()]
    finally:
        await queue.close()
    if settings.kind == "sqs":
        found += describe(await _facts(letters.source), await _facts(settings), name=name, max_age=max_age)
    return found


async def _facts(settings: SourceSettings) -> Facts:
    from consumer.sources.sqs import SqsSource  # noqa: PLC0415 - only what is used is imported

    source = SqsSource(settings)
    try:
        await source.open()
        return source.facts
    finally:
        await source.close()


def describe(source: Facts, letters: Facts, *, name: str, max_age: float | None) -> list[Finding]:
    """The findings on retention and redrive, of a source's queue and its dead-letter queue. Pure.

    `max_age` is how long dead letters may be replayed, in seconds; None is for ever.
    """
    if source.denied or letters.denied:
        detail = "may not sqs:GetQueueAttributes: how long dead letters are kept is not known"
        return [Finding(f"retention of {name}", ok=False, warning=True, detail=detail)]
    kept, wanted = letters.retention.total_seconds(), _LONGEST if max_age is None else min(max_age, _LONGEST)
    if source.redrive_after is not None:
        # By the developer guide a message that SQS itself moves between standard queues keeps its first enqueue time.
        wanted = max(wanted, source.retention.total_seconds())
    retention = f"SQS deletes dead letters after {format_duration(kept)}"
    if kept < wanted:
        retention += f": set MessageRetentionPeriod to {format_duration(wanted)}"
    found = [Finding(f"retention of {name}", ok=kept >= wanted, warning=True, detail=retention)]
    if source.redrive_target == letters.arn and not _allows(letters.redrive_allowed, source.arn):
        detail = "the dead-letter queue's RedriveAllowPolicy does not let this source's queue move messages there"
        found.append(Finding(f"redrive of {name}", ok=False, warning=True, detail=detail))
    if letters.redrive_after is not None:
        detail = (
            f"the dead-letter queue has one itself: after {letters.redrive_after} looks, messages move on from there"
        )
        found.append(Finding(f"redrive of {name}", ok=False, warning=True, detail=detail))
    return found


def _allows(policy: Mapping[str, object], arn: str | None) -> bool:
    permission, sources = policy.get("redrivePermission", "allowAll"), policy.get("sourceQueueArns")
    return permission == "allowAll" or (permission == "byQueue" and isinstance(sources, list) and arn in sources)
