"""Pages of rows by position, never by number: they stay where they are while rows are written."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from strawberry import UNSET

from runstate.database.dialects import among, as_given
from runstate.errors import BadUserInput, InvalidInput
from runstate.graphql.pagination.counts import count_query
from runstate.graphql.pagination.cursors import fingerprint, position
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import Columns
from runstate.graphql.types.comparisons import Clause, is_set, negated
from runstate.graphql.types.filters import Where
from runstate.graphql.types.orders import Order, OrderBy, beyond, bound, order
from runstate.rows import Row

R = TypeVar("R", bound=Row)
Fetch = Callable[[sa.Executable], Awaitable[Sequence[Any]]]
"""Runs a statement and gives its rows."""

DEFAULT_SIZE: Final = 50
LARGEST_SIZE: Final = 200


@dataclass(frozen=True, kw_only=True)
class PageArguments(Generic[R]):
    """What a client asked of a list, as it came."""

    where: "Where[R] | None" = UNSET
    order_by: "list[OrderBy[R]] | None" = UNSET
    first: int | None = UNSET
    after: str | None = UNSET
    last: int | None = UNSET
    before: str | None = UNSET

    def size(self) -> int:
        """How many rows a page has."""
        if is_set(self.first) and is_set(self.last):
            raise BadUserInput("Give `first` or `last`, not both.")
        size = self.last if is_set(self.last) else self.first
        if not is_set(size):
            return DEFAULT_SIZE
        if not 1 <= (size or 0) <= LARGEST_SIZE:
            raise BadUserInput(f"`first` and `last` are from 1 to {LARGEST_SIZE}.")
        return size or 0


class PageResult(NamedTuple):
    """The rows of a page, and whether the page was full and more rows follow in its direction."""

    rows: RawRows
    cut: bool


class PageQuery(Generic[R]):
    """A page of rows of one kind; with a `parent`, a page for each value of that column."""

    def __init__(
        self, row: type[R], asked: PageArguments[R], columns: Columns, dialect: Dialect, parent: str | None = None
    ) -> None:
        self.row = row
        self.parent = parent
        self.table = row.__table__
        self.keys: Order = order(row, asked.order_by if is_set(asked.order_by) else None)
        self.asked = asked.where if isinstance(asked.where, Where) else None
        self.where: Clause = asked.where.clause(self.table) if isinstance(asked.where, Where) else sa.true()
        self.size = asked.size()
        self.backwards = is_set(asked.last)
        self.after = _position(row, self.keys, "after", asked.after)
        self.before = _position(row, self.keys, "before", asked.before)
        self.columns = sorted(columns | {key.column for key in self.keys} | ({parent} if parent else set()))
        self.none = RawRows(row, self.columns, (), dialect)
        self.built: dict[Any, sa.Select[Any]] = {}
        """Statements that are the same every time."""

    @cached_property
    def mark(self) -> int:
        """What tells cursors of this order from others."""
        return fingerprint(self.row, self.keys)

    async def pages(self, fetch: Fetch, parents: list[Any]) -> list[PageResult]:
        """The page of each parent, in one statement; a single one in two where nulls have to be read apart."""
        if len(parents) == 1 and self.table.c[self.keys[0].column].nullable:
            return [await self._in_parts(fetch, parents)]
        read = await fetch(self._built("page", lambda: self._page(parents)))
        if len(parents) == 1:
            return [self._found(read)]
        held: dict[Any, list[Sequence[Any]]] = {parent: [] for parent in parents}
        for parent, values in zip(self.none.with_values(read).values_of(str(self.parent)), read, strict=True):
            held[parent].append(values)
        return [self._found(held[parent]) for parent in parents]

    async def _in_parts(self, fetch: Fetch, parents: list[Any]) -> PageResult:
        """A page of an order that nulls come last in: an index serves both directions of the other rows."""
        read: list[Sequence[Any]] = []
        for known in self._parts():
            if len(read) <= self.size:
                read += await fetch(self._limited(parents, self.size + 1 - len(read), known=known))
        return self._found(read)

    def _limited(self, parents: list[Any], limit: int, *, known: bool) -> sa.Select[Any]:
        return self._built((known, limit), lambda: self._part(parents, known=known).limit(limit))

    def _built(self, key: Any, make: Callable[[], sa.Select[Any]]) -> sa.Select[Any]:
        """A statement; one without parents is built once."""
        if self.parent is not None:
            return make()
        if key not in self.built:
            self.built[key] = make()
        return self.built[key]

    def _parts(self) -> list[bool]:
        """Which rows a page can have, in order: those with a value in the first key, and those without."""
        behind_the_known = self.after is not None and self.after[0] is None
        before_the_null = self.before is not None and self.before[0] is not None
        parts = [*([] if behind_the_known else [True]), *([] if before_the_null else [False])]
        return parts[::-1] if self.backwards else parts

    def _part(self, parents: list[Any], *, known: bool) -> sa.Select[Any]:
        first, *others = self.keys
        column = self.table.c[first.column]
        conditions = [*self._between(parents), column.is_not(None) if known else column.is_(None)]
        if known and self.after is not None:
            conditions.append(bound(first, self.table, self.after[0], backwards=False))
        places = [key.clause(self.table, backwards=self.backwards) for key in others]
        if known:
            places.insert(0, first.clause(self.table, backwards=self.backwards, apart=True))
        return sa.select(*self._given()).where(*conditions).order_by(*places)

    def _given(self) -> Iterable[sa.ColumnElement[Any]]:
        return (as_given(self.table.c[name]) for name in self.columns)

    async def counts(self, fetch: Fetch, parents: list[Any]) -> list[int]:
        """Return how many rows each parent has on all pages, in one statement."""
        groups = [self.parent] if self.parent else []
        query = count_query(self.row, self.asked, groups)
        scope = [among(query.counted.columns[self.parent], parents)] if self.parent else []
        counted = {(key[0] if key else None): number for *key, number in await fetch(query.counts(groups, *scope))}
        return [counted.get(parent, 0) for parent in parents]

    async def outside(self, fetch: Fetch, parents: list[Any], *, ahead: bool) -> list[bool]:
        """Whether each parent has rows beyond what `before`, or `after`, cuts off, in one statement."""
        values = self.before if ahead else self.after
        if values is None:
            return [False] * len(parents)
        cut_off = negated(beyond(self.keys, self.table, values, backwards=ahead))
        statement = sa.select(sa.literal(1), self._by()).select_from(self.table).where(*self._scope(parents), cut_off)
        statement = statement.limit(1) if len(parents) == 1 else statement.distinct()
        there = {parent for _, parent in await fetch(statement)}
        return [parent in there for parent in parents]

    def _by(self) -> sa.ColumnElement[Any]:
        return self.table.c[self.parent] if self.parent else sa.null().label("parent")

    def _scope(self, parents: list[Any]) -> list[Clause]:
        if self.parent is None:
            return [self.where]
        column = self.table.c[self.parent]
        return [column == parents[0] if len(parents) == 1 else among(column, parents), self.where]

    def _between(self, parents: list[Any]) -> list[Clause]:
        conditions = self._scope(parents)
        if self.after is not None:
            conditions.append(beyond(self.keys, self.table, self.after, backwards=False))
        if self.before is not None:
            conditions.append(beyond(self.keys, self.table, self.before, backwards=True))
        return conditions

    def _page(self, parents: list[Any]) -> sa.Select[Any]:
        conditions = self._between(parents)
        places = [key.clause(self.table, backwards=self.backwards) for key in self.keys]
        if len(parents) == 1:
            return sa.select(*self._given()).where(*conditions).order_by(*places).limit(self.size + 1)
        place = sa.func.row_number().over(partition_by=self._by(), order_by=places).label("place")
        numbered = sa.select(*self._given(), place).where(*conditions).subquery()
        return sa.select(numbered).where(numbered.c.place <= self.size + 1).order_by(numbered.c.place)

    def _found(self, read: Sequence[Sequence[Any]]) -> PageResult:
        page = read[: self.size]
        return PageResult(self.none.with_values(page[::-1] if self.backwards else page), len(read) > self.size)


def _position(row: type[Row], keys: Order, argument: str, text: str | None) -> list[Any] | None:
    if not is_set(text):
        return None
    try:
        return position(row, keys, str(text))
    except InvalidInput as error:
        raise error.prefixed(argument) from error
