"""Orders: `OrderBy[Row]` has a member for each field whose column is the first one of an index, and a few others."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar, cast

import sqlalchemy as sa

from runstate.graphql.types.conditions import Clause, is_set, member
from runstate.graphql.types.deferred import lazy_type
from runstate.graphql.types.derive import Member, class_of, is_row, members, optional, register_type
from runstate.graphql.types.fields import input_type
from runstate.graphql.types.registry import REGISTRY
from runstate.rows import Row, State

R = TypeVar("R", bound=Row)


class Direction(Enum):
    """Direction of an order. Nulls come last in both directions."""

    ASC = "ASC"
    """Ascending: smallest value first."""
    DESC = "DESC"
    """Descending: largest value first."""


register_type(Direction)


COMPUTED: Final = {"latest_run": "Time at which its latest run was expected to start."}
"""Descriptions of values that are not stored."""
WITHOUT_INDEX: Final = "No index serves this order: combine it with a condition that few objects meet."


class OrderBy(Generic[R]):
    """One key of an order of rows of R; `OrderBy[FlowRun]` is the input `FlowRunOrderBy`."""

    row: ClassVar[type[Row]]

    def order_key(self) -> "Key":
        """Return the column and its direction."""
        ((name, direction),) = ((name, value) for name, value in vars(self).items() if is_set(value))
        return Key(name, descending=direction is Direction.DESC)

    @classmethod
    def __class_getitem__(cls, row: type[R]) -> Any:
        # Generic classes are also subscripted with type variables.
        if not is_row(row):
            return cls
        return lazy_type(f"{row.__name__}OrderBy", lambda: REGISTRY.make(OrderBy, row, lambda: _order_by(row)))


def _order_by(row: type[Row]) -> type:
    known = _leading(row) | set(row.__sorted__)
    fields = {stored.name: _sorted(row, stored) for stored in members(row) if stored.name in known}
    fields |= {name: (optional(Direction), member(COMPUTED[name])) for name in row.__computed__}
    # An order can be by a column that is part of another field.
    columns = cast("sa.Table", row.__table__).c
    fields |= {
        name: (optional(Direction), member(columns[name].doc or "")) for name in row.__sorted__ if name not in fields
    }
    doc = f"Field to sort {row.__name__} objects by. Exactly one member must be set."
    return input_type(one_of=True)(class_of(f"{row.__name__}OrderBy", (OrderBy,), fields, __doc__=doc, row=row))


def _sorted(row: type[Row], stored: Member) -> tuple[Any, Any]:
    slow = stored.name in row.__sorted__ and not issubclass(row, State)
    return optional(Direction), member(f"{stored.doc} {WITHOUT_INDEX}" if slow else stored.doc or "")


def _leading(row: type[Row]) -> set[str]:
    """Return the first columns of the indexes and unique keys of a table."""
    table = cast("sa.Table", row.__table__)
    unique = [each for each in table.constraints if isinstance(each, sa.UniqueConstraint | sa.PrimaryKeyConstraint)]
    # An index that only one database has would leave the order slow on the other one.
    sorting = [each for each in table.indexes if "only" not in each.info]
    return {next(iter(each.columns)).key for each in (*unique, *sorting) if each.columns}


def is_nullable(column: sa.ColumnElement[Any]) -> bool:
    """Return whether a column can be null; a computed value can."""
    return bool(getattr(column, "nullable", True))


class Key(NamedTuple):
    """One column of an order."""

    column: str
    descending: bool = False

    def clause(self, table: sa.FromClause, *, backwards: bool, apart: bool = False) -> sa.ColumnElement[Any]:
        """Return the SQL to sort by the column. Backwards, nulls come first, unless they are read apart."""
        column = table.c[self.column]
        ordered = column.desc() if self.descending is not backwards else column.asc()
        if apart or not is_nullable(column):
            return ordered
        # By default nulls come first on SQLite, and last on PostgreSQL.
        return ordered.nulls_first() if backwards else ordered.nulls_last()

    def equals(self, table: sa.FromClause, value: Any) -> Clause:
        """Return the condition that a row has this value."""
        column = table.c[self.column]
        return column.is_(None) if value is None else column == sa.literal(value, column.type)

    def beyond(self, table: sa.FromClause, value: Any, *, backwards: bool) -> Clause:
        """Return the condition that a row comes after the value; backwards, before it."""
        column = table.c[self.column]
        if value is None:
            return column.is_not(None) if backwards else sa.false()
        # SQLAlchemy does not compare a column with a plain True or False by < and >.
        literal = sa.literal(value, column.type)
        further = column < literal if self.descending is not backwards else column > literal
        # Nulls come last, so they are beyond every value.
        return sa.or_(further, column.is_(None)) if is_nullable(column) and not backwards else further


Order = tuple[Key, ...]


def order(row: type[Row], input_type: Sequence[OrderBy[Any]] | None) -> Order:
    """Return the keys to sort by, ending in the id; the row's own order by default."""
    if not input_type:
        return _default_order(row)
    keys: dict[str, Key] = {}
    for key in (by.order_key() for by in input_type):
        # A column that is named again would not change the order.
        keys.setdefault(key.column, key)
    # The id makes positions unique.
    keys.setdefault("id", Key("id", descending=input_type[-1].order_key().descending))
    return tuple(keys.values())


def _default_order(row: type[Row]) -> Order:
    keys = tuple(Key(name.removeprefix("-"), descending=name.startswith("-")) for name in row.__order__)
    return keys if keys[-1].column == "id" else (*keys, Key("id"))


def beyond(keys: Order, table: sa.FromClause, values: Sequence[Any], *, backwards: bool) -> Clause:
    """Return the condition that a row comes after a position in an order; backwards, before it. NULL is false."""
    parts = []
    same: list[Clause] = []
    for key, value in zip(keys, values, strict=True):
        parts.append(sa.and_(*same, key.beyond(table, value, backwards=backwards)))
        same.append(key.equals(table, value))
    # The bound lets the database use an index, which the OR alone does not.
    return sa.and_(_bound(keys[0], table, values[0], backwards=backwards), sa.or_(*parts))


def _bound(key: Key, table: sa.FromClause, value: Any, *, backwards: bool) -> Clause:
    # Rows with null are beyond the value, but do not meet the bound.
    if is_nullable(table.c[key.column]) and not backwards:
        return sa.true()
    return bound(key, table, value, backwards=backwards)


def bound(key: Key, table: sa.FromClause, value: Any, *, backwards: bool) -> Clause:
    """Return the condition on a first column without nulls that all rows beyond meet; an index serves it."""
    if value is None:
        return sa.true()
    column: sa.ColumnElement[Any] = table.c[key.column]
    literal = sa.literal(value, column.type)
    further: Clause = column <= literal if key.descending is not backwards else column >= literal
    return further
