"""Bounds on the bytes that are read for one operation, and on those that a process holds for all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from threading import RLock
from typing import Any, Final

from runstate.errors import LimitExceeded, Overloaded

ANSWER_BYTES: Final = 2**24
"""Default of the largest number of bytes of an answer, and of those that are read for it."""
ANSWERS_AT_ONCE: Final = 2
"""Number of answers of the largest size that a process holds at once."""
SMALL_BYTES: Final = 2**18
"""Bytes that need no room while they are read for an answer."""
SMALL_ANSWER_BYTES: Final = 2**16
"""Bytes of an answer that need no room: as many as a connection buffers. Thousands of clients can leave theirs."""
OVERHEAD_BYTES: Final = "".__sizeof__()
"""Bytes of an empty text."""
VALUE_BYTES: Final = 16
"""Bytes that each value counts, besides those of its text."""

Rows = Sequence[Sequence[Any]]


def texts_at(places: Sequence[int]) -> Callable[[Rows], Iterable[Any]]:
    """Return a function that returns the texts in some columns of rows."""
    if not places:
        return lambda _: ()
    get = itemgetter(*places)
    if len(places) == 1:
        return lambda rows: map(get, rows)
    return lambda rows: chain.from_iterable(map(get, rows))


def size_in_memory(texts: Iterable[Any]) -> int:
    """Return the bytes of texts in memory: one odd character makes each of the others take up to four bytes."""
    known = [*filter(None, texts)]
    try:
        return sum(map(str.__sizeof__, known)) - OVERHEAD_BYTES * len(known)
    except TypeError:  # SQLite computes numbers from some JSON
        return size_in_memory(map(str, known))


def characters(texts: Iterable[Any]) -> int:
    """Return the number of characters of texts. A joined text is the fastest way to count them."""
    return len("".join(filter(None, texts)))


class Room:
    """The room of a process for large answers: for what is read for them, and for what clients have not taken yet.

    Threads may use it.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.taken = 0
        self.lock = RLock()

    def take(self, number: int) -> None:
        """Take room for so many bytes. Raise Overloaded if there is not enough."""
        with self.lock:
            if self.taken + number > self.allowed:
                raise Overloaded("Too many large answers are under way; try again.")
            self.taken += number

    def release(self, number: int) -> None:
        """Release room that was taken."""
        with self.lock:
            self.taken -= number

    @contextmanager
    def holding(self, number: int, small: int = SMALL_ANSWER_BYTES) -> Iterator[None]:
        """Hold room for so many bytes, unless they are few. Raise Overloaded if there is not enough."""
        number = number if number > small else 0
        self.take(number)
        try:
            yield
        finally:
            self.release(number)


class ReadBudget:
    """The bytes that one operation may still read, on all of its connections."""

    def __init__(self, allowed: int, room: Room) -> None:
        self.allowed = self.left = allowed
        self.room = room
        self.held = 0
        """Bytes of room that were taken."""

    def spend(self, number: int) -> None:
        """Count bytes that were read. Raise LimitExceeded if they are too many, Overloaded if there is no room."""
        with self.room.lock:
            self.left -= number
            if self.left < 0:
                raise LimitExceeded("bytes", self.allowed)
            more = self.allowed - self.left - self.held
            if more > SMALL_BYTES:
                self.room.take(more)
                self.held += more

    def spend_rows(self, rows: Rows, texts: Callable[[Rows], Iterable[Any]]) -> None:
        """Count rows; `texts` returns their texts."""
        self.spend(size_in_memory(texts(rows)) + VALUE_BYTES * len(rows) * len(rows[0]))

    def release(self) -> None:
        """Release the room: what was read is not needed any more."""
        self.room.release(self.held)
        self.held = 0
