"""Reading the log: what came since a position, each entry once, a run's entries in the order of its versions."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from runstate.database import Database
from runstate.errors import CursorExpired, InvalidInput
from runstate.feed.cursor import Cursor, Position
from runstate.feed.wanted import EVERYTHING, Wanted
from runstate.rows import Installation, Transition, TransitionMark
from runstate.rows.base import EPOCH, MICROSECOND
from runstate.rows.log import Xid8

PAGE = 100
"""Entries that are read, and told, at once."""
LONGEST = 2**17
"""Characters of messages in what is told at once, so that a batch is far below the megabyte that clients take."""
FAR = 10_000
"""Entries between two positions from which on they are read from mark to mark: what comes in between is sorted."""

log: sa.Table = Transition.__table__  # type: ignore[assignment]
TOLD = [column for column in log.columns if column.name not in {"xid", "boot"}]
Clauses = Iterable[sa.ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of the log, and where it goes on."""

    transitions: list[Transition]
    cursor: Cursor
    complete: bool = True
    """Whether this was all up to the position that was asked for."""


class Sight(Protocol):
    """What tells, on one kind of database, which entries were there at a position.

    Clauses name the position, so that statements can be kept; `values` are what they are executed with.
    """

    def now(self) -> list[sa.Label[Any]]:
        """What the present position is made of, as columns."""

    def position(self, now: Any, floor: Position | None) -> Position:
        """The position made of these columns."""

    def there(self, name: str) -> Clauses:
        """What holds for the entries that were there."""

    def new(self, name: str, *, restarted: bool) -> sa.ColumnElement[bool]:
        """What holds for the entries that were not there; whether the server was started since then."""

    def old(self, name: str) -> Clauses:
        """What holds for the entries that nobody who has seen the position can still ask for, one or the other."""

    def values(self, name: str, position: Position) -> dict[str, Any]:
        """A position that clauses name."""


class NumberSight(Sight):
    """On SQLite entries appear in the order of their numbers."""

    @override
    def now(self) -> list[sa.Label[Any]]:
        return [sa.select(sa.func.coalesce(sa.func.max(log.c.seq), 0)).scalar_subquery().label("top")]

    @override
    def position(self, now: Any, floor: Position | None) -> Position:
        top = max(now.top, floor.top if floor else 0)
        return Position(top + 1, top=top)

    @override
    def there(self, name: str) -> Clauses:
        return [log.c.seq < _integer(name)]

    @override
    def new(self, name: str, *, restarted: bool) -> sa.ColumnElement[bool]:
        return log.c.seq >= _integer(name)

    @override
    def old(self, name: str) -> Clauses:
        return self.there(name)

    @override
    def values(self, name: str, position: Position) -> dict[str, Any]:
        return {name: position.xmax}


class SnapshotSight(Sight):
    """On PostgreSQL entries appear when their transaction commits: a snapshot tells which had."""

    @override
    def now(self) -> list[sa.Label[Any]]:
        booted = sa.func.pg_postmaster_start_time(type_=sa.DateTime(timezone=True))
        return [
            _highest(log.c.seq).label("top"),
            sa.cast(_highest(log.c.xid), sa.Text).label("newest"),
            sa.func.greatest(booted, _highest(log.c.boot)).label("boot"),
            sa.cast(sa.func.pg_current_snapshot(), sa.Text).label("snapshot"),
        ]

    @override
    def position(self, now: Any, floor: Position | None) -> Position:
        newest = max(int(now.newest or 0), floor.xmax - 1 if floor else 0)
        top = max(now.top or 0, floor.top if floor else 0)
        return Position.of_snapshot(now.snapshot, newest, (now.boot - EPOCH) // MICROSECOND, top)

    @override
    def there(self, name: str) -> Clauses:
        snapshot = sa.cast(_text(f"{name}_snapshot"), PgSnapshot)
        return [
            log.c.seq <= _integer(f"{name}_top"),
            log.c.xid < sa.cast(_text(f"{name}_xmax"), Xid8()),
            log.c.boot <= sa.bindparam(f"{name}_boot", type_=log.c.boot.type),
            sa.func.pg_visible_in_snapshot(log.c.xid, snapshot, type_=sa.Boolean),
        ]

    @override
    def new(self, name: str, *, restarted: bool) -> sa.ColumnElement[bool]:
        begun = log.c.xid >= sa.cast(_text(f"{name}_xmax"), Xid8())
        under_way = log.c.xid == sa.any_(sa.cast(_text(f"{name}_xip"), ARRAY(Xid8())))
        later = log.c.boot > sa.bindparam(f"{name}_boot", type_=log.c.boot.type)
        return sa.or_(begun, under_way, later) if restarted else sa.or_(begun, under_way)

    @override
    def old(self, name: str) -> Clauses:
        return [log.c.xid.is_(None), sa.and_(*self.there(name))]

    @override
    def values(self, name: str, position: Position) -> dict[str, Any]:
        return {
            f"{name}_top": position.top,
            f"{name}_xmax": str(position.xmax),
            f"{name}_xip": f"{{{','.join(map(str, position.xip))}}}",
            f"{name}_boot": EPOCH + timedelta(microseconds=position.boot),
            f"{name}_snapshot": position.snapshot,
        }


class PgSnapshot(sa.types.UserDefinedType[str]):
    """PostgreSQL's snapshot."""

    cache_ok = True

    @override
    def get_col_spec(self, **_: Any) -> str:
        return "pg_snapshot"


def _highest(column: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    return sa.select(column).where(column.is_not(None)).order_by(column.desc()).limit(1).scalar_subquery()


def _integer(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


def _text(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(name, type_=sa.Text())


class Reader:
    """Reads the log of one database, a statement a page."""

    def __init__(self, database: Database, installation: UUID, at_once: int = PAGE) -> None:
        self.database = database
        self.installation = installation
        self.at_once = at_once
        self.sight: Sight = NumberSight() if database.is_sqlite else SnapshotSight()
        self.boot = 0
        self.kept: dict[tuple[bool, bool], sa.Select[Any]] = {}
        """Statements that read everything: to build one takes longer than to execute it."""

    async def position(self) -> Position:
        """Where the log ends now."""
        async with self.database.read() as connection:
            now = (await connection.execute(self.end)).one()
        return self._position(now)

    @cached_property
    def end(self) -> sa.Select[Any]:
        """Asks where the log ends."""
        return sa.select(*self._frame())

    async def page(self, cursor: Cursor, upto: Position | None = None, wanted: Wanted = EVERYTHING) -> Page:
        """The next entries after a cursor that are wanted, up to a later position or to what is there now.

        CursorExpired: some of them are no longer kept. InvalidInput: the cursor is ahead of the log.
        """
        async with self.database.read() as connection:
            target = cursor.upto or await self._next_stop(connection, cursor.seen, upto)
            rows = await self._rows(connection, cursor, target, wanted)
        return self._page(cursor, upto, target, rows)

    async def _next_stop(self, connection: AsyncConnection, seen: Position, upto: Position | None) -> Position | None:
        if upto is None or upto.top - seen.top < FAR or self.database.is_sqlite:
            return upto
        mark = (
            sa.select(TransitionMark.position)
            .where(TransitionMark.reaches > seen.xmax, TransitionMark.reaches < upto.xmax)
            .order_by(TransitionMark.reaches, TransitionMark.at)
            .limit(1)
        )
        found = await connection.scalar(mark)
        return Position.parse(found) if found else upto

    async def _rows(
        self, connection: AsyncConnection, cursor: Cursor, target: Position | None, wanted: Wanted
    ) -> list[Any]:
        restarted = cursor.seen.boot < self.boot
        values = self.sight.values("seen", cursor.seen)
        if target:
            values |= {"after": cursor.after, **self.sight.values("upto", target)}
        statement = self._statement(wanted, bounded=target is not None, restarted=restarted)
        rows = list(await connection.execute(statement, values))
        self.boot = max(self.boot, self._position(rows[0]).boot)
        if restarted or cursor.seen.boot >= self.boot:
            return rows
        return await self._rows(connection, cursor, target, wanted)

    def _statement(self, wanted: Wanted, *, bounded: bool, restarted: bool) -> sa.Select[Any]:
        if wanted is not EVERYTHING:
            return self._built(wanted, bounded=bounded, restarted=restarted)
        if (bounded, restarted) not in self.kept:
            self.kept[bounded, restarted] = self._built(wanted, bounded=bounded, restarted=restarted)
        return self.kept[bounded, restarted]

    def _built(self, wanted: Wanted, *, bounded: bool, restarted: bool) -> sa.Select[Any]:
        """One statement, so that the entries, the position and the floor are those of the same moment."""
        news = sa.select(*TOLD).where(self.sight.new("seen", restarted=restarted), *wanted.clauses())
        if bounded:
            news = news.where(log.c.seq > _integer("after"), *self.sight.there("upto"))
        rows = news.order_by(log.c.seq).limit(self.at_once + 1).subquery("news")
        now = sa.select(*self._frame()).subquery("now")
        return sa.select(now, rows).select_from(now.outerjoin(rows, sa.true())).order_by(rows.c.seq)

    def _frame(self) -> list[sa.Label[Any]]:
        return [sa.select(Installation.floor).scalar_subquery().label("floor"), *self.sight.now()]

    def _position(self, now: Any) -> Position:
        return self.sight.position(now, Position.parse(now.floor) if now.floor else None)

    def _page(self, cursor: Cursor, upto: Position | None, target: Position | None, rows: list[Any]) -> Page:
        now = self._position(rows[0])
        self._refuse(cursor, now, rows[0].floor)
        found = [entry_of(row) for row in rows if row.seq is not None]
        end = target or now
        some = _fitting(found[: self.at_once])
        if len(some) < len(found):
            return Page(some, Cursor(cursor.seen, end, some[-1].seq), complete=False)
        return Page(found, Cursor(end), complete=end.covers(upto or now))

    def _refuse(self, cursor: Cursor, now: Position, floor: str | None) -> None:
        if not now.covers(cursor.upto or cursor.seen):
            raise InvalidInput("The cursor is ahead of the log.", ("after",))
        if floor and not cursor.seen.covers(oldest := Position.parse(floor)):
            raise CursorExpired(Cursor(oldest).encode(self.installation))


def _fitting(entries: list[Transition]) -> list[Transition]:
    """The first entries, as many as are told at once."""
    lengths = accumulate(len(entry.message or "") for entry in entries)
    return entries[: max(1, sum(length <= LONGEST for length in lengths))]


def entry_of(row: sa.Row[Any]) -> Transition:
    """The transition that a row of the log holds."""
    return Transition.of({column.name: getattr(row, column.name) for column in TOLD})
