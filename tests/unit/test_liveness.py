"""What counts as standing still."""

from __future__ import annotations

from consumer.ops.liveness import LONGEST_STEP, Progress, Spells


class _Loop:
    def __init__(self) -> None:
        self.reading: int | None = 0


def _watched(limit: float = 60.0) -> tuple[Progress, _Loop]:
    progress, loop = Progress(), _Loop()
    progress.watch("a loop stands still", lambda: loop.reading, limit=limit)
    return progress, loop


def _looks(progress: Progress, begin: float, end: float, every: float = 10.0) -> list[str | None]:
    found, now = [], begin
    while now <= end:
        found.append(progress.standstill(now))
        now += every
    return found


def test_a_loop_that_does_not_turn() -> None:
    """Red once it has stood for as long as it may, not before, and green as soon as it turns."""
    progress, loop = _watched()
    found = _looks(progress, 0, 100)
    assert found[:6] == [None] * 6
    assert found[6:] == [f"a loop stands still ({seconds} s)" for seconds in (60, 70, 80, 90, 100)]
    loop.reading = 1
    assert progress.standstill(110) is None


def test_a_loop_that_waits_for_nothing() -> None:
    """It may wait for ever, and its time begins anew with its next piece of work."""
    progress, loop = _watched()
    loop.reading = None
    assert set(_looks(progress, 0, 10_000)) == {None}
    loop.reading = 0
    assert set(_looks(progress, 10_010, 10_060)) == {None}


def test_a_slow_loop_that_turns() -> None:
    """One turn between two looks is enough, however long it takes beside what it may."""
    progress, loop = _watched(limit=15)
    for turn in range(100):
        loop.reading = turn
        assert progress.standstill(turn * 10.0) is None


def test_a_process_that_was_stopped() -> None:
    """A long time in which nobody looked, or nothing ran at all, is not held against a loop at once."""
    progress, _ = _watched()
    assert progress.standstill(0) is None
    assert progress.standstill(1_000_000) is None
    assert progress.standstill(1_000_000 + LONGEST_STEP) is not None


def test_two_that_stand_still() -> None:
    """The first that was registered is named, and both keep their time."""
    progress, loop = _watched()
    progress.watch("another", lambda: "always", limit=60)
    assert _looks(progress, 0, 60)[-1] == "a loop stands still (60 s)"
    loop.reading = None
    assert progress.standstill(70) == "another (70 s)"


def test_pieces_of_work() -> None:
    """The oldest that has not ended is what is looked at, also when it ends by an error."""
    spells = Spells()
    assert spells.oldest is None
    assert spells.longest == 0
    with spells.under_way():
        first = spells.oldest
        try:
            with spells.under_way():
                assert spells.oldest == first
                raise KeyError
        except KeyError:
            pass
        assert spells.oldest == first
        assert spells.longest >= 0
    assert spells.oldest is None
    with spells.under_way():
        assert spells.oldest not in (None, first)
