"""The breaker, the guard and the pace: pure judgement, with the time passed in."""

from __future__ import annotations

import pytest

from consumer.breaker import Breaker, BreakerState
from consumer.guard import Guard
from consumer.pace import Pace
from consumer.retry import backoff


def test_a_breaker_waits_longer_after_each_failed_probe_up_to_its_cap() -> None:
    """Pauses double; half of each is fixed, so that a probe never comes at once."""
    breaker = Breaker(first=1, cap=8, rand=lambda: 0.0)
    assert breaker.trip(0.0, "database") is True
    waits = [breaker.retry_at]
    for _ in range(5):
        now = breaker.retry_at
        assert breaker.may_probe(now)
        breaker.probe_failed(now)
        waits.append(breaker.retry_at - now)
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_breaker_honours_retry_after() -> None:
    """What a downstream asked for is waited for, also when the breaker is open already."""
    breaker = Breaker(rand=lambda: 0.0)
    breaker.trip(100.0, "unavailable", retry_after=30)
    assert not breaker.may_probe(129.9)
    assert breaker.trip(110.0, "unavailable", retry_after=60) is False
    assert not breaker.may_probe(169.9)
    assert breaker.may_probe(170.0)


def test_trouble_while_half_open_opens_again_with_a_longer_wait() -> None:
    """One delivery that meets the trouble is enough to know."""
    breaker = Breaker(rand=lambda: 0.0)
    breaker.trip(0.0, "database")
    breaker.half_open()
    assert breaker.trip(1.0, "database") is False
    assert breaker.state is BreakerState.OPEN
    assert breaker.retry_at == 2.0


def test_only_a_handled_event_resets_the_waits() -> None:
    """Closing on an empty queue proves nothing."""
    breaker = Breaker(rand=lambda: 0.0)
    breaker.trip(0.0, "x")
    breaker.close()
    breaker.trip(10.0, "x")
    assert breaker.retry_at == 11.0
    breaker.close()
    breaker.proved()
    breaker.trip(20.0, "x")
    assert breaker.retry_at == 20.5


def test_twenty_bad_signatures_from_the_start_are_suspicious() -> None:
    """A wrong secret, not twenty forgers."""
    guard = Guard()
    for _ in range(19):
        guard.signature_bad()
    assert guard.suspicion is None
    guard.signature_bad()
    assert guard.suspicion == "signatures"
    guard.signature_good()
    assert guard.suspicion is None


def test_one_good_signature_makes_a_forged_flood_what_it_is() -> None:
    """Once a secret has proved itself, forged messages never stop honest ones."""
    guard = Guard()
    guard.signature_good()
    for _ in range(1000):
        guard.signature_bad()
    assert guard.suspicion is None


def test_new_secrets_must_prove_themselves_again() -> None:
    """A reload may have brought the wrong ones."""
    guard = Guard()
    guard.signature_good()
    guard.secrets_changed()
    for _ in range(20):
        guard.signature_bad()
    assert guard.suspicion == "signatures"


def test_fifty_different_failures_in_a_row_are_suspicious() -> None:
    """The same event failing again and again is not; one success between is enough."""
    guard = Guard()
    for _ in range(200):
        guard.failed(b"same")
    assert guard.suspicion is None
    for number in range(49):
        guard.failed(bytes([number]))
    assert guard.suspicion == "handlers"
    guard.handled()
    assert guard.suspicion is None


def test_only_reliably_fast_handlers_share_transactions() -> None:
    """Three fast runs earn it; one slow or failed one loses it for many runs."""
    pace = Pace()
    for _ in range(3):
        assert not pace.groupable
        pace.ran(0.001)
    assert pace.groupable
    pace.failed()
    for _ in range(63):
        pace.ran(0.001)
    assert not pace.groupable
    pace.ran(0.001)
    assert pace.groupable
    pace.ran(1.0)
    for _ in range(8):
        assert not pace.groupable
        pace.ran(0.001)
    assert pace.groupable


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 2.0), (2, 4.0), (5, 32.0), (9, 60.0), (10_000, 60.0)])
def test_backoff_is_exponential_capped_and_fully_jittered(attempt: int, ceiling: float) -> None:
    """From nothing to the ceiling."""
    assert backoff(attempt, base=2.0, cap=60.0, rand=lambda: 0.0) == 0.0
    assert backoff(attempt, base=2.0, cap=60.0, rand=lambda: 0.5) == ceiling / 2
    with pytest.raises(ValueError, match="count from 1"):
        backoff(0, base=1, cap=1)
