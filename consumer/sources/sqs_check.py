"""What `consumer check` says of an SQS queue's own settings. Pure: facts in, findings out."""

from __future__ import annotations

from consumer.sources.base import Finding
from consumer.sources.sqs_messages import Facts

__all__ = ["describe"]

_DAY = 86_400.0


def describe(facts: Facts, *, most_receives: int) -> list[Finding]:
    """The findings on reachability, retention, redrive and order.

    `most_receives`: how often the worker may receive an event before it counts as one that kills its process.
    """
    if facts.denied:
        detail = "may not sqs:GetQueueAttributes: retention is taken as 4 days, and the redrive policy is not known"
        return [Finding("queue", ok=False, warning=True, detail=detail)]
    kind = "FIFO: groups in order, one event of a group at a time" if facts.fifo else "standard: no order"
    return [
        Finding("queue", ok=True, detail=f"reachable; {kind}"),
        Finding("retention", ok=True, detail=f"{facts.retention.total_seconds() / _DAY:g} days"),
        _redrive(facts, most_receives),
    ]


def _redrive(facts: Facts, most_receives: int) -> Finding:
    count = facts.redrive_after
    if count is None:
        return Finding("redrive policy", ok=True, detail="none; dead letters are the consumer's own")
    if count < most_receives:
        detail = (
            f"maxReceiveCount is {count}: SQS would take events away unhandled, since giving one back counts too; "
            f"set it to {most_receives} (5 x max_attempts) or more, or remove the policy"
        )
        return Finding("redrive policy", ok=False, detail=detail)
    return Finding("redrive policy", ok=True, detail=f"maxReceiveCount {count}, {most_receives} needed")
