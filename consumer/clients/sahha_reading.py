"""Sahha's answers, read into models. "No data" has two forms: 204, and 200 with an empty list."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from consumer.clients.http import UNREADABLE, Reply
from consumer.errors import ApiError
from consumer.models.sahha_base import SahhaModel

__all__ = ["read_many", "read_one", "read_present"]

M = TypeVar("M", bound=SahhaModel)

_NO_CONTENT = 204


def read_many(call: str, reply: Reply, model: type[M]) -> list[M]:
    """The answer's list; empty for no data. Raises `ApiError` (`unreadable_answer`) for anything else."""
    answer = None if _is_empty(reply) else reply.json(call)
    if answer is None:
        return []
    if isinstance(answer, list):
        try:
            return [model.model_validate(item) for item in answer]
        except ValidationError:
            pass
    del answer  # there are tools that print the variables of a traceback
    raise ApiError(call, status=reply.status, code=UNREADABLE)


def read_one(call: str, reply: Reply, model: type[M]) -> M | None:
    """The answer's object; None for no data. Raises `ApiError` (`unreadable_answer`) for anything else."""
    answer = None if _is_empty(reply) else reply.json(call)
    if answer is None or answer == []:
        return None
    try:
        return model.model_validate(answer)
    except ValidationError:
        pass
    del answer
    raise ApiError(call, status=reply.status, code=UNREADABLE)


def read_present(call: str, reply: Reply, model: type[M]) -> M:
    """The answer's object, of a call that always has one. Raises `ApiError` (`unreadable_answer`) for anything else."""
    answer = read_one(call, reply, model)
    if answer is None:
        raise ApiError(call, status=reply.status, code=UNREADABLE)
    return answer


def _is_empty(reply: Reply) -> bool:
    return reply.status == _NO_CONTENT or not reply.body.strip()
