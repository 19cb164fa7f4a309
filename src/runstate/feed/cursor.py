"""Positions in a log, and the cursors that clients store.

A position records which entries of a log were visible at a moment. On SQLite, entries become visible in the order of
their numbers, so a position is a number. On PostgreSQL, they become visible when their transaction commits, in any
order, so a position is a snapshot: the first unassigned transaction id, and the ids below it that were in progress.

PostgreSQL assigns a transaction id again after a crash if nothing that the transaction wrote had reached the disk.
A position therefore ends behind the newest visible entry: its transaction was committed, so no id up to it is assigned
again. Commits that do not wait for the disk (`synchronous_commit = off`) can still be lost. Positions and entries
carry the start time of the server, by which readers detect this.
"""

import binascii
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

import orjson

from runstate.errors import InvalidInput

MAX_LENGTH: Final = 100_000
"""Longest cursor in characters. A cursor with 1,000 open transactions has less than 5,000."""
MAX_NUMBER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """A moment of a log: decides for each entry whether it was visible."""

    xmax: int
    """Exclusive upper bound of what was visible: a transaction id on PostgreSQL, the number of an entry on SQLite."""
    xip: tuple[int, ...] = ()
    """Transaction ids below `xmax` that were in progress, in ascending order."""
    boot: int = 0
    """PostgreSQL: server start in microseconds since 1970. Entries of later servers were not visible."""
    top: int = 0
    """Highest number of a visible entry."""

    def covers(self, other: Self) -> bool:
        """Return whether every entry visible at the other position is visible at this one."""
        if self.boot > other.boot:
            return True
        return self.xmax >= other.xmax and all(xid in other.xip for xid in self.xip if xid < other.xmax)

    @property
    def snapshot(self) -> str:
        """The position in PostgreSQL's text format of snapshots."""
        return f"{min(self.xip, default=self.xmax)}:{self.xmax}:{','.join(map(str, self.xip))}"

    @classmethod
    def of_snapshot(cls, snapshot: str, newest: int, boot: int, top: int) -> Self:
        """Return the position of a PostgreSQL snapshot, ended behind the newest visible transaction id."""
        _, end, in_progress = snapshot.split(":")
        # Transactions of other tables advance the snapshot; cursors should not change while the log does not.
        xmax = max(1, min(int(end), newest + 1))
        xip = sorted(int(xid) for xid in in_progress.split(",") if xid)
        return cls(xmax, tuple(xid for xid in xip if xid < xmax), boot, top)

    def packed(self) -> list[Any]:
        """Return the position as JSON. Each transaction in progress is stored as the short distance to the next."""
        ends = (*self.xip[1:], self.xmax)
        return [self.xmax, [end - xid for xid, end in zip(self.xip, ends, strict=False)], self.boot, self.top]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Self:
        """Return the position from the result of `packed`. Raise ValueError if it is malformed."""
        xmax, distances, boot, top = packed
        xip = []
        xid = xmax
        for distance in reversed(distances):
            xid -= distance
            xip.append(xid)
        numbers = (xmax, boot, top, *distances)
        # Cursors come from clients; `isinstance` would also accept Booleans.
        if not all(type(number) is int and 0 <= number <= MAX_NUMBER for number in numbers) or xmax < 1 or xid < 1:
            raise ValueError(packed)
        return cls(xmax, tuple(reversed(xip)), boot, top)

    def text(self) -> str:
        """Return the position as text for a column."""
        return orjson.dumps(self.packed()).decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position from the text of a column."""
        return cls.unpacked(orjson.loads(text))


@dataclass(frozen=True, slots=True)
class Cursor:
    """The progress of a reader: all of one position, and possibly part of what the next position adds."""

    seen: Position
    """Every entry visible at this position has been read."""
    upto: Position | None = None
    """The reader is reading the entries between the two positions, in the order of their numbers."""
    after: int = 0
    """Number of the last entry read between the two positions."""

    def encode(self, installation: UUID, log: str) -> str:
        """Return the text that clients store. It identifies the database and the log."""
        packed: list[Any] = [installation.hex, log, self.seen.packed()]
        if self.upto:
            packed += [self.upto.packed(), self.after]
        body = orjson.dumps(packed)
        # A checksum, so that a cursor that lost its end is malformed, and not another position.
        return urlsafe_b64encode(_checksum(body) + body).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str, installation: UUID, log: str) -> Self:
        """Return the cursor from a text. Raise InvalidInput if it is malformed or of another log or database."""
        try:
            of_installation, of_log, seen, *rest = _unwrapped(text)
            cursor = cls(Position.unpacked(seen), *_part(*rest))
        except (ValueError, TypeError) as error:
            raise InvalidInput("The cursor is malformed.", ("after",)) from error
        if of_installation != installation.hex:
            raise InvalidInput("The cursor is of another database.", ("after",))
        if of_log != log:
            raise InvalidInput(f"The cursor is of the log `{of_log}`, not of `{log}`.", ("after",))
        return cursor


def _part(upto: list[Any] | None = None, after: int = 0) -> tuple[Position | None, int]:
    if type(after) is not int or not 0 <= after <= MAX_NUMBER:
        raise ValueError(after)
    return (None if upto is None else Position.unpacked(upto)), after


def _unwrapped(text: str) -> Any:
    # Checked first, because decoding a long text costs time.
    if len(text) > MAX_LENGTH:
        raise ValueError(len(text))
    # Too much padding is ignored, so the length need not be computed.
    decoded = urlsafe_b64decode(text.encode("ascii") + b"==")
    digest, body = decoded[:4], decoded[4:]
    # The checksum detects damaged cursors. It is no protection against forged ones.
    if digest != _checksum(body):
        raise binascii.Error("checksum")
    return orjson.loads(body)


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4)
