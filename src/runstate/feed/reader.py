"""Reading the log: what came since a position, each entry once, a run's entries in the order of its versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import accumulate
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.database.driver import fetch
from runstate.errors import CursorExpired, InvalidInput
from runstate.feed.cursor import Cursor, Position
from runstate.feed.filter import EVERYTHING, TransitionFilter
from runstate.feed.visibility import ONE, Clause, SequenceVisibility, SnapshotSight, Visibility, log, microseconds
from runstate.rows import Installation, LogCheckpoint, Transition

PAGE = 100
"""Entries that are read, and told, at once."""
LONGEST = 2**17
"""Characters of messages in what is told at once, so that a batch is far below the megabyte that clients take."""
FAR = 10_000
"""Entries between two positions from which on they are read from mark to mark: what comes in between is sorted."""

TOLD = [column for column in log.columns if column.name not in {"xid", "boot"}]
NAMES = [column.name for column in TOLD]
SEQ = NAMES.index("seq")


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of the log, and where it goes on."""

    transitions: list[Transition]
    cursor: Cursor
    complete: bool = True
    """Whether this was all up to the position that was asked for."""


class Part(Enum):
    """Which part of what came between two positions is read."""

    LIVE = 0
    """All of it up to now, if it is not more than a page."""
    FIRST = 1
    """The first page."""
    REST = 2
    """The page after an entry."""


class Reader:
    """Reads the log of one database, a statement a page."""

    def __init__(self, database: Database, installation: UUID, at_once: int = PAGE) -> None:
        self.database = database
        self.installation = installation
        self.at_once = at_once
        self.most: sa.ColumnElement[int] = sa.literal_column(str(at_once + 1))
        self.sight: Visibility = SequenceVisibility() if database.is_sqlite else SnapshotSight()
        self.starts = {0}
        """When servers were started that wrote to the log, in microseconds since 1970."""
        self.snapshot = ""
        """PostgreSQL: the snapshot of the last read; as long as it stays the same, nothing was committed."""
        self.framed = [label.name for label in self._frame()]
        self.kept: dict[Part, sa.Select[Any]] = {}
        """Statements that read everything: to build one takes longer than to execute it."""

    async def position(self) -> Position:
        """Where the log ends now."""
        async with self.database.read() as connection:
            (now,) = await fetch(connection, self.end)
        return self._position(self._now(now))

    @cached_property
    def end(self) -> sa.Select[Any]:
        """Asks where the log ends."""
        return sa.select(*self._frame())

    async def page(self, cursor: Cursor, upto: Position | None = None, wanted: TransitionFilter = EVERYTHING) -> Page:
        """The next entries after a cursor that are wanted, up to a later position or to what is there now.

        CursorExpired: some of them are no longer kept. InvalidInput: the cursor is ahead of the log.
        """
        async with self.database.read() as connection:
            target = cursor.upto or await self._next_stop(connection, cursor.seen, upto)
            part = Part.REST if cursor.upto else Part.FIRST if target else Part.LIVE
            frame, rows = await self._rows(connection, part, cursor, target, wanted)
        now = self._position(frame)
        self._refuse(cursor, now, frame.floor)
        if part is Part.LIVE and len(rows) > self.at_once and not self.sight.in_order:
            return await self.page(cursor, now, wanted)
        return self._page([entry_of(row) for row in rows], cursor, target or now, upto or now)

    async def _next_stop(self, connection: AsyncConnection, seen: Position, upto: Position | None) -> Position | None:
        if upto is None or upto.top - seen.top < FAR or self.sight.in_order:
            return upto
        mark = (
            sa.select(LogCheckpoint.position)
            .where(LogCheckpoint.reaches > seen.xmax, LogCheckpoint.reaches < upto.xmax)
            .order_by(LogCheckpoint.reaches, LogCheckpoint.at)
            .limit(ONE)
        )
        found = await connection.scalar(mark)
        return Position.parse(found) if found else upto

    async def _rows(
        self, connection: AsyncConnection, part: Part, cursor: Cursor, target: Position | None, wanted: TransitionFilter
    ) -> tuple[Any, list[Sequence[Any]]]:
        """What holds of the whole log, and entries."""
        values = {"after": cursor.after, **self.sight.values("seen", cursor.seen)}
        if target:
            values |= self.sight.values("upto", target)
        lost = await self._lost(connection, cursor.seen)
        found = await fetch(connection, self._statement(part, wanted, lost), values)
        frame, width = self._now(found[0]), len(self.framed)
        started = self.sight.started(frame)
        if started in self.starts:
            return frame, [each[width:] for each in found if each[width + SEQ] is not None]
        self.starts = {started, *await self._starts(connection)}
        return await self._rows(connection, part, cursor, target, wanted)

    async def _lost(self, connection: AsyncConnection, seen: Position) -> list[Clause]:
        """Where commits that a position saw were lost since then: what holds for entries that took their place.

        The newest entry that it saw tells: if its commit was not lost, then no transaction id before it was free again.
        """
        newest = self.sight.newest(seen) if seen.boot < max(self.starts) else None
        if newest is None or await connection.scalar(sa.select(sa.exists().where(newest))):
            return []
        return self.sight.again(seen, sorted(self.starts))

    async def _starts(self, connection: AsyncConnection) -> list[int]:
        found: list[int] = []
        later = sa.select(log.c.boot).where(log.c.boot.is_not(None))
        while start := await connection.scalar(later.order_by(log.c.boot).limit(ONE)):
            found.append(microseconds(start))
            later = sa.select(log.c.boot).where(log.c.boot > start)
        return found

    def _statement(self, part: Part, wanted: TransitionFilter, lost: list[Clause]) -> sa.Select[Any]:
        if lost or wanted is not EVERYTHING:
            return self._built(part, wanted, lost)
        if part not in self.kept:
            self.kept[part] = self._built(part, wanted, lost)
        return self.kept[part]

    def _built(self, part: Part, wanted: TransitionFilter, lost: list[Clause]) -> sa.Select[Any]:
        """One statement, so that the entries, the position and the floor are those of the same moment."""
        rows = self._rest(wanted, lost) if part is Part.REST else self._difference(part, wanted, lost)
        news = rows.limit(self.most).subquery("news")
        now = sa.select(*self._frame()).subquery("now")
        return sa.select(now, news).select_from(now.outerjoin(news, sa.true())).order_by(news.c.seq)

    def _rest(self, wanted: TransitionFilter, lost: list[Clause]) -> sa.Select[Any]:
        """In the order of numbers; the entries between the two positions stand close together."""
        after = log.c.seq > sa.bindparam("after", type_=sa.BigInteger())
        between = [sa.or_(self.sight.unseen("seen"), *lost), *self.sight.there("upto")]
        return sa.select(*TOLD).where(after, *between, *wanted.clauses()).order_by(log.c.seq)

    def _difference(self, part: Part, wanted: TransitionFilter, lost: list[Clause]) -> sa.Select[Any]:
        bounds = [*self.sight.before("upto"), *self.sight.there("upto")] if part is Part.FIRST else []
        news = [*self.sight.new("seen"), *lost]
        arms = [sa.select(*TOLD).where(new, *bounds, *wanted.clauses()) for new in news]
        if self.sight.in_order:
            return arms[0].order_by(log.c.seq)
        if part is Part.LIVE:
            arms = [arm.order_by(self.sight.order).limit(self.most) for arm in arms]
        found = sa.union_all(*arms).subquery("found")
        # A sum is in no index: in the order of numbers, the whole log would be gone through.
        return sa.select(found).order_by(found.c.seq + 0)

    def _frame(self) -> list[sa.Label[Any]]:
        return [sa.select(Installation.floor).scalar_subquery().label("floor"), *self.sight.now()]

    def _now(self, found: Sequence[Any]) -> Any:
        return SimpleNamespace(**dict(zip(self.framed, found, strict=False)))

    def _position(self, now: Any) -> Position:
        self.snapshot = getattr(now, "snapshot", "")
        return self.sight.position(now, Position.parse(now.floor) if now.floor else None)

    def _refuse(self, cursor: Cursor, now: Position, floor: str | None) -> None:
        if not now.covers(cursor.upto or cursor.seen):
            raise InvalidInput("The cursor is ahead of the log.", ("after",))
        if floor and not cursor.seen.covers(oldest := Position.parse(floor)):
            raise CursorExpired(Cursor(oldest).encode(self.installation))

    def _page(self, found: list[Transition], cursor: Cursor, end: Position, upto: Position) -> Page:
        some = _fitting(found[: self.at_once])
        if len(some) < len(found):
            return Page(some, Cursor(cursor.seen, end, some[-1].seq), complete=False)
        return Page(found, Cursor(end), complete=end.covers(upto))


def _fitting(entries: list[Transition]) -> list[Transition]:
    """The first entries, as many as are told at once."""
    lengths = accumulate(len(entry.message or "") for entry in entries)
    return entries[: max(1, sum(length <= LONGEST for length in lengths))]


def entry_of(told: Sequence[Any]) -> Transition:
    """The transition that these columns of a row of the log hold."""
    return Transition.of(dict(zip(NAMES, told, strict=True)))
