"""Where a reader of the log is: positions, and the cursors that clients keep.

A position says which entries of the log were there at a moment. On SQLite entries appear in the order of their numbers,
so it is a number. On PostgreSQL they appear when their transaction commits, in whatever order, so it is a snapshot: the
first transaction id that it knows nothing of, and those before it that were under way.

Transaction ids are handed out again after a crash, unless something that the transaction wrote had reached the disk.
So a snapshot is cut behind the newest entry that it sees: that one was committed, so no id up to it will ever be handed
out again, and above it the position claims nothing. What is lost in spite of that, where commits do not wait for the
disk, is made good by the start of the server, which positions and entries carry.
"""

import binascii
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

import orjson

from runstate.errors import InvalidInput

LONGEST = 100_000
"""Characters of a cursor; one for a thousand open transactions has less than a twentieth of that."""
LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """A moment of the log: which entries were there."""

    xmax: int
    """Nothing from here on was there: transaction ids on PostgreSQL, entries' own numbers on SQLite."""
    xip: tuple[int, ...] = ()
    """Transaction ids before that which were still under way."""
    boot: int = 0
    """PostgreSQL: start of the server in microseconds since 1970; what a later server wrote was not there either."""
    top: int = 0
    """The highest number of an entry that was there."""

    def covers(self, other: Self) -> bool:
        """Whether all that was there at the other moment was there at this one."""
        if self.boot > other.boot:
            return True
        return self.xmax >= other.xmax and all(xid in other.xip for xid in self.xip if xid < other.xmax)

    @property
    def snapshot(self) -> str:
        """The position as PostgreSQL writes a snapshot."""
        return f"{min(self.xip, default=self.xmax)}:{self.xmax}:{','.join(map(str, self.xip))}"

    @classmethod
    def of_snapshot(cls, snapshot: str, newest: int, boot: int, top: int) -> Self:
        """What PostgreSQL calls a snapshot, cut behind the newest entry that it sees."""
        _, end, under_way = snapshot.split(":")
        xmax = max(1, min(int(end), newest + 1))
        xip = sorted(int(xid) for xid in under_way.split(",") if xid)
        return cls(xmax, tuple(xid for xid in xip if xid < xmax), boot, top)

    def packed(self) -> list[Any]:
        """The position as JSON; of the transactions under way the distance to the next one, which is short."""
        ends = (*self.xip[1:], self.xmax)
        return [self.xmax, [end - xid for xid, end in zip(self.xip, ends, strict=False)], self.boot, self.top]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Self:
        """What was packed; ValueError: it was not."""
        xmax, distances, boot, top = packed
        xip = []
        xid = xmax
        for distance in reversed(distances):
            xid -= distance
            xip.append(xid)
        numbers = (xmax, boot, top, *distances)
        if not all(type(number) is int and 0 <= number <= LARGEST for number in numbers) or xmax < 1 or xid < 1:
            raise ValueError(packed)
        return cls(xmax, tuple(reversed(xip)), boot, top)

    def text(self) -> str:
        """The position as it is kept in tables."""
        return orjson.dumps(self.packed()).decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """What was kept in a table."""
        return cls.unpacked(orjson.loads(text))


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come: all of one position, or the part up to an entry of what the next one adds."""

    seen: Position
    """Everything that was there at this moment has been read."""
    upto: Position | None = None
    """What is being read: the entries that came between the two positions, in the order of their numbers."""
    after: int = 0
    """Number of the entry that was read last between the two positions."""

    def encode(self, installation: UUID) -> str:
        """The cursor as clients keep it."""
        packed: list[Any] = [installation.hex, self.seen.packed()]
        if self.upto:
            packed += [self.upto.packed(), self.after]
        body = orjson.dumps(packed)
        return urlsafe_b64encode(_sum(body) + body).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str, installation: UUID) -> Self:
        """The cursor that a client kept; InvalidInput: it is none, or of another database."""
        try:
            whose, seen, *rest = _checked(text)
            cursor = cls(Position.unpacked(seen), *_part(*rest))
        except (ValueError, TypeError) as error:
            raise InvalidInput("This is not a cursor.", ("after",)) from error
        if whose != installation.hex:
            raise InvalidInput("The cursor is one of another database.", ("after",))
        return cursor


def _part(upto: list[Any] | None = None, after: int = 0) -> tuple[Position | None, int]:
    if type(after) is not int or not 0 <= after <= LARGEST:
        raise ValueError(after)
    return (None if upto is None else Position.unpacked(upto)), after


def _checked(text: str) -> Any:
    if len(text) > LONGEST:
        raise ValueError(len(text))
    decoded = urlsafe_b64decode(text.encode("ascii") + b"==")
    digest, body = decoded[:4], decoded[4:]
    if digest != _sum(body):
        raise binascii.Error("checksum")
    return orjson.loads(body)


def _sum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4)
