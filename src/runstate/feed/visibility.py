"""SQL conditions for "visible at a log position", one implementation per database.

Conditions refer to positions by name, so that statements can be cached; `values` returns the parameters. PostgreSQL
may plan a cached statement without looking at its parameters. Each condition is therefore written so that only one plan
is possible: a few entries in index order, or an equality.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from typing_extensions import override

from runstate.database import Database
from runstate.feed.cursor import Position
from runstate.rows.base import EPOCH, MICROSECOND
from runstate.rows.log import Xid8

ONE: sa.ColumnElement[int] = sa.literal_column("1")

Clause = sa.ColumnElement[bool]


class Visibility(Protocol):
    """The visibility of the entries of a log at positions."""

    order: sa.ColumnElement[Any]
    """The indexed column by which entries become visible."""
    is_ordered_by_seq: bool
    """Whether entries become visible in the order of `seq`."""

    def now(self) -> list[sa.Label[Any]]:
        """Return the columns from which `position` computes the current position."""

    def position(self, now: Any, floor: Position | None) -> Position:
        """Return the position for a row with the columns of `now`; not before the floor."""

    def server_start(self, now: Any) -> int:
        """Return the start of the server in microseconds since 1970; 0 on SQLite, which does not need it."""

    def visible(self, name: str) -> list[Clause]:
        """Return conditions that together select exactly the entries visible at the position."""

    def index_bound(self, name: str) -> list[Clause]:
        """Return further conditions, true for the same entries, that limit the index range."""

    def new_since(self, name: str) -> list[Clause]:
        """Return disjoint conditions, each served by an index, for the entries that were not visible.

        Entries that replaced commits lost in a crash are missing: see `after_crash`.
        """

    def not_visible(self, name: str) -> Clause:
        """Return the condition of `new_since` as a single one, which cannot use an index."""

    def newest_visible(self, position: Position) -> Clause | None:
        """Return the condition for the newest visible entry; no row meets it if the commit was lost. None if empty."""

    def after_crash(self, position: Position, server_starts: Iterable[int]) -> list[Clause]:
        """Return disjoint conditions for entries that were not visible and are below the position's transaction ids.

        Such entries exist if the server lost commits in a crash and assigned their transaction ids again.
        """

    def prunable(self, name: str) -> list[Clause]:
        """Return disjoint conditions for the entries that no reader at or after the position can request."""

    def values(self, name: str, position: Position) -> dict[str, Any]:
        """Return the parameters for a position that conditions refer to by name."""


def visibility_of(database: Database, table: sa.Table, parts: Sequence[sa.Table] = ()) -> Visibility:
    """Return the visibility of a log table in a database; `parts` are the tables of the log if it has several."""
    make = SequenceVisibility if database.is_sqlite else SnapshotVisibility
    return make(table, parts or [table])


class SequenceVisibility(Visibility):
    """Visibility on SQLite: with a single writer, entries become visible in the order of `seq`."""

    is_ordered_by_seq = True

    def __init__(self, table: sa.Table, parts: Sequence[sa.Table]) -> None:
        self.seq = self.order = table.c.seq
        self.parts = parts

    @override
    def now(self) -> list[sa.Label[Any]]:
        tops = [sa.func.coalesce(each, 0) for each in _highest(self.parts, "seq")]
        return [(sa.func.max(*tops) if len(tops) > 1 else tops[0]).label("top")]

    @override
    def position(self, now: Any, floor: Position | None) -> Position:
        # The entries up to the floor are deleted, but positions must not go back.
        top = max(now.top or 0, floor.top if floor else 0)
        return Position(top + 1, top=top)

    @override
    def server_start(self, now: Any) -> int:
        return 0

    @override
    def visible(self, name: str) -> list[Clause]:
        return [self.seq < _integer(name)]

    @override
    def index_bound(self, name: str) -> list[Clause]:
        return []

    @override
    def new_since(self, name: str) -> list[Clause]:
        return [self.not_visible(name)]

    @override
    def not_visible(self, name: str) -> Clause:
        return self.seq >= _integer(name)

    @override
    def newest_visible(self, position: Position) -> Clause | None:
        return None

    @override
    def after_crash(self, position: Position, server_starts: Iterable[int]) -> list[Clause]:
        return []

    @override
    def prunable(self, name: str) -> list[Clause]:
        return self.visible(name)

    @override
    def values(self, name: str, position: Position) -> dict[str, Any]:
        return {name: position.xmax}


class PgSnapshot(sa.types.UserDefinedType[str]):
    """PostgreSQL's `pg_snapshot`."""

    cache_ok = True

    @override
    def get_col_spec(self, **_: Any) -> str:
        return "pg_snapshot"


class SnapshotVisibility(Visibility):
    """Visibility on PostgreSQL: entries become visible when their transaction commits, as a snapshot records."""

    is_ordered_by_seq = False

    def __init__(self, table: sa.Table, parts: Sequence[sa.Table]) -> None:
        self.seq, self.xid, self.boot = table.c.seq, table.c.xid, table.c.boot
        self.parts = parts
        self.order = self.xid

    @override
    def now(self) -> list[sa.Label[Any]]:
        started = sa.func.pg_postmaster_start_time(type_=sa.DateTime(timezone=True))
        return [
            sa.func.greatest(*_highest(self.parts, "seq")).label("top"),
            sa.cast(sa.func.greatest(*_highest(self.parts, "xid")), sa.Text).label("newest"),
            # A standby that was started before the primary can be promoted.
            sa.func.greatest(started, *_highest(self.parts, "boot")).label("boot"),
            started.label("started"),
            sa.cast(sa.func.pg_current_snapshot(), sa.Text).label("snapshot"),
        ]

    @override
    def position(self, now: Any, floor: Position | None) -> Position:
        # The entries up to the floor are deleted, but positions must not go back.
        newest = max(int(now.newest or 0), floor.xmax - 1 if floor else 0)
        top = max(now.top or 0, floor.top if floor else 0)
        return Position.of_snapshot(now.snapshot, newest, to_microseconds(now.boot), top)

    @override
    def server_start(self, now: Any) -> int:
        return to_microseconds(now.started)

    @override
    def visible(self, name: str) -> list[Clause]:
        # After a crash, transaction ids can be assigned again: entries of a later start are new.
        started = sa.bindparam(f"{name}_boot", type_=self.boot.type)
        return [self.seq <= _integer(f"{name}_top"), self.boot <= started, self._is_in_snapshot(name)]

    @override
    def index_bound(self, name: str) -> list[Clause]:
        # True for all visible entries anyway; it gives the planner an end in the index.
        return [self.xid < _xid(name)]

    @override
    def new_since(self, name: str) -> list[Clause]:
        in_progress = sa.cast(_text(f"{name}_xip"), ARRAY(Xid8()))
        return [self.xid >= _xid(name), self.xid == sa.any_(in_progress)]

    @override
    def not_visible(self, name: str) -> Clause:
        return sa.not_(self._is_in_snapshot(name))

    @override
    def newest_visible(self, position: Position) -> Clause | None:
        if position.xmax == 1:
            return None
        newest = sa.cast(sa.literal(str(position.xmax - 1), sa.Text), Xid8())
        return sa.and_(self.xid == newest, self.boot <= from_microseconds(position.boot))

    @override
    def after_crash(self, position: Position, server_starts: Iterable[int]) -> list[Clause]:
        # The values are literals: a plan for other parameters might scan the whole log.
        in_progress = sa.cast(_literal(f"{{{','.join(map(str, position.xip))}}}"), ARRAY(Xid8()))
        below = [self.xid < sa.cast(_literal(str(position.xmax)), Xid8()), self.xid != sa.all_(in_progress)]
        later = [
            sa.cast(_literal(from_microseconds(start).isoformat()), self.boot.type)
            for start in server_starts
            if start > position.boot
        ]
        return [sa.and_(self.boot == start, *below) for start in later]

    @override
    def prunable(self, name: str) -> list[Clause]:
        # Entries of another cluster have no transaction id; all readers count them as read.
        return [self.xid.is_(None), sa.and_(*self.index_bound(name), *self.visible(name))]

    @override
    def values(self, name: str, position: Position) -> dict[str, Any]:
        return {
            f"{name}_top": position.top,
            f"{name}_xmax": str(position.xmax),
            f"{name}_xip": f"{{{','.join(map(str, position.xip))}}}",
            f"{name}_boot": from_microseconds(position.boot),
            f"{name}_snapshot": position.snapshot,
        }

    def _is_in_snapshot(self, name: str) -> sa.ColumnElement[bool]:
        snapshot = sa.cast(_text(f"{name}_snapshot"), PgSnapshot)
        return sa.func.pg_visible_in_snapshot(self.xid, snapshot, type_=sa.Boolean)


def to_microseconds(instant: datetime) -> int:
    """Return an instant as microseconds since 1970."""
    return (instant - EPOCH) // MICROSECOND


def from_microseconds(since_1970: int) -> datetime:
    """Return the instant for a number of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=since_1970)


def _highest(tables: Sequence[sa.Table], name: str) -> list[sa.ColumnElement[Any]]:
    """Return the highest value of a column in each of several tables: one look into an index each."""
    return [_highest_of(table.c[name]) for table in tables]


def _highest_of(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # PostgreSQL sorts NULL first in descending order.
    return sa.select(column).where(column.is_not(None)).order_by(column.desc()).limit(ONE).scalar_subquery()


def _integer(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


def _text(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(name, type_=sa.Text())


def _literal(text: str) -> sa.BindParameter[str]:
    return sa.bindparam(None, text, type_=sa.Text(), literal_execute=True)


def _xid(name: str) -> sa.ColumnElement[Any]:
    return sa.cast(_text(f"{name}_xmax"), Xid8())
