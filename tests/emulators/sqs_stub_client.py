"""Short ways to ask an SQS client for what tests look at."""

from __future__ import annotations

from typing import Any

__all__ = ["depth", "entries", "receive"]


async def receive(sqs: Any, url: str, count: int = 10, **options: Any) -> list[dict[str, Any]]:
    """The messages of one receive, with all they have."""
    options = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"], **options}
    reply = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=count, **options)
    messages: list[dict[str, Any]] = reply.get("Messages", [])
    return messages


async def depth(sqs: Any, url: str) -> tuple[int, int, int]:
    """Visible, invisible and delayed messages."""
    attributes = (await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    names = ("", "NotVisible", "Delayed")
    visible, invisible, delayed = (int(attributes[f"ApproximateNumberOfMessages{name}"]) for name in names)
    return visible, invisible, delayed


def entries(messages: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Batch entries for receipts."""
    return [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"], **more} for i, m in enumerate(messages)]
