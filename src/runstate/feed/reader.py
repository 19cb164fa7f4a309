"""Reader of a log: the entries since a position, each exactly once, and those of one run in commit order."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import accumulate
from types import SimpleNamespace
from typing import Any, Final, Generic, Self
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.database.driver import fetch
from runstate.errors import CursorExpired, InvalidInput
from runstate.feed.cursor import Cursor, Position
from runstate.feed.installation import identify
from runstate.feed.log import EVERYTHING, Log, LogFilter, T
from runstate.feed.visibility import ONE, Clause, to_microseconds, visibility_of
from runstate.rows import LogCheckpoint, LogFloor

PAGE_SIZE: Final = 100
"""Maximum number of entries in a page."""
MAX_PAGE_TEXT: Final = 2**17
"""Maximum characters of long text in a page, so that a message is far below the megabyte that clients accept."""
CHECKPOINT_DISTANCE: Final = 10_000
"""Number of entries above which a reader goes from checkpoint to checkpoint, because each first page sorts them all."""
NOTHING_SEEN: Final = Position(1)
"""The position before every entry."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Entries of a log, and the cursor after them."""

    entries: list[T]
    cursor: Cursor
    complete: bool = True
    """Whether the page reaches the position that was requested."""


class Part(Enum):
    """The part of the entries between two positions that a statement reads."""

    LIVE = 0
    """All entries up to now, if they fit into a page."""
    FIRST = 1
    """The first page."""
    REST = 2
    """The page after an entry."""


class Reader(Generic[T]):
    """Reads one log of one database, with one statement for each page."""

    def __init__(self, database: Database, log: Log[T], installation: UUID, page_size: int = PAGE_SIZE) -> None:
        self.database = database
        self.log = log
        self.installation = installation
        self.page_size = page_size
        # A literal, because cached plans are made without parameters and must know how few rows are read.
        self.row_limit: sa.ColumnElement[int] = sa.literal_column(str(page_size + 1))
        self.visibility = visibility_of(database, log.table, log.parts)
        self.server_starts = {0}
        """Starts of all servers that wrote to the log, in microseconds since 1970."""
        self.snapshot = ""
        """PostgreSQL: the snapshot of the last read. While it stays the same, nothing is committed."""
        self.head_names = [label.name for label in self._head()]
        self.statements: dict[Part, sa.Select[Any]] = {}
        """Statements without a filter: building one takes longer than executing it."""

    @classmethod
    async def open(cls, database: Database, log: Log[T], page_size: int = PAGE_SIZE) -> Self:
        """Return a reader with the current identity of the database."""
        return cls(database, log, await identify(database), page_size)

    def encode(self, cursor: Cursor) -> str:
        """Return the text that clients store for a cursor."""
        return cursor.encode(self.installation, self.log.name)

    def decode(self, text: str) -> Cursor:
        """Return the cursor from a client's text. Raise InvalidInput if it is not a cursor of this log."""
        return Cursor.decode(text, self.installation, self.log.name)

    async def position(self) -> Position:
        """Return the current end of the log."""
        async with self.database.read() as connection:
            (found,) = await fetch(connection, self.end)
        return self._position(self._head_of(found))

    async def position_with(self, rows: sa.Select[Any]) -> tuple[Position, list[Sequence[Any]]]:
        """Return the current end of the log, and the rows of a statement at the same moment.

        The first column of the statement must not be null.
        """
        found = rows.subquery("found")
        now = sa.select(*self._head()).subquery("now")
        width = len(self.head_names)
        async with self.database.read() as connection:
            read = await fetch(connection, sa.select(now, found).select_from(now.outerjoin(found, sa.true())))
        return self._position(self._head_of(read[0])), [row[width:] for row in read if row[width] is not None]

    @cached_property
    def end(self) -> sa.Select[Any]:
        """The statement that reads the end of the log."""
        return sa.select(*self._head())

    async def tail(self, number: int, filter: LogFilter[T] = EVERYTHING) -> Cursor:
        """Return a cursor that is followed by the last *number* matching entries and everything newer."""
        seq = self.log.table.c.seq
        before = sa.select(seq).where(*filter.clauses()).order_by(seq.desc()).offset(number).limit(ONE)
        async with self.database.read() as connection:
            # One statement, so that the entries and the position are of the same moment.
            (found,) = await fetch(connection, sa.select(*self._head(), before.scalar_subquery()))
        head = self._head_of(found)
        seen = Position.parse(head.floor) if head.floor else NOTHING_SEEN
        # If there are fewer entries, all of them follow.
        return Cursor(seen, self._position(head), found[-1] or 0)

    async def beginning(self) -> Cursor:
        """Return a cursor before all entries that retention has not deleted."""
        async with self.database.read() as connection:
            floor = await connection.scalar(sa.select(LogFloor.position).where(LogFloor.log == self.log.name))
        return Cursor(Position.parse(floor) if floor else NOTHING_SEEN)

    async def limited_page(self, cursor: Cursor, size: int, filter: LogFilter[T] = EVERYTHING) -> Page[T]:
        """Return a page as `page` does, of at most *size* entries."""
        page = await self.page(cursor, filter=filter)
        if len(page.entries) <= size:
            return page
        entries = page.entries[:size]
        return Page(entries, Cursor(cursor.seen, page.cursor.upto or page.cursor.seen, entries[-1].seq), complete=False)

    async def page(self, cursor: Cursor, upto: Position | None = None, filter: LogFilter[T] = EVERYTHING) -> Page[T]:
        """Return the next matching entries after a cursor, up to a later position or to the current end.

        Raises CursorExpired if some of them were deleted, and InvalidInput if the cursor is ahead of the log.
        """
        async with self.database.read() as connection:
            target = cursor.upto or await self._next_stop(connection, cursor.seen, upto)
            part = Part.REST if cursor.upto else Part.FIRST if target else Part.LIVE
            head, rows = await self._rows(connection, part, cursor, target, filter)
        now = self._position(head)
        # The floor is of the same moment as the entries, so a deletion during the read is noticed.
        self._check(cursor, now, head.floor)
        # A full LIVE read has cut each arm off by transaction id, so entries with lower numbers may be missing.
        if part is Part.LIVE and len(rows) > self.page_size and not self.visibility.is_ordered_by_seq:
            return await self.page(cursor, now, filter)
        return self._page([self.log.entry(row) for row in rows], cursor, target or now, upto or now)

    async def _next_stop(self, connection: AsyncConnection, seen: Position, upto: Position | None) -> Position | None:
        # SQLite reads pages in the order of the index, without sorting.
        if upto is None or upto.top - seen.top < CHECKPOINT_DISTANCE or self.visibility.is_ordered_by_seq:
            return upto
        checkpoint = (
            sa.select(LogCheckpoint.position)
            .where(LogCheckpoint.log == self.log.name)
            .where(LogCheckpoint.upper_bound > seen.xmax, LogCheckpoint.upper_bound < upto.xmax)
            .order_by(LogCheckpoint.upper_bound, LogCheckpoint.at)
            .limit(ONE)
        )
        found = await connection.scalar(checkpoint)
        return Position.parse(found) if found else upto

    async def _rows(
        self, connection: AsyncConnection, part: Part, cursor: Cursor, target: Position | None, filter: LogFilter[T]
    ) -> tuple[Any, list[Sequence[Any]]]:
        """Return the head of the log, and rows of entries."""
        values = {"after": cursor.after, **self.visibility.values("seen", cursor.seen)}
        if target:
            values |= self.visibility.values("upto", target)
        replaced = await self._after_crash(connection, cursor.seen)
        found = await fetch(connection, self._statement(part, filter, replaced), values)
        head, width = self._head_of(found[0]), len(self.head_names)
        server_start = self.visibility.server_start(head)
        if server_start in self.server_starts:
            return head, [row[width:] for row in found if row[width + self.log.seq_index] is not None]
        # The statement did not look for entries that this server wrote with ids that a crash freed.
        self.server_starts = {server_start, *await self._read_server_starts(connection)}
        return await self._rows(connection, part, cursor, target, filter)

    async def _after_crash(self, connection: AsyncConnection, seen: Position) -> list[Clause]:
        """Return the conditions for entries whose transaction ids replace ids of commits that a crash lost.

        It is enough to check the newest visible entry of the position: if its commit was not lost, no transaction id
        below it was assigned again.
        """
        newest = self.visibility.newest_visible(seen) if seen.boot < max(self.server_starts) else None
        if newest is None or await connection.scalar(sa.select(sa.exists().where(newest))):
            return []
        return self.visibility.after_crash(seen, sorted(self.server_starts))

    async def _read_server_starts(self, connection: AsyncConnection) -> list[int]:
        boot = self.log.table.c.boot
        found: list[int] = []
        later = sa.select(boot).where(boot.is_not(None))
        # Each step reads one entry of the index; DISTINCT would read all of them.
        while start := await connection.scalar(later.order_by(boot).limit(ONE)):
            found.append(to_microseconds(start))
            later = sa.select(boot).where(boot > start)
        return found

    def _statement(self, part: Part, filter: LogFilter[T], replaced: list[Clause]) -> sa.Select[Any]:
        # Filters of clients differ, so their statements are not kept.
        if replaced or filter is not EVERYTHING:
            return self._built(part, filter, replaced)
        if part not in self.statements:
            self.statements[part] = self._built(part, filter, replaced)
        return self.statements[part]

    def _built(self, part: Part, filter: LogFilter[T], replaced: list[Clause]) -> sa.Select[Any]:
        """Return one statement for the entries, the position and the floor, so that they are of the same moment."""
        rows = self._rest(filter, replaced) if part is Part.REST else self._difference(part, filter, replaced)
        # One more than a page, which tells whether there are further entries.
        entries = rows.limit(self.row_limit).subquery("entries")
        now = sa.select(*self._head()).subquery("now")
        # An outer join, so that a read without entries still returns the position.
        return sa.select(now, entries).select_from(now.outerjoin(entries, sa.true())).order_by(entries.c.seq)

    def _rest(self, filter: LogFilter[T], replaced: list[Clause]) -> sa.Select[Any]:
        """Select in the order of `seq`, because the remaining entries between the positions have similar numbers."""
        seq = self.log.table.c.seq
        after = seq > sa.bindparam("after", type_=sa.BigInteger())
        between = [sa.or_(self.visibility.not_visible("seen"), *replaced), *self.visibility.visible("upto")]
        return sa.select(*self.log.columns).where(after, *between, *filter.clauses()).order_by(seq)

    def _difference(self, part: Part, filter: LogFilter[T], replaced: list[Clause]) -> sa.Select[Any]:
        bounds = [*self.visibility.index_bound("upto"), *self.visibility.visible("upto")] if part is Part.FIRST else []
        new = [*self.visibility.new_since("seen"), *replaced]
        arms = [sa.select(*self.log.columns).where(each, *bounds, *filter.clauses()) for each in new]
        if self.visibility.is_ordered_by_seq:
            return arms[0].order_by(self.log.table.c.seq)
        if part is Part.LIVE:
            # Otherwise each arm would read and sort all new entries.
            arms = [arm.order_by(self.visibility.order).limit(self.row_limit) for arm in arms]
        found = sa.union_all(*arms).subquery("found")
        # An expression has no index: with `seq` itself, PostgreSQL might scan the whole log in index order.
        return sa.select(found).order_by(found.c.seq + 0)

    def _head(self) -> list[sa.Label[Any]]:
        floor = sa.select(LogFloor.position).where(LogFloor.log == self.log.name)
        return [floor.scalar_subquery().label("floor"), *self.visibility.now()]

    def _head_of(self, found: Sequence[Any]) -> Any:
        # The columns of an entry follow.
        return SimpleNamespace(**dict(zip(self.head_names, found, strict=False)))

    def _position(self, head: Any) -> Position:
        self.snapshot = getattr(head, "snapshot", "")
        return self.visibility.position(head, Position.parse(head.floor) if head.floor else None)

    def _check(self, cursor: Cursor, now: Position, floor: str | None) -> None:
        # Such a cursor comes from another database, or from one that was restored from an older backup since.
        if not now.covers(cursor.upto or cursor.seen):
            raise InvalidInput("The cursor is ahead of the log.", ("after",))
        if floor and not cursor.seen.covers(oldest := Position.parse(floor)):
            raise CursorExpired(self.encode(Cursor(oldest)))

    def _page(self, found: list[T], cursor: Cursor, end: Position, upto: Position) -> Page[T]:
        entries = self._fitting(found[: self.page_size])
        if len(entries) < len(found):
            return Page(entries, Cursor(cursor.seen, end, entries[-1].seq), complete=False)
        return Page(found, Cursor(end), complete=end.covers(upto))

    def _fitting(self, entries: list[T]) -> list[T]:
        """Return as many of the first entries as fit into a page by their length, but at least one."""
        lengths = accumulate(map(self.log.length, entries))
        return entries[: max(1, sum(length <= MAX_PAGE_TEXT for length in lengths))]
