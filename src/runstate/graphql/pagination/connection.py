"""Connections: lists of rows with pages, cursors and a total count."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from inspect import Parameter, Signature
from typing import Annotated, Any, Final, Generic, TypeVar, cast

import strawberry
from strawberry import UNSET
from strawberry.dataloader import DataLoader

from runstate.graphql.pagination.cursors import cursor
from runstate.graphql.pagination.keyset import DEFAULT_SIZE, LARGEST_SIZE, Fetch, PageArguments, PageQuery, PageResult
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.types.derive import add_field, list_of, optional
from runstate.graphql.types.fields import Root, field, object_type
from runstate.graphql.types.filters import Extra, Extras, HasMany, Where
from runstate.graphql.types.orders import OrderBy
from runstate.rows import Row

R = TypeVar("R")
PATHS: Final = (("nodes",), ("edges", "node"))
"""Paths of fields that lead from a connection to its rows."""


class ParentLoader(Generic[R]):
    """A loader of one value for each parent. Values that are loaded at the same time are read together."""

    def __init__(self, read: Callable[[list[Any]], Awaitable[list[R]]]) -> None:
        self.loader: DataLoader[Any, R] = DataLoader(read)
        self.loaded: dict[Any, R] = {}

    async def of(self, parents: Sequence[Any]) -> list[R]:
        """Return the value of each parent."""
        missing = [parent for parent in parents if parent not in self.loaded]
        # `load_many` gathers, which takes longer for a single value.
        if len(missing) == 1:
            self.loaded[missing[0]] = await self.loader.load(missing[0])
        elif missing:
            self.loaded.update(zip(missing, await self.loader.load_many(missing), strict=True))
        return [self.loaded[parent] for parent in parents]


class Pages:
    """The pages of one field of an operation. A parent is an id; None stands for the parent of all rows."""

    def __init__(self, query: PageQuery[Any], fetch: Fetch, fetch_raw: Fetch) -> None:
        self.query = query
        # Each part is read when it is selected: a total count alone reads no page.
        self.results: ParentLoader[PageResult] = ParentLoader(functools.partial(query.pages, fetch_raw))
        self.counts: ParentLoader[int] = ParentLoader(functools.partial(query.counts, fetch))
        self.behind: ParentLoader[bool] = ParentLoader(functools.partial(query.outside, fetch, ahead=False))
        self.ahead: ParentLoader[bool] = ParentLoader(functools.partial(query.outside, fetch, ahead=True))

    async def rows(self, parents: Sequence[Any]) -> list[RawRows]:
        """Return the rows on the page of each parent."""
        return [result.rows for result in await self.results.of(parents)]

    async def numbers(self, parents: Sequence[Any]) -> list[int]:
        """Return the number of rows of each parent on all pages."""
        return await self.counts.of(parents)

    async def more_after(self, parents: Sequence[Any]) -> list[bool]:
        """Return whether rows follow the page of each parent."""
        return await self._more(parents, self.ahead, further=not self.query.backwards)

    async def more_before(self, parents: Sequence[Any]) -> list[bool]:
        """Return whether rows precede the page of each parent."""
        return await self._more(parents, self.behind, further=self.query.backwards)

    async def _more(self, parents: Sequence[Any], beyond: ParentLoader[bool], *, further: bool) -> list[bool]:
        """Return whether each parent has more rows, in the direction of the page if it is `further`."""
        results = await self.results.of(parents) if further else []
        # Without `further`, the pages are not read.
        full = {parent for parent, result in zip(parents, results, strict=further) if result.has_more}
        others = [parent for parent in parents if parent not in full]
        more = dict(zip(others, await beyond.of(others), strict=True))
        return [more.get(parent, True) for parent in parents]

    async def first_cursors(self, parents: Sequence[Any]) -> list[str | None]:
        """Return the cursor of the first row on the page of each parent; None if the page is empty."""
        return [self._cursor(rows, 0) for rows in await self.rows(parents)]

    async def last_cursors(self, parents: Sequence[Any]) -> list[str | None]:
        """Return the cursor of the last row on the page of each parent; None if the page is empty."""
        return [self._cursor(rows, -1) for rows in await self.rows(parents)]

    def _cursor(self, rows: RawRows, place: int) -> str | None:
        return self.cursors(rows.with_values([rows.values[place]]))[0] if len(rows) else None

    def cursors(self, rows: RawRows) -> list[str]:
        """Return the cursor of each row."""
        columns = [rows.values_of(key.column) for key in self.query.keys]
        return [cursor(self.query.mark, values) for values in zip(*columns, strict=True)]


@object_type
class Edge(Generic[R]):
    """An object on a page."""

    cursor: str = strawberry.field(description="The cursor of the object, for `after` and `before`.")
    node: R = strawberry.field(description="The object.")


@object_type
class PageInfo:
    """The cursors of a page, and whether other pages exist."""

    pages: strawberry.Private[Pages]
    parent: strawberry.Private[Any]

    @field
    async def has_next_page(self) -> bool:
        """True if objects follow this page."""
        (more,) = await self.pages.more_after([self.parent])
        return more

    @field
    async def has_previous_page(self) -> bool:
        """True if objects precede this page."""
        (more,) = await self.pages.more_before([self.parent])
        return more

    @field
    async def start_cursor(self) -> str | None:
        """The cursor of the first object on the page; null if the page is empty."""
        (position,) = await self.pages.first_cursors([self.parent])
        return position

    @field
    async def end_cursor(self) -> str | None:
        """The cursor of the last object on the page; null if the page is empty."""
        (position,) = await self.pages.last_cursors([self.parent])
        return position


@object_type
class Connection(Generic[R]):
    """A page of a list."""

    pages: strawberry.Private[Pages]
    parent: strawberry.Private[Any]

    @field
    async def edges(self) -> list[Edge[R]]:
        """The objects on the page, with their cursors."""
        (rows,) = await self.pages.rows([self.parent])
        positions = self.pages.cursors(rows)
        return [Edge(cursor=position, node=cast("Any", row)) for position, row in zip(positions, rows, strict=True)]

    @field
    async def nodes(self) -> list[R]:
        """The objects on the page."""
        (rows,) = await self.pages.rows([self.parent])
        return cast("list[R]", rows)

    @field
    def page_info(self) -> PageInfo:
        """The cursors of the page, and whether other pages exist."""
        return PageInfo(pages=self.pages, parent=self.parent)

    @field
    async def total_count(self) -> int:
        """The number of objects on all pages; counted only if it is selected."""
        (number,) = await self.pages.numbers([self.parent])
        return number


def arguments(row: type[Row]) -> dict[str, Any]:
    """Return the arguments of a list of rows."""
    where, order_by = Where.__class_getitem__(row), OrderBy.__class_getitem__(row)
    size = f"from 1 to {LARGEST_SIZE}, by default {DEFAULT_SIZE}. Excludes"
    return {
        "where": _argument(where, "A condition that the objects meet; by default all objects."),
        "order_by": _argument(
            list_of(order_by), "The order. Later members order objects that are equal by earlier ones."
        ),
        "first": _argument(int, f"The number of objects from the start: {size} `last`."),
        "after": _argument(str, "Only objects after this cursor."),
        "last": _argument(int, f"The number of objects from the end: {size} `first`."),
        "before": _argument(str, "Only objects before this cursor."),
    }


def _argument(kind: Any, description: str) -> Any:
    return Annotated[optional(kind), strawberry.argument(description=description)]


def _resolver(many: HasMany) -> Callable[..., Connection[Any]]:
    row, key, extras = many

    def search(root: Any, info: strawberry.Info[Any, Any], **given: Any) -> Any:
        page: PageArguments[Any] = PageArguments.of(extras, given)
        return info.context.search(info, row, page, key, None if key is None else root.id)

    answer: Any = Connection
    named = {**arguments(row), **{name: _extra_argument(extra) for name, extra in extras.items()}}
    defaults = {name: extra.default for name, extra in extras.items()}
    fixed = {"root": Root, "info": strawberry.Info[Any, Any]}
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in fixed.items()]
    parameters += [
        Parameter(name, Parameter.KEYWORD_ONLY, default=defaults.get(name, UNSET), annotation=kind)
        for name, kind in named.items()
    ]
    # Strawberry reads the arguments from the signature.
    search.__signature__ = Signature(parameters, return_annotation=answer[row])  # type: ignore[attr-defined]
    search.__annotations__ = {**fixed, **named, "return": answer[row]}
    return search


def _extra_argument(extra: Extra) -> Any:
    kind = optional(extra.kind) if extra.default is UNSET else extra.kind
    return Annotated[kind, strawberry.argument(description=extra.description)]


def rows_of(row: type[Row], description: str, **extras: Extra) -> Any:
    """Return a field with all rows of a table, page by page, with additional arguments."""
    many = HasMany(row, None, Extras(extras))
    return strawberry.field(_resolver(many), description=description, metadata={"many": many})


def searched_by(
    owner: type[Row], name: str, row: type[Row], needs: set[str], where: Callable[..., Where[Any]], doc: str
) -> None:
    """Add rows that meet a condition of an owner and of the list, as a field of the owner."""
    many = HasMany(row, None)
    plain: Any = _resolver(many)

    def search(root: Any, info: strawberry.Info[Any, Any], **given: Any) -> Any:
        page: PageArguments[Any] = PageArguments.of(many.extras, given)
        both = where(root, info, page.where if isinstance(page.where, Where) else None)
        return info.context.search(info, row, replace(page, where=both), of=root.id)

    search.__signature__ = plain.__signature__  # type: ignore[attr-defined]
    search.__annotations__ = plain.__annotations__

    def make() -> Any:
        return strawberry.field(search, description=doc, metadata={"needs": needs, "size": DEFAULT_SIZE})

    add_field(owner, name, make)


def has_many(owner: type[Row], name: str, row: type[Row], key: str, description: str) -> None:
    """Add the rows that refer to an owner by a key: as a field of the owner, and as a member of its filter."""

    def make() -> Any:
        many = HasMany(row, key)
        return strawberry.field(_resolver(many), description=description, metadata={"needs": (), "many": many})

    add_field(owner, name, make)
