"""How long a failed event waits before it is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["backoff"]

_DOUBLINGS = 64


def backoff(attempt: int, *, base: float, cap: float, rand: Callable[[], float] = random.random) -> float:
    """Seconds to wait after failed attempt number `attempt` (1 or more): exponential with full jitter.

    Uniform between 0 and `min(cap, base * 2**(attempt - 1))`: jitter over the whole range keeps events that failed
    together from coming back together (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """
    if attempt < 1:
        raise ValueError("attempts count from 1")
    return rand() * min(cap, base * 2.0 ** min(attempt - 1, _DOUBLINGS))
