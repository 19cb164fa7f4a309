"""Keyset pagination: a page starts at a position in the order, so that concurrent writes do not shift it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from strawberry import UNSET

from runstate.database.dialects import AmongSelected, among, as_given
from runstate.errors import BadUserInput, InvalidInput
from runstate.graphql.pagination.counts import count_query
from runstate.graphql.pagination.cursors import fingerprint, position
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import Columns
from runstate.graphql.pagination.sizes import checked_size
from runstate.graphql.types.conditions import Clause, is_set, negated
from runstate.graphql.types.filters import Extras, Where
from runstate.graphql.types.orders import Order, OrderBy, beyond, bound, is_nullable, order
from runstate.rows import Row
from runstate.rows.base import ArrayParameter, table_with

R = TypeVar("R", bound=Row)
Fetch = Callable[[sa.Executable], Awaitable[Sequence[Any]]]
"""Executes a statement and returns its rows."""
Statement = sa.Select[Any] | sa.CompoundSelect[Any]

DEFAULT_SIZE: Final = 50
LARGEST_SIZE: Final = 200


@dataclass(frozen=True, kw_only=True)
class PageArguments(Generic[R]):
    """Arguments of a list, as a client sent them."""

    where: "Where[R] | None" = UNSET
    order_by: "list[OrderBy[R]] | None" = UNSET
    first: int | None = UNSET
    after: str | None = UNSET
    last: int | None = UNSET
    before: str | None = UNSET
    conditions: Sequence[Callable[[sa.FromClause], Clause]] = ()
    """Conditions of additional arguments."""
    one_per: str | None = None
    """Column of which each value is listed once, with the row that is first in the order."""

    @classmethod
    def of(cls, extras: Extras, given: Mapping[str, Any]) -> Self:
        """Return the arguments that were sent to a list with additional arguments."""
        common = {name: value for name, value in given.items() if name not in extras}
        return cls(**common, conditions=extras.conditions(given), one_per=extras.one_per(given))

    def size(self) -> int:
        """Return the size of a page. Raise LimitExceeded or BadUserInput if it is out of range."""
        if is_set(self.first) and is_set(self.last):
            raise BadUserInput("`first` and `last` exclude each other. Send one of them.")
        name = "last" if is_set(self.last) else "first"
        size = getattr(self, name)
        return checked_size(size, LARGEST_SIZE, name) if is_set(size) else DEFAULT_SIZE


class PageResult(NamedTuple):
    """The rows of a page, and whether more rows follow in its direction."""

    rows: RawRows
    has_more: bool


class PageQuery(Generic[R]):
    """The query for a page of rows; with a `parent`, for a page of each value in that column."""

    def __init__(
        self, row: type[R], arguments: PageArguments[R], columns: Columns, dialect: Dialect, parent: str | None = None
    ) -> None:
        self.row = row
        self.parent = parent
        self.dialect = dialect
        self.keys: Order = order(row, arguments.order_by if is_set(arguments.order_by) else None)
        self.table = table_with(row, [key.column for key in self.keys])
        self.condition = arguments.where if isinstance(arguments.where, Where) else None
        self.extra = arguments.conditions
        where = arguments.where.clause(self.table) if isinstance(arguments.where, Where) else sa.true()
        further = [condition(self.table) for condition in self.extra]
        self.where: Clause = sa.and_(where, *further)
        spread = [each for each in further if isinstance(each, AmongSelected)] if row.__numerous__ else []
        self.spread = spread[0] if spread and dialect.name == "postgresql" else None
        """The condition that a column has one of several values, whose rows are read one value after the other."""
        self.one_per = arguments.one_per
        if self.one_per:
            self.table, self.where = self._first_of_each(self.one_per), sa.true()
        self.size = arguments.size()
        self.backwards = is_set(arguments.last)
        self.after = _position(row, self.keys, "after", arguments.after)
        self.before = _position(row, self.keys, "before", arguments.before)
        # Sorted, so that the statement of a selection is always the same.
        self.columns = sorted(columns | {key.column for key in self.keys} | ({parent} if parent else set()))
        self.none = RawRows(row, self.columns, (), dialect)
        self.statements: dict[Any, Statement] = {}

    @cached_property
    def mark(self) -> int:
        """Fingerprint of the order, which its cursors hold."""
        return fingerprint(self.row, self.keys)

    async def pages(self, fetch: Fetch, parents: list[Any]) -> list[PageResult]:
        """Return the page of each parent. Each page is read in one statement, so that it shows one snapshot."""
        # The page of a single parent ends at LIMIT; those of several parents need numbered rows.
        if len(parents) == 1:
            return [await self._page(fetch, parents)]
        read = await fetch(self._pages(parents))
        # Parents without rows are not in the result.
        by_parent: dict[Any, list[Sequence[Any]]] = {parent: [] for parent in parents}
        for parent, values in zip(self.none.with_values(read).values_of(str(self.parent)), read, strict=True):
            by_parent[parent].append(values)
        return [self._result(by_parent[parent]) for parent in parents]

    async def _page(self, fetch: Fetch, parents: list[Any]) -> PageResult:
        """Return the page of one parent.

        If the first key can be null, rows with and without a value are parts of the order: one index then serves both
        directions. Most pages are full with rows of the first part. If not, both are read again in one statement.
        """
        if not is_nullable(self.table.c[self.keys[0].column]):
            return self._result(await fetch(self._limited(parents, null=None)))
        first, *others = self._null_parts()
        read = await fetch(self._limited(parents, null=first))
        if others and len(read) <= self.size:
            read = await fetch(self._cached("both", lambda: self._both_parts(parents, first=first)))
        return self._result(read)

    def _limited(self, parents: list[Any], *, null: bool | None) -> Statement:
        # One row more than the page has shows whether more rows follow.
        return self._cached(null, lambda: self._gathered(self._part(parents, null=null).limit(self.size + 1)))

    def _gathered(self, part: sa.Select[Any]) -> sa.Select[Any]:
        """Return a part of a page, with one look into the index for each value of a column.

        The planner would read the order until it has found enough rows with one of the values, through all others.
        """
        if self.spread is None:
            return part
        column, values = self.spread.clauses
        given = cast("sa.ScalarSelect[Any]", values).element.subquery("given")
        # LATERAL gives each value its own LIMIT, and so its own look into the index.
        page = part.where(column == given.c[0]).lateral("page")
        places = [key.clause(page, backwards=self.backwards) for key in self.keys]
        return sa.select(page).select_from(given.join(page, sa.true())).order_by(*places).limit(self.size + 1)

    def _both_parts(self, parents: list[Any], *, first: bool) -> Statement:
        # Both databases execute the first part once, since it is used twice.
        part = self._part(parents, null=first).limit(self.size + 1).cte("first_part")
        read = sa.select(sa.func.count()).select_from(part).scalar_subquery()
        rest = self._part(parents, null=not first).limit(self.size + 1 - read).subquery("second_part")
        return sa.union_all(sa.select(part), sa.select(rest))

    def _cached(self, key: Any, make: Callable[[], Statement]) -> Statement:
        """Return a statement. Without parents it is cached, since it is always the same."""
        if self.parent is not None:
            return make()
        if key not in self.statements:
            self.statements[key] = make()
        return self.statements[key]

    def _null_parts(self) -> list[bool]:
        """Return whether the first key is null in each part of a page, in order. A cursor can exclude a part."""
        after_values = self.after is not None and self.after[0] is None
        before_nulls = self.before is not None and self.before[0] is not None
        parts = [*([] if after_values else [False]), *([] if before_nulls else [True])]
        return parts[::-1] if self.backwards else parts

    def _part(self, parents: list[Any], *, null: bool | None) -> sa.Select[Any]:
        """Return the statement for the rows after the cursor, in order: all rows, or a part by the first key."""
        first, *others = self.keys
        conditions = self._between(parents)
        if null is not None:
            column = self.table.c[first.column]
            conditions.append(column.is_(None) if null else column.is_not(None))
        if null is False and self.after is not None:
            # Lets the database begin in the index at the cursor.
            conditions.append(bound(first, self.table, self.after[0], backwards=False))
        # In the part with nulls, the first key does not order rows.
        places = [] if null else [first.clause(self.table, backwards=self.backwards, apart=null is False)]
        places += [key.clause(self.table, backwards=self.backwards) for key in others]
        return sa.select(*self._selected()).where(*conditions).order_by(*places)

    def _first_of_each(self, column: str) -> sa.FromClause:
        """Return the rows that are the first with their value in a column."""
        places = [key.clause(self.table, backwards=False) for key in self.keys]
        place = sa.func.row_number().over(partition_by=self.table.c[column], order_by=places).label("place")
        # The condition is inside: otherwise a value would be missing whose first row does not meet it.
        ranked = sa.select(*self.table.c, place).where(self.where).subquery("ranked")
        columns = [each for each in ranked.c if each.key != "place"]
        return sa.select(*columns).where(ranked.c.place == 1).subquery(self.table.description)

    def _selected(self) -> Iterable[sa.ColumnElement[Any]]:
        return (as_given(self.table.c[name]) for name in self.columns)

    async def counts(self, fetch: Fetch, parents: list[Any]) -> list[int]:
        """Return how many rows each parent has on all pages, in one statement."""
        if self.one_per:
            ((number,),) = await fetch(sa.select(sa.func.count()).select_from(self.table))
            return [number]
        groups = [self.parent] if self.parent else []
        # Tallies do not know the columns of additional conditions.
        query = count_query(self.row, self.condition, groups, tallied=not self.extra)
        scope = [among(query.counted.columns[self.parent], parents)] if self.parent else []
        scope += [condition(query.counted.table) for condition in self.extra]
        counted = {(key[0] if key else None): number for *key, number in await fetch(query.counts(groups, *scope))}
        return [counted.get(parent, 0) for parent in parents]

    async def outside(self, fetch: Fetch, parents: list[Any], *, ahead: bool) -> list[bool]:
        """Return whether each parent has rows ahead of `before`, or behind `after`, in one statement."""
        values = self.before if ahead else self.after
        if values is None:
            return [False] * len(parents)
        # The row at the cursor counts, too.
        cut_off = negated(beyond(self.keys, self.table, values, backwards=ahead))
        statement = sa.select(sa.literal(1), self._by()).select_from(self.table).where(*self._scope(parents), cut_off)
        # One row is enough to know; nothing is counted.
        statement = statement.limit(1) if len(parents) == 1 else statement.distinct()
        found = {parent for _, parent in await fetch(statement)}
        return [parent in found for parent in parents]

    def _by(self) -> sa.ColumnElement[Any]:
        return self.table.c[self.parent] if self.parent else sa.null().label("parent")

    def _scope(self, parents: list[Any] | None) -> list[Clause]:
        if self.parent is None or parents is None:
            return [self.where]
        column = self.table.c[self.parent]
        # With an equality, an index on both columns serves the order, too.
        return [column == parents[0] if len(parents) == 1 else among(column, parents), self.where]

    def _between(self, parents: list[Any] | None) -> list[Clause]:
        conditions = self._scope(parents)
        if self.after is not None:
            conditions.append(beyond(self.keys, self.table, self.after, backwards=False))
        if self.before is not None:
            conditions.append(beyond(self.keys, self.table, self.before, backwards=True))
        return conditions

    def _pages(self, parents: list[Any]) -> Statement:
        """Return the statement for the pages of several parents. The rows of each parent are numbered."""
        places = [key.clause(self.table, backwards=self.backwards) for key in self.keys]
        if self.row.__numerous__ and self.dialect.name == "postgresql":
            return self._laterally(parents, places)
        place = sa.func.row_number().over(partition_by=self._by(), order_by=places).label("place")
        numbered = sa.select(*self._selected(), place).where(*self._between(parents)).subquery()
        return sa.select(numbered).where(numbered.c.place <= self.size + 1).order_by(numbered.c.place)

    def _laterally(self, parents: list[Any], places: list[Any]) -> Statement:
        """Return the same statement with one look into the index for each parent; SQLite has no LATERAL."""
        column = self.table.c[str(self.parent)]
        ids = sa.func.unnest(sa.literal(parents, ArrayParameter(column.type)))
        given = ids.table_valued(sa.column("id", column.type), name="parents").render_derived()
        place = sa.func.row_number().over(order_by=places).label("place")
        rows = sa.select(*self._selected(), place).where(column == given.c.id, *self._between(None))
        page = rows.order_by(*places).limit(self.size + 1).lateral("page")
        return sa.select(page).select_from(given.join(page, sa.true())).order_by(page.c.place)

    def _result(self, read: Sequence[Sequence[Any]]) -> PageResult:
        page = read[: self.size]
        # Backwards, the rows were read from the end.
        return PageResult(self.none.with_values(page[::-1] if self.backwards else page), len(read) > self.size)


def _position(row: type[Row], keys: Order, argument: str, text: str | None) -> list[Any] | None:
    if not is_set(text):
        return None
    try:
        return position(row, keys, str(text))
    except InvalidInput as error:
        raise error.prefixed(argument) from error
