"""Erasing a member: from the events that are parked, from the dead letters and from what handlers keep.

Rows of the inbox stay: hashes, by which an event that comes again is known to have taken effect. Each step may be
repeated, so after a crash the whole is done again, and finds less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from consumer.database import classify
from consumer.dead_letters.archive import Archive, Problem, Unseal
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, open_sealed
from consumer.deliveries import Held
from consumer.dispatch import Forgetter
from consumer.envelope import split
from consumer.errors import ConsumerError, DatabaseConflict, DeadLetterError, NotConfigured, VerificationError
from consumer.failures import describe
from consumer.inbox import Inbox, UnitOfWork
from consumer.member import Member
from consumer.opening import open_message
from consumer.parked import Kept, ParkedEvents
from consumer.route import Route
from consumer.sources.base import Message
from consumer.whose import Ownership, Share

__all__ = [
    "DeadLettersForgotten",
    "ParkedForgotten",
    "forget_dead_letters",
    "forget_kept",
    "forget_parked",
    "refuse_sealed",
]

_TIMES: Final = 3
_SEALED: Final = b'"sealed"'
_NEVER_PARK: Final = frozenset({"unsigned", "bad_signature"})
"""Reasons for which no lane is closed: what was never an event leaves no gap."""
_IDENTITY: Final = "dead_letters.identity_file: needed to search sealed dead letters for a member"


@dataclass(slots=True)
class ParkedForgotten:
    """What became of the parked events of one source."""

    erased: int = 0
    """In a dry run: what would be."""
    held: int = 0
    """Theirs, but a worker has them in hand."""
    shared: int = 0
    """Messages that hold others' events too, which cannot be taken apart."""


async def forget_parked(
    parked: ParkedEvents, inbox: Inbox, route: Route | None, ownership: Ownership, *, dry_run: bool
) -> ParkedForgotten:
    """Erase a member's parked events of one source, and what is noted of their attempts.

    `route` opens them as the worker would; None for a source that is not configured any more, whose messages are then
    searched for the id. Raises `DatabaseUnavailable` or `DatabaseConflict`.
    """
    done = ParkedForgotten()
    # Signatures are checked, ages are not: what waits here was young enough when it came.
    opener = None if route is None else replace(route, any_age=True)
    async for page in parked.pages():
        goes: list[Message] = []
        keys: list[bytes] = []
        for kept in page:
            theirs, found = _whose(kept, opener, ownership)
            if theirs == "all" and not kept.held:
                goes.append(kept.message)
                keys += found
            done.held += theirs == "all" and kept.held
            done.shared += theirs == "some"
        if dry_run or not goes:
            done.erased += len(goes)
            continue
        gone = await parked.erase(goes)
        done.erased += gone
        done.held += len(goes) - gone
        if gone == len(goes):  # else a worker counts the attempts of one of them this moment
            await inbox.forget_attempts(keys)
    return done


def _whose(kept: Kept, route: Route | None, ownership: Ownership) -> tuple[Share, list[bytes]]:
    """Whether `all`, `some` or `none` of a message's envelopes are the member's, and the keys of those events."""
    message = kept.message
    order = message.ordering_key
    if route is None:
        envelopes = _envelopes(message.body)
        theirs = [b"" for raw in envelopes if ownership.of_envelope(None, None, raw, message.headers, order)]
        return _share(theirs, envelopes), []
    items = open_message(Held(message, received_at=time.monotonic()), route)
    theirs = [
        item.key for item in items if ownership.of_envelope(route.provider, item.user_id, item.raw, item.headers, order)
    ]
    return _share(theirs, items), [key for key in theirs if key]


def _share(theirs: Sequence[object], envelopes: Sequence[object]) -> Share:
    if not theirs:
        return "none"
    return "all" if len(theirs) == len(envelopes) else "some"


def _envelopes(body: bytes) -> list[bytes]:
    try:
        return split(body)
    except VerificationError:
        return [body]


@dataclass(slots=True)
class DeadLettersForgotten:
    """What became of the dead letters."""

    erased: int = 0
    """In a dry run: what would be."""
    left: int = 0
    """Theirs, but in a segment that a worker still writes to."""
    unjudged: int = 0
    """Lines, or whole segments, that cannot be looked into: sealed for another key, or a file that cannot be read."""
    shared: int = 0
    """Messages that hold others' proven events too, which cannot be taken apart."""
    lanes: set[tuple[str, str | None]] = field(default_factory=set)
    """Source, and lane or ordering key, of what was erased: lanes that may stand still because of it."""
    problems: list[Problem] = field(default_factory=list)
    """What is damaged and was kept, also where it was searched and is not theirs."""


def forget_dead_letters(
    archive: Archive,
    member: Member,
    ownership: Ownership,
    *,
    unseal: Unseal | None,
    looked_at: Callable[[int], None] = lambda _: None,
) -> DeadLettersForgotten:
    """Erase a member's dead letters. Blocking.

    Raises `NotConfigured` when one is sealed and there is no `unseal`: ask `refuse_sealed` first, so that nothing is
    erased by halves. Raises DeadLetterError when the store cannot be used.
    """
    search = _Search(member, ownership, unseal, looked_at)
    if member.dry_run:
        found, problems = search.survey(archive)
        unjudged = len(search.unjudged) + _whole(problems)
        return DeadLettersForgotten(found, unjudged=unjudged, shared=len(search.shared), problems=problems)
    purged = archive.purge(search.goes, damaged=search.is_in_wreck)
    done = DeadLettersForgotten(purged.removed, lanes=search.lanes, problems=purged.problems)
    if purged.skipped:
        # What is in use can be read all the same, so it is known whether anything of theirs is in it.
        done.left, _ = search.survey(archive)
    done.unjudged = len(search.unjudged) + _whole(purged.problems)
    done.shared = len(search.shared)
    return done


def refuse_sealed(archive: Archive, member: Member) -> None:
    """Raise `NotConfigured` if a dead letter that may be the member's is sealed. Blocking; raises DeadLetterError."""
    with closing(archive.read()) as entries:
        for entry in entries:
            if isinstance(entry, Problem) or not member.of(entry.record.provider):
                continue
            if isinstance(entry.record, SealedDeadLetter):
                raise NotConfigured(_IDENTITY)


def _whole(problems: Iterable[Problem]) -> int:
    """How many segments cannot be read at all."""
    return sum(problem.place == 0 and not problem.half for problem in problems)


class _Search:
    """Looks through dead letters for those of a member."""

    def __init__(
        self, member: Member, ownership: Ownership, unseal: Unseal | None, looked_at: Callable[[int], None]
    ) -> None:
        self.unjudged: set[str] = set()
        """Lines that cannot be opened, each once."""
        self.shared: set[str] = set()
        """Dead letters that are others' as well, each once."""
        self.lanes: set[tuple[str, str | None]] = set()
        """Of what is theirs."""
        self._member = member
        self._ownership = ownership
        self._unseal = unseal
        self._looked_at = looked_at

    def survey(self, archive: Archive) -> tuple[int, list[Problem]]:
        """How many are theirs, and what cannot be read or opened."""
        found = 0
        problems = []
        with closing(archive.read()) as entries:
            for entry in entries:
                if isinstance(entry, Problem):
                    problems.append(entry)
                    continue
                try:
                    found += self.goes(entry.record)
                except DeadLetterError as error:
                    problems.append(Problem(entry.segment, entry.place, str(error)))
        return found, problems

    def goes(self, record: DeadLetter | SealedDeadLetter) -> bool:
        """Whether a dead letter is theirs. Raises DeadLetterError for one that cannot be opened."""
        self._looked_at(1)
        if not self._member.of(record.provider):
            return False
        if isinstance(record, SealedDeadLetter):
            if self._unseal is None:
                raise NotConfigured(_IDENTITY)
            try:
                record = open_sealed(record, self._unseal)
            except DeadLetterError:
                self.unjudged.add(record.id)
                raise
        share = self._ownership.share_of(record)
        if share == "some":
            self.shared.add(record.id)
        elif share == "all" and record.reason not in _NEVER_PARK:
            key = record.attributes.get("lane", record.attributes.get("ordering_key"))
            self.lanes.add((record.source, key if isinstance(key, str) else None))
        return share == "all"

    def is_in_wreck(self, line: bytes) -> bool:
        """Whether they are named in a line that cannot be read. In a sealed one that nobody can see."""
        if _SEALED in line:
            self.unjudged.add(sha256(line).hexdigest())
            return False
        return self._ownership.of_envelope(None, None, line, {})


async def forget_kept(inbox: Inbox, forgetters: Iterable[Forgetter], member: Member) -> dict[str, int]:
    """Erase what handlers keep of a member, by their own functions, in one transaction; returns rows by table.

    In a dry run it is rolled back. Raises `ConsumerError` when a function fails, with its name and where, or
    `DatabaseUnavailable` or `DatabaseConflict`; then nothing is erased.
    """
    functions = list(forgetters)
    for _ in range(_TIMES - 1):
        try:
            return await _forget_once(inbox, functions, member)
        except DatabaseConflict:
            continue  # a deadlock, or a lock that took too long: what was begun is rolled back
    return await _forget_once(inbox, functions, member)


async def _forget_once(inbox: Inbox, functions: Sequence[Forgetter], member: Member) -> dict[str, int]:
    counts: dict[str, int] = {}
    async with inbox.transaction() as unit:
        for one in functions:
            for name, count in _rows(one, await _called(one, member, unit)):
                counts[name] = counts.get(name, 0) + count
        if not member.dry_run:
            await unit.commit([])
    return counts


async def _called(one: Forgetter, member: Member, unit: UnitOfWork) -> object:
    try:
        returned = await one.function(member, unit.session)
        await unit.flush_member()
    except Exception as error:  # noqa: BLE001 - the user's code: any failure of it is one clear line
        trouble = classify(error)
        if trouble is not None:
            raise trouble from None
        what = describe(error)
        place = f" at {what['at'][-1]}" if what["at"] else ""
        raise ConsumerError(f"{one.name} raised {what['type']}{place}: what handlers keep is as it was") from None
    return returned


def _rows(one: Forgetter, returned: object) -> Iterator[tuple[str, int]]:
    counts: Mapping[Any, Any] = returned if isinstance(returned, Mapping) else {one.name: returned}
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool):
            raise ConsumerError(f"{one.name} must return how many rows it erased: a number, or one for each table")
        yield str(name), max(0, count)
