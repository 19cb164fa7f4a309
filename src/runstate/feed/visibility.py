"""What tells which entries of the log were there at a position, on each kind of database.

Clauses name the positions, so that statements can be kept; `values` are what they are executed with. PostgreSQL plans a
statement that comes again and again without looking at the values. So each arm leaves it one good plan: a few entries
in the order of an index, or an equality.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from typing_extensions import override

from runstate.feed.cursor import Position
from runstate.rows import Transition
from runstate.rows.base import EPOCH, MICROSECOND
from runstate.rows.log import Xid8

log: sa.Table = Transition.__table__  # type: ignore[assignment]
ONE: sa.ColumnElement[int] = sa.literal_column("1")

Clause = sa.ColumnElement[bool]


class Visibility(Protocol):
    """What tells which entries were there at a position."""

    order: ClassVar[sa.ColumnElement[Any]]
    """Entries are found quickly in this order."""
    in_order: ClassVar[bool]
    """Whether that is the order of their numbers."""

    def now(self) -> list[sa.Label[Any]]:
        """What the present position is made of, as columns."""

    def position(self, now: Any, floor: Position | None) -> Position:
        """The position made of these columns."""

    def started(self, now: Any) -> int:
        """When the server was started, in microseconds since 1970; 0: that does not matter."""

    def there(self, name: str) -> list[Clause]:
        """What holds for the entries that were there: all of these."""

    def before(self, name: str) -> list[Clause]:
        """What holds for them besides and is found by an index."""

    def new(self, name: str) -> list[Clause]:
        """What holds for the entries that were not there, unless commits were lost: one of these, and never two.

        Each is found by an index.
        """

    def unseen(self, name: str) -> Clause:
        """The same for entries that are found otherwise."""

    def newest(self, position: Position) -> Clause | None:
        """What holds for the newest entry that was there, as long as its commit is not lost; none: it cannot be."""

    def again(self, position: Position, starts: Iterable[int]) -> list[Clause]:
        """What holds besides for the entries that were not there, where commits were lost: one of these."""

    def old(self, name: str) -> list[Clause]:
        """What holds for the entries that nobody who has seen the position can still ask for: one of these."""

    def values(self, name: str, position: Position) -> dict[str, Any]:
        """A position that clauses name."""


class SequenceVisibility(Visibility):
    """On SQLite entries appear in the order of their numbers."""

    order = log.c.seq
    in_order = True

    @override
    def now(self) -> list[sa.Label[Any]]:
        return [_highest(log.c.seq).label("top")]

    @override
    def position(self, now: Any, floor: Position | None) -> Position:
        top = max(now.top or 0, floor.top if floor else 0)
        return Position(top + 1, top=top)

    @override
    def started(self, now: Any) -> int:
        return 0

    @override
    def there(self, name: str) -> list[Clause]:
        return [log.c.seq < _integer(name)]

    @override
    def before(self, name: str) -> list[Clause]:
        return []

    @override
    def new(self, name: str) -> list[Clause]:
        return [self.unseen(name)]

    @override
    def unseen(self, name: str) -> Clause:
        return log.c.seq >= _integer(name)

    @override
    def newest(self, position: Position) -> Clause | None:
        return None

    @override
    def again(self, position: Position, starts: Iterable[int]) -> list[Clause]:
        return []

    @override
    def old(self, name: str) -> list[Clause]:
        return self.there(name)

    @override
    def values(self, name: str, position: Position) -> dict[str, Any]:
        return {name: position.xmax}


class PgSnapshot(sa.types.UserDefinedType[str]):
    """PostgreSQL's snapshot."""

    cache_ok = True

    @override
    def get_col_spec(self, **_: Any) -> str:
        return "pg_snapshot"


class SnapshotSight(Visibility):
    """On PostgreSQL entries appear when their transaction commits: a snapshot tells which had."""

    order = log.c.xid
    in_order = False

    @override
    def now(self) -> list[sa.Label[Any]]:
        started = sa.func.pg_postmaster_start_time(type_=sa.DateTime(timezone=True))
        return [
            _highest(log.c.seq).label("top"),
            sa.cast(_highest(log.c.xid), sa.Text).label("newest"),
            sa.func.greatest(started, _highest(log.c.boot)).label("boot"),
            started.label("started"),
            sa.cast(sa.func.pg_current_snapshot(), sa.Text).label("snapshot"),
        ]

    @override
    def position(self, now: Any, floor: Position | None) -> Position:
        newest = max(int(now.newest or 0), floor.xmax - 1 if floor else 0)
        top = max(now.top or 0, floor.top if floor else 0)
        return Position.of_snapshot(now.snapshot, newest, microseconds(now.boot), top)

    @override
    def started(self, now: Any) -> int:
        return microseconds(now.started)

    @override
    def there(self, name: str) -> list[Clause]:
        started = sa.bindparam(f"{name}_boot", type_=log.c.boot.type)
        return [log.c.seq <= _integer(f"{name}_top"), log.c.boot <= started, _visible(name)]

    @override
    def before(self, name: str) -> list[Clause]:
        return [log.c.xid < _xid(name)]

    @override
    def new(self, name: str) -> list[Clause]:
        return [log.c.xid >= _xid(name), log.c.xid == sa.any_(sa.cast(_text(f"{name}_xip"), ARRAY(Xid8())))]

    @override
    def unseen(self, name: str) -> Clause:
        return sa.not_(_visible(name))

    @override
    def newest(self, position: Position) -> Clause | None:
        if position.xmax == 1:
            return None
        newest = sa.cast(sa.literal(str(position.xmax - 1), sa.Text), Xid8())
        return sa.and_(log.c.xid == newest, log.c.boot <= instant(position.boot))

    @override
    def again(self, position: Position, starts: Iterable[int]) -> list[Clause]:
        """The values are written out: planned for others, the statement might go through the whole log."""
        under_way = sa.cast(_said(f"{{{','.join(map(str, position.xip))}}}"), ARRAY(Xid8()))
        below = [log.c.xid < sa.cast(_said(str(position.xmax)), Xid8()), log.c.xid != sa.all_(under_way)]
        later = [
            sa.cast(_said(instant(start).isoformat()), log.c.boot.type) for start in starts if start > position.boot
        ]
        return [sa.and_(log.c.boot == start, *below) for start in later]

    @override
    def old(self, name: str) -> list[Clause]:
        return [log.c.xid.is_(None), sa.and_(*self.before(name), *self.there(name))]

    @override
    def values(self, name: str, position: Position) -> dict[str, Any]:
        return {
            f"{name}_top": position.top,
            f"{name}_xmax": str(position.xmax),
            f"{name}_xip": f"{{{','.join(map(str, position.xip))}}}",
            f"{name}_boot": instant(position.boot),
            f"{name}_snapshot": position.snapshot,
        }


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def instant(since_1970: int) -> datetime:
    """The instant so many microseconds after the start of 1970."""
    return EPOCH + timedelta(microseconds=since_1970)


def _highest(column: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    return sa.select(column).where(column.is_not(None)).order_by(column.desc()).limit(ONE).scalar_subquery()


def _integer(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


def _text(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(name, type_=sa.Text())


def _said(text: str) -> sa.BindParameter[str]:
    return sa.bindparam(None, text, type_=sa.Text(), literal_execute=True)


def _visible(name: str) -> sa.ColumnElement[bool]:
    snapshot = sa.cast(_text(f"{name}_snapshot"), PgSnapshot)
    return sa.func.pg_visible_in_snapshot(log.c.xid, snapshot, type_=sa.Boolean)


def _xid(name: str) -> sa.ColumnElement[Any]:
    return sa.cast(_text(f"{name}_xmax"), Xid8())
