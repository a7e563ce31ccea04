"""Dead letters read back from queues: those the worker put there, and those that a queue's redrive policy moved.

A queue has no cursor. What is read is received, under a lease that is renewed while it is held, and given back at the
end unless it was handled or purged: each look counts a receive. A FIFO queue gives no more of a group while some of it
are held, so there a look sees the first of each group.

When its message was accepted is known from the worker's note (`queue_notes`), else by the queue's own clock: a standard
SQS queue keeps it when it redrives, a FIFO one begins anew, and then an old message needs `--accept-stale`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from consumer.dead_letters.archive import Chosen, Damaged, Entry, Problem, Purged, Unseal
from consumer.dead_letters.fates import DONE
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.loop_thread import LoopThread
from consumer.dead_letters.queue_lease import LeasedQueue
from consumer.dead_letters.queue_notes import Note
from consumer.dead_letters.queues import DeadLetterQueue, plain_headers
from consumer.dead_letters.record import DeadLetter, broker_attributes, encode, record_id
from consumer.errors import ConsumerError, DeadLetterError, SourceError
from consumer.outcomes import REDRIVEN
from consumer.sources.base import Message

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from consumer.settings import Settings, SourceSettings

__all__ = ["MOST_HELD", "NO_USERS", "QueueArchive", "queue_archive"]

MOST_HELD: Final = 10_000
"""Messages of one queue that are held at once."""

NO_USERS: Final = "--user: a dead-letter queue does not say whom a message is about; `consumer forget` looks into them"
"""Why nobody can choose by user there."""

_T = TypeVar("_T")

_LEASE: Final = 300.0
_POLL: Final = 1.0
"""A poll of SQS that waits asks every server, so that an empty answer means an empty queue."""
_DELETES: Final = 10
_REMEMBERED: Final = 100_000


def queue_archive(settings: Settings, only: str | None = None) -> QueueArchive:
    """The dead-letter queues of all sources, or of one, whatever the store. Raises SettingsError where there is none.

    `only` is a source's name.
    """
    names = list(settings.sources) if only is None else [settings.source(only).name]
    return QueueArchive([DeadLetterQueue(settings.source(name)) for name in names])


@dataclass(slots=True)
class _Shelf:
    """One dead-letter queue, and the sources whose dead letters go there."""

    settings: SourceSettings
    queues: list[DeadLetterQueue]
    leased: LeasedQueue | None = None
    ids: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The broker's ids of what is held, by the dead letter's: a crash of the worker may have sent one twice."""
    done: set[str] = field(default_factory=set)
    """Dead letters that were deleted since it was opened."""

    @property
    def name(self) -> str:
        return self.settings.name.replace(", ", "/")

    @property
    def sources(self) -> set[str]:
        return {queue.source.name for queue in self.queues}


class QueueArchive:
    """Dead-letter queues; an `Archive`.

    `most_held` is how many messages of one queue are held at once, `poll_wait` how many seconds a receive waits for
    messages before the queue counts as empty.
    """

    def __init__(
        self, queues: Sequence[DeadLetterQueue], *, most_held: int = MOST_HELD, poll_wait: float = _POLL
    ) -> None:
        self.more = False
        """Whether the last read or purge ended before its queues did: what is held must be settled first."""
        self._queues = queues
        self._most_held = most_held
        self._poll_wait = poll_wait
        self._loop: LoopThread | None = None
        self._shelves: dict[tuple[Any, ...], _Shelf] = {}

    @property
    def where(self) -> str:
        """The sources whose queues these are."""
        return f"the dead-letter queue of {', '.join(queue.source.name for queue in self._queues)}"

    def read(
        self, chosen: Filter | None = None, *, unseal: Unseal | None = None, hold: bool = False
    ) -> Generator[Entry | Problem, None, None]:
        """Yield the chosen dead letters, about oldest first; see `Archive.read`.

        Of event ids and users nothing is known, so a filter by user raises DeadLetterError. A message that does not
        tell which of several sources it is for is a problem, and so is that there is more than can be held.
        """
        del unseal  # nothing is sealed here
        chosen = chosen or Filter()
        if chosen.users:
            raise DeadLetterError(NO_USERS)
        self.more = False
        left = chosen.limit
        for shelf in self._opened(chosen.sources):
            with closing(self._walk(shelf, hold=hold)) as lines:
                for found, _ in lines:
                    if isinstance(found, Entry):
                        if not chosen.matches(found.record):
                            continue
                        left = None if left is None else left - 1
                    yield found
                    if left == 0:
                        return

    def record_fates(self, segment: str, fates: Mapping[str, str]) -> None:
        """Delete what is done. A queue cannot remember other fates: what has one stays, and has none when next read."""
        done = [identity for identity, fate in fates.items() if fate in DONE]
        for shelf in self._shelves.values():
            if shelf.name == segment and shelf.leased is not None:
                if len(shelf.done) > _REMEMBERED:
                    shelf.done.clear()  # a twin that comes now is a duplicate, which the inbox knows
                shelf.done.update(done)
                self._run(shelf.leased.delete([one for identity in done for one in shelf.ids.pop(identity, ())]))

    def purge(
        self,
        goes: Chosen,
        *,
        handled: bool = False,
        limit: int | None = None,
        damaged: Damaged | None = None,
        begun_before: datetime | None = None,
    ) -> Purged:
        """Delete what is meant; see `Archive.purge`. What was handled is gone already, so with `handled` it is none."""
        del begun_before  # a queue has no segments
        done = Purged()
        self.more = False
        for shelf in () if handled else self._opened(()):
            # Held until what is meant is deleted, and then given back.
            with closing(self._walk(shelf, hold=True, twins=True)) as lines:
                self._purge(shelf, lines, done, goes, limit=limit, damaged=damaged)
            self._give_back(shelf)
        return done

    def _purge(
        self,
        shelf: _Shelf,
        lines: Generator[tuple[Entry | Problem, Message | None], None, None],
        done: Purged,
        goes: Chosen,
        *,
        limit: int | None,
        damaged: Damaged | None,
    ) -> None:
        doomed: list[str] = []
        for found, message in lines:
            if limit is not None and done.removed + len(doomed) >= limit:
                break
            if message is None:
                done.problems += [found] if isinstance(found, Problem) else []
            elif _meant(found, message, done, goes, damaged):
                doomed.append(message.message_id)
            else:
                done.kept += 1
            if len(doomed) >= _DELETES:
                done.removed += self._delete(shelf, doomed)
                doomed = []
        done.removed += self._delete(shelf, doomed)

    def _give_back(self, shelf: _Shelf, ids: Sequence[str] | None = None) -> None:
        if shelf.leased is not None:
            self._run(shelf.leased.release(ids))
        shelf.ids.clear()

    def _delete(self, shelf: _Shelf, ids: Sequence[str]) -> int:
        return 0 if shelf.leased is None else self._run(shelf.leased.delete(ids))

    def close(self) -> None:
        """Give back what is held, and close the connections."""
        if self._loop is None:
            return
        try:
            for shelf in self._shelves.values():
                if shelf.leased is not None:
                    self._run(shelf.leased.close())
                    shelf.leased = None
        finally:
            self._shelves = {}
            self._loop.close()
            self._loop = None

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        self._loop = self._loop or LoopThread("dead-letter queues")
        try:
            return self._loop.run(work)
        except SourceError as error:
            raise DeadLetterError(f"dead-letter queue: {error}") from error

    def _opened(self, names: Sequence[str]) -> list[_Shelf]:
        """The queues of these sources, or of all, open. Several sources may share one."""
        known = {name for shelf in self._shelves.values() for name in shelf.sources}
        for queue in self._queues:
            name = queue.source.name
            if name in known:
                continue
            try:
                found = self._run(queue.settings())
            except ConsumerError:
                if names and name not in names:
                    continue
                raise
            settings = found.model_copy(update={"visibility_timeout": _LEASE, "poll_wait": self._poll_wait})
            self._shelves.setdefault(_place(settings), _Shelf(settings, [])).queues.append(queue)
        shelves = [shelf for shelf in self._shelves.values() if not names or shelf.sources.intersection(names)]
        for shelf in shelves:
            if shelf.leased is None:
                leased = LeasedQueue(shelf.queues[0].make(shelf.settings), lease=_LEASE)
                try:
                    self._run(leased.open())
                except BaseException:
                    self._run(leased.close())
                    raise
                shelf.leased = leased
        return shelves

    def _walk(
        self, shelf: _Shelf, *, hold: bool, twins: bool = False
    ) -> Generator[tuple[Entry | Problem, Message | None], None, None]:
        """Yield what is on a queue, with its message. Unless `hold`, all of it is given back when the walk ends.

        A dead letter that is there twice comes once, unless `twins` are wanted.
        """
        leased = shelf.leased
        if leased is None:
            return
        received: list[str] = []
        empty = False
        try:
            while not empty and leased.holding < self._most_held:
                got = self._run(leased.receive())
                empty, messages = got is None, got or []
                # All before any is looked at: whoever stops in between must give back the rest too.
                received += [message.message_id for message in messages]
                for place, message in enumerate(messages, len(received) - len(messages) + 1):
                    found = _found(shelf, message, place)
                    if isinstance(found, Entry) and found.record.id in shelf.done:
                        self._delete(shelf, [message.message_id])  # its twin was handled
                        continue
                    if isinstance(found, Problem) or _first(shelf, found.record.id, message.message_id) or twins:
                        yield found, message
                    message.body = b""  # thousands may be held
            # A queue counts what it holds back of a group; a standard one that has nothing to give may only count late.
            if leased.holding and (shelf.queues[0].fifo or not empty) and self._run(leased.visible()):
                self.more = True
                text = f"there is more, which comes once some of the {leased.holding} held are handled or purged"
                yield Problem(shelf.name, 0, text, half=True), None
        finally:
            if not hold:
                self._give_back(shelf, received)


def _place(settings: SourceSettings) -> tuple[Any, ...]:
    """What tells one queue from another."""
    string = settings.connection_string
    account = settings.account_url if string is None else string.get_secret_value()
    return (settings.queue_url,) if settings.kind == "sqs" else (account, settings.queue)


def _first(shelf: _Shelf, identity: str, message_id: str) -> bool:
    ids = shelf.ids[identity]
    ids.append(message_id)
    return len(ids) == 1


def _found(shelf: _Shelf, message: Message, place: int) -> Entry | Problem:
    """The dead letter that a message is."""
    for queue in shelf.queues:
        note = queue.note(message)
        if note is not None:
            record = _record(queue, message, note)
            break
    else:
        told = [queue.sent_from_here(message) for queue in shelf.queues]
        possible = [queue for queue, here in zip(shelf.queues, told, strict=True) if here is not False]
        if not possible:
            return Problem(shelf.name, place, "it was moved here from a queue that no source reads")
        if len(possible) > 1:
            names = ", ".join(sorted(shelf.sources))
            text = f"it does not say which of {names} it is for: read it with --queue and the one you mean"
            return Problem(shelf.name, place, text)
        record = _record(possible[0], message, None)
    return Entry(record, shelf.name, place, None, encode(record))


def _record(queue: DeadLetterQueue, message: Message, note: Note | None) -> DeadLetter:
    """The record of a message; without a note its times are the queue's, which nobody can set."""
    source, accepted = queue.source, message.accepted_at
    plain = replace(message, headers=plain_headers(message))
    return DeadLetter(
        id=note.id if note else record_id(source.name, message.message_id),
        provider=source.provider,
        source=source.name,
        reason=note.reason if note else REDRIVEN,
        event_type=note.event_type if note else None,
        attempts=note.attempts if note else 0,
        accepted_at=note.accepted_at if note else accepted,
        first_received_at=note.first_received_at if note else accepted,
        dead_lettered_at=note.dead_lettered_at if note else accepted,
        message=message.body,
        attributes=broker_attributes(plain),
    )


def _meant(found: Entry | Problem, message: Message, done: Purged, goes: Chosen, damaged: Damaged | None) -> bool:
    """Whether a purge deletes it; what cannot be judged stays, and is told of."""
    if isinstance(found, Problem):
        if damaged is not None and damaged(message.body):
            return True
        done.problems.append(found)
        return False
    try:
        return goes(found.record)
    except DeadLetterError as error:
        done.problems.append(Problem(found.segment, found.place, str(error)))
        return False
