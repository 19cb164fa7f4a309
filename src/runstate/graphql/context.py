"""What resolvers share while one operation is answered."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import sqlalchemy as sa
import strawberry
from graphql import FieldNode
from sqlalchemy.engine import Dialect
from strawberry.dataloader import DataLoader

from runstate.core.access.credentials import UNRESTRICTED, Principal
from runstate.core.access.csrf import CsrfTokens
from runstate.core.context import CommandContext
from runstate.database import Database
from runstate.database.dialects import among, as_given
from runstate.database.driver import fetch, fetch_as_given
from runstate.graphql.pagination.connection import PATHS, Connection, Pages
from runstate.graphql.pagination.keyset import PageArguments, PageQuery
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import Columns, columns, every
from runstate.graphql.types.comparisons import as_uuid
from runstate.graphql.types.derive import implementing
from runstate.graphql.types.filters import HasMany
from runstate.rows import Row

R = TypeVar("R", bound=Row)
T = TypeVar("T")
Clock = Callable[[], datetime]
Admit = Callable[[dict[str, Any]], Awaitable[Principal]]
"""Finds out who opens a socket, from the first message on it."""

CONNECTIONS_AT_ONCE: Final = 4
"""How many connections to the database one operation uses."""


class Context:
    """The database, the time and the loaders of one operation. Everything it reads, it reads once."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        request_id: str = "",
        principal: Principal = UNRESTRICTED,
        batcher: Any = None,
        feed: Any = None,
        csrf: CsrfTokens | None = None,
        admit: Admit | None = None,
    ) -> None:
        self.database = database
        self.clock = clock
        self.request_id = request_id
        self.principal = principal
        self.batcher = batcher
        self.feed = feed
        self.csrf = csrf
        self.admit = admit
        self.connection_params: dict[str, Any] = {}
        """What a socket was opened with."""
        self.made: dict[Hashable, Any] = {}
        self.statements = 0
        """How many statements were read with; those of a batch that others wrote in too do not count."""
        self.kind = "unknown"
        """The type of the operation, once the document is read."""
        self.cost: float | None = None
        """What the operation costs, once that is reckoned."""

    def fresh(self) -> "Context":
        """The same, with nothing read yet: for each operation on a socket."""
        return Context(
            self.database,
            self.clock,
            request_id=self.request_id,
            principal=self.principal,
            batcher=self.batcher,
            feed=self.feed,
            csrf=self.csrf,
        )

    def forget(self) -> None:
        """Read everything again from now on: before each event of a subscription, and when all is answered."""
        self.made.clear()
        vars(self).pop("now", None)

    @property
    def commands(self) -> CommandContext:
        """The environment of commands."""
        return cast("CommandContext", self.batcher.context)

    @property
    def actor(self) -> str:
        """Who asks."""
        return self.principal.name

    @cached_property
    def now(self) -> datetime:
        """The time at which the operation is answered."""
        return self.clock()

    @cached_property
    def slots(self) -> asyncio.Semaphore:
        """Holds back what would use more connections."""
        return asyncio.Semaphore(CONNECTIONS_AT_ONCE)

    async def fetch(self, statement: sa.Executable) -> Sequence[Any]:
        """The rows that a statement gives."""
        self.statements += 1
        async with self.slots, self.database.read() as connection:
            return await fetch(connection, statement)

    async def given(self, statement: sa.Executable) -> Sequence[Sequence[Any]]:
        """The rows that a statement of columns `as_given` gives, just as the driver gives them."""
        self.statements += 1
        async with self.slots, self.database.read() as connection:
            return await fetch_as_given(connection, statement)

    async def load(self, info: "Info", row: type[R], key: UUID | str | None) -> R | None:
        """The row with an id, with the columns that are selected of it; nothing has a malformed id."""
        return await self.row(row, key, self._columns(info, row, ((),)))

    async def row(self, row: type[R], key: UUID | str | None, asked: Columns | None = None) -> R | None:
        """The row with an id, with these columns, or all. What is asked for at the same time is read at once."""
        key = as_uuid(key) if isinstance(key, str) else key
        if key is None:
            return None
        found = await self.rows(row, [key], every(row) if asked is None else asked)
        return cast("R", found[0]) if len(found) else None

    async def rows(self, row: type[Row], keys: Sequence[UUID], asked: Columns) -> RawRows:
        """The rows with these ids, as far as they are there, with these columns."""
        wanted = asked | {"id"}
        none = RawRows(row, sorted(wanted), (), self.dialect)
        loader = self._made((row, wanted), lambda: DataLoader(partial(self._values, none)))
        return none.with_values([values for values in await loader.load_many(keys) if values is not None])

    async def _values(self, none: RawRows, keys: list[UUID]) -> list[Sequence[Any] | None]:
        columns = none.row.__table__.c
        statement = sa.select(*(as_given(columns[name]) for name in none.names)).where(among(columns.id, keys))
        read = await self.given(statement)
        by_key = dict(zip(none.with_values(read).values_of("id"), read, strict=True))
        return [by_key.get(key) for key in keys]

    async def node(self, info: "Info", key: str) -> Row | None:
        """The row of any kind with an id."""
        known = as_uuid(key)
        if known is None:
            return None
        kind = await self._made("kinds", lambda: DataLoader(self._kinds)).load(known)
        return None if kind is None else await self.load(info, kind, known)

    async def nodes(self, info: "Info", keys: Sequence[str]) -> list[Row | None]:
        """The rows of any kind with these ids, in their places."""
        return list(await asyncio.gather(*(self.node(info, key) for key in keys)))

    async def named(self, info: "Info", row: type[R], column: str, name: str) -> R | None:
        """Return the row with a value in a unique column, with the columns that are selected of it."""
        if "\0" in name:
            return None
        table, names = row.__table__, sorted(self._columns(info, row, ((),)))
        found = await self.fetch(sa.select(*(table.c[each] for each in names)).where(table.c[column] == name))
        return row.of(dict(zip(names, found[0], strict=True))) if found else None

    async def _kinds(self, keys: list[UUID]) -> list[type[Row] | None]:
        kinds = implementing(Row)
        probes = [
            sa.select(sa.literal(place), kind.__table__.c.id).where(among(kind.__table__.c.id, keys))
            for place, kind in enumerate(kinds)
        ]
        found = {key: kinds[place] for place, key in await self.fetch(sa.union_all(*probes))}
        return [found.get(key) for key in keys]

    def search(
        self,
        info: "Info",
        row: type[Row],
        asked: PageArguments[Any],
        key: str | None = None,
        parent: UUID | None = None,
    ) -> Connection[Any]:
        """A page of rows; with a key, of those that point at a parent with it."""
        return Connection(pages=self._pages(info, row, asked, key, PATHS), parent=parent)

    async def children(self, info: "Info", row: type[R], asked: PageArguments[Any], key: str, parent: UUID) -> list[R]:
        """The rows of a page that point at a parent, for a field that is a list and no connection."""
        (rows,) = await self._pages(info, row, asked, key, ((),)).rows([parent])
        return cast("list[R]", rows)

    def _pages(
        self, info: "Info", row: type[Row], asked: PageArguments[Any], key: str | None, paths: Iterable[tuple[str, ...]]
    ) -> Pages:
        def search() -> PageQuery[Any]:
            return PageQuery(row, asked, self._columns(info, row, paths), self.dialect, key)

        return self.pages(info._raw_info.field_nodes, HasMany(row, key), search)  # noqa: SLF001

    def pages(self, nodes: Sequence[FieldNode], many: HasMany, search: Callable[[], PageQuery[Any]]) -> Pages:
        """The pages of a field: its arguments are the same for all parents, so it is built once."""
        return self._made((tuple(map(id, nodes)), many), lambda: Pages(search(), self.fetch, self.given))

    @property
    def dialect(self) -> Dialect:
        """What SQL is written for."""
        return self.database.reader.dialect

    def _columns(self, info: "Info", row: type[Row], paths: Iterable[tuple[str, ...]]) -> Columns:
        raw = info._raw_info  # noqa: SLF001
        key = (row, tuple(map(id, raw.field_nodes)))
        return self._made(key, lambda: columns(row, raw.field_nodes, raw.fragments, paths))

    def _made(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self.made:
            self.made[key] = make()
        return cast("T", self.made[key])


Info = strawberry.Info[Context, None]
