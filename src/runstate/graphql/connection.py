"""Lists of rows: a page with cursors, and how many there are on all pages."""

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Generic, TypeVar

import strawberry
from strawberry import UNSET
from strawberry.dataloader import DataLoader

from runstate.graphql.cursors import cursor
from runstate.graphql.derive import add_field, later, list_of, optional
from runstate.graphql.fields import Root, answered, field
from runstate.graphql.filters import Many, Where
from runstate.graphql.orders import OrderBy
from runstate.graphql.search import DEFAULT_SIZE, LARGEST_SIZE, Asked, Fetch, Found, Search
from runstate.rows import Row

R = TypeVar("R")
PATHS: Final = (("nodes",), ("edges", "node"))
"""Where the rows are in what is selected of a connection."""


class Pages:
    """The pages of one field of a request: what all parents ask for at the same time is read at once."""

    def __init__(self, search: Search[Any], fetch: Fetch) -> None:
        self.search = search
        self.found: DataLoader[Any, Found] = DataLoader(functools.partial(search.pages, fetch))
        self.counts: DataLoader[Any, int] = DataLoader(functools.partial(search.counts, fetch))
        self.behind: DataLoader[Any, bool] = DataLoader(functools.partial(search.outside, fetch, ahead=False))
        self.ahead: DataLoader[Any, bool] = DataLoader(functools.partial(search.outside, fetch, ahead=True))

    async def connection(self, parent: Any) -> "Connection[Any]":
        """The page of a parent; of all rows: None."""
        found = await self.found.load(parent)
        return Connection(pages=self, parent=parent, rows=found.rows, cut=found.cut)

    def cursor(self, row: Row) -> str:
        """The position of a row."""
        return cursor(self.search.row, self.search.keys, row)


@answered
class Edge(Generic[R]):
    """An object on a page."""

    cursor: str = strawberry.field(description="Its position, for `after` and `before`.")
    node: R = strawberry.field(description="The object.")


@answered
class PageInfo:
    """Where a page lies."""

    of: strawberry.Private["Connection[Any]"]

    @field
    async def has_next_page(self) -> bool:
        """Whether more follow after this page."""
        search, parent = self.of.pages.search, self.of.parent
        return (self.of.cut and not search.backwards) or await self.of.pages.ahead.load(parent)

    @field
    async def has_previous_page(self) -> bool:
        """Whether there are some before this page."""
        search, parent = self.of.pages.search, self.of.parent
        return (self.of.cut and search.backwards) or await self.of.pages.behind.load(parent)

    @field
    def start_cursor(self) -> str | None:
        """The position of the first object on the page; null: it is empty."""
        return self.of.pages.cursor(self.of.rows[0]) if self.of.rows else None

    @field
    def end_cursor(self) -> str | None:
        """The position of the last object on the page; null: it is empty."""
        return self.of.pages.cursor(self.of.rows[-1]) if self.of.rows else None


@answered
class Connection(Generic[R]):
    """A page of a list."""

    pages: strawberry.Private[Pages]
    parent: strawberry.Private[Any]
    rows: strawberry.Private[list[Any]]
    cut: strawberry.Private[bool]

    @field
    def edges(self) -> list[Edge[R]]:
        """The objects on the page, with their positions."""
        return [Edge(cursor=self.pages.cursor(row), node=row) for row in self.rows]

    @field
    def nodes(self) -> list[R]:
        """The objects on the page."""
        return self.rows

    @field
    def page_info(self) -> PageInfo:
        """Where the page lies."""
        return PageInfo(of=self)

    @field
    async def total_count(self) -> int:
        """How many there are on all pages; counted only when asked for."""
        return await self.pages.counts.load(self.parent)


def arguments(row: type[Row]) -> dict[str, Any]:
    """The arguments of a list of rows."""
    where = later(f"{row.__name__}Where", lambda: Where.__class_getitem__(row))
    order_by: Any = later(f"{row.__name__}OrderBy", lambda: OrderBy.__class_getitem__(row))
    size = f"{DEFAULT_SIZE} unless given, from 1 to {LARGEST_SIZE}; not together with"
    return {
        "where": _argument(where, "Which ones; all unless given."),
        "order_by": _argument(list_of(order_by), "In which order; later ones decide where earlier ones do not."),
        "first": _argument(int, f"How many from the start: {size} `last`."),
        "after": _argument(str, "Only what follows this cursor."),
        "last": _argument(int, f"How many from the end: {size} `first`."),
        "before": _argument(str, "Only what stands before this cursor."),
    }


def _argument(kind: Any, description: str) -> Any:
    return Annotated[optional(kind), strawberry.argument(description=description)]


Searching = Callable[..., Awaitable[Connection[Any]]]


def _searching(row: type[Row], key: str | None) -> Searching:
    async def search(
        root: Any,
        info: strawberry.Info[Any, Any],
        where: Any = UNSET,
        order_by: Any = UNSET,
        first: int | None = UNSET,
        after: str | None = UNSET,
        last: int | None = UNSET,
        before: str | None = UNSET,
    ) -> Any:
        asked: Asked[Any] = Asked(where=where, order_by=order_by, first=first, after=after, last=last, before=before)
        return await info.context.search(info, row, asked, key, None if key is None else root.id)

    answer: Any = Connection
    search.__annotations__ |= {"root": Root, **arguments(row), "return": answer[row]}
    return search


def rows_of(row: type[Row], description: str) -> Any:
    """A field with all the rows of a kind, page by page."""
    return strawberry.field(_searching(row, None), description=description)


def has_many(owner: type[Row], name: str, row: type[Row], key: str, description: str) -> None:
    """Give an owner the rows that point at it with a key: as a field, and as a member of its filter."""

    def make() -> Any:
        metadata = {"needs": (), "many": Many(row, key)}
        return strawberry.field(_searching(row, key), description=description, metadata=metadata)

    add_field(owner, name, make)
