"""Faults on demand: slow answers, and answers that say no."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["FaultRule", "Faults", "Strike"]

_USUAL: Final = (429, 500, 503)
_RETRY_AFTER: Final = 1
_ASKING_FOR_PATIENCE: Final = frozenset({429, 503})
_MOST_RULES: Final = 100


class FaultRule(BaseModel):
    """What happens to the requests under a path. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: str = Field("/", description="Prefix of the paths it is for; * for all.")
    method: str | None = Field(None, description="Only this method.")
    latency: float = Field(0.0, ge=0, le=600, description="Real seconds added to every answer.")
    error_rate: float = Field(0.0, ge=0, le=1, description="Share of the requests that fail.")
    status: int | None = Field(None, ge=400, le=599, description="What they fail with; by default 429, 500 or 503.")
    retry_after: int | str | None = Field(None, description="Retry-After; by default 1 with 429 and 503.")
    times: int | None = Field(None, ge=1, description="How many requests fail before the rule is used up.")

    @field_validator("path")
    @classmethod
    def _every(cls, path: str) -> str:
        return "/" if path == "*" else path

    @model_validator(mode="after")
    def _fails_at_all(self) -> Self:
        how = [name for name in ("status", "retry_after", "times") if getattr(self, name) is not None]
        if how and not self.error_rate:
            raise ValueError(f"error_rate: missing, so no request fails, and {how[0]} means nothing; 1 for all of them")
        return self

    def reaches(self, routes: Iterable[tuple[str, str]]) -> bool:
        """Whether any of these could be struck: methods, with paths that have `{name}` where anything may stand."""
        return any((self.method or method).upper() == method and _may_begin(path, self.path) for method, path in routes)


def _may_begin(template: str, prefix: str) -> bool:
    have, (*whole, last) = template.split("/"), prefix.split("/")
    if len(whole) >= len(have):
        return False
    same = all(_is_open(one) or one == part for one, part in zip(have, whole, strict=False))
    return same and (_is_open(have[len(whole)]) or have[len(whole)].startswith(last))


def _is_open(segment: str) -> bool:
    return segment.startswith("{")


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens to one request."""

    latency: float = 0.0
    status: int | None = None
    """None: it is answered as always."""
    retry_after: str | None = None


class Faults:
    """The rules in force. Of those that fit a request the first one counts."""

    def __init__(self, rules: Sequence[FaultRule] = (), *, seed: int = 1) -> None:
        self._random = Random(f"faults:{seed}")  # noqa: S311 - no secrets
        self._rules: list[FaultRule] = []
        self._struck: list[int] = []
        self.replace(rules)

    @property
    def rules(self) -> tuple[FaultRule, ...]:
        """All of them, used up or not."""
        return tuple(self._rules)

    def replace(self, rules: Sequence[FaultRule]) -> None:
        """Put these in the place of those in force. Raises `ValueError` for more than a hundred."""
        if len(rules) > _MOST_RULES:
            raise ValueError(f"expected at most {_MOST_RULES} rules")
        self._rules = list(rules)
        self._struck = [0] * len(rules)

    def strike(self, method: str, path: str) -> Strike:
        """What happens to this request; counts it."""
        for number, rule in enumerate(self._rules):
            if not path.startswith(rule.path) or (rule.method or method).upper() != method.upper():
                continue
            if rule.times is not None and self._struck[number] >= rule.times:
                continue
            return self._by(number, rule)
        return Strike()

    def _by(self, number: int, rule: FaultRule) -> Strike:
        if not self._random.random() < rule.error_rate:
            return Strike(rule.latency)
        self._struck[number] += 1
        status = rule.status or self._random.choice(_USUAL)
        wait = rule.retry_after
        if wait is None and status in _ASKING_FOR_PATIENCE:
            wait = _RETRY_AFTER
        return Strike(rule.latency, status, None if wait is None else str(wait))
