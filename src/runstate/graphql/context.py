"""The context of one operation: the database, the time, and the loaders that resolvers share."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import sqlalchemy as sa
import strawberry
from graphql import FieldNode, OperationType
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from strawberry.dataloader import DataLoader

from runstate.core.access.allowlist import Address
from runstate.core.access.credentials import UNRESTRICTED, Principal
from runstate.core.access.csrf import CsrfTokens
from runstate.core.context import CommandContext
from runstate.database import Database
from runstate.database.budget import ANSWER_BYTES, ANSWERS_AT_ONCE, ReadBudget, Room
from runstate.database.dialects import among, among_given, as_given
from runstate.database.driver import fetch, fetch_as_given
from runstate.graphql.pagination.connection import PATHS, Connection, Pages
from runstate.graphql.pagination.keyset import PageArguments, PageQuery
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import Columns, columns, every, type_conditions
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.derive import definition_of, implementing
from runstate.graphql.types.filters import HasMany
from runstate.rows import Row

R = TypeVar("R", bound=Row)
T = TypeVar("T")
Clock = Callable[[], datetime]
Admit = Callable[[dict[str, Any]], Awaitable[Principal]]
"""Returns the principal of a socket for the payload of its first message."""

CONNECTIONS_AT_ONCE: Final = 4
"""Largest number of database connections that one operation uses at the same time."""


class Context:
    """The context of one operation. Everything that it reads is read once."""

    room = Room(ANSWERS_AT_ONCE * ANSWER_BYTES)
    """The room for large answers; that of the process for an operation that was accepted."""

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
        self.address: Address | None = None
        """Address of the client; None for a local socket."""
        self.find_url: Callable[[], str] = str
        """Return the URL of the server as the client knows it, without a slash at its end. Few operations need it."""
        self.reports_cost = False
        """Whether answers contain the cost of the operation, even far below the limit."""
        self.until_taken: Callable[[], Awaitable[None]] | None = None
        """Waits until the client has taken the messages on its socket; None for other transports."""
        self.connection_params: dict[str, Any] = {}
        """Payload of the first message on a socket."""
        self.cache: dict[Hashable, Any] = {}
        """Loaders and queries of the operation."""
        self.statements = 0
        """Number of statements that were executed to read; statements of batches do not count."""
        self.kind = "unknown"
        """Type of the operation, once the document is known."""
        self.cost: float | None = None
        """Cost of the operation, once it is known."""
        self.answer_bytes = ANSWER_BYTES
        """Largest number of bytes of the answer, and of those that are read for it."""

    def fresh(self) -> "Context":
        """Return a context in which nothing was read yet, for one operation on a socket."""
        # Without `admit`: the socket is authenticated already.
        context = Context(
            self.database,
            self.clock,
            request_id=self.request_id,
            principal=self.principal,
            batcher=self.batcher,
            feed=self.feed,
            csrf=self.csrf,
        )
        context.find_url, context.address = self.find_url, self.address
        context.reports_cost = self.reports_cost
        return context

    def forget(self) -> None:
        """Drop everything that was read: before each event of a subscription, and after the operation."""
        self.cache.clear()
        # A cached property: each event of a subscription has its own time.
        vars(self).pop("now", None)
        if budget := vars(self).pop("budget", None):
            budget.release()

    @cached_property
    def commands(self) -> CommandContext:
        """The environment of commands."""
        return cast("CommandContext", replace(self.batcher.context, actor=self.actor))

    @property
    def actor(self) -> str:
        """Name of the principal."""
        return self.principal.name

    @cached_property
    def now(self) -> datetime:
        """Time of the operation, the same for all its fields."""
        return self.clock()

    @cached_property
    def budget(self) -> ReadBudget:
        """The bytes that may still be read."""
        return ReadBudget(self.answer_bytes, self.room)

    @cached_property
    def connection_slots(self) -> asyncio.Semaphore:
        """Limit on the database connections that the operation uses at the same time."""
        return asyncio.Semaphore(CONNECTIONS_AT_ONCE)

    @property
    def dialect(self) -> Dialect:
        """The SQL dialect of the database."""
        return self.database.reader.dialect

    async def fetch(self, statement: sa.Executable, **parameters: Any) -> Sequence[Any]:
        """Return the rows of a statement."""
        self.statements += 1
        async with self.connection_slots, self._connection(statement) as connection:
            return await fetch(connection, statement, parameters, self.budget)

    async def fetch_raw(self, statement: sa.Executable) -> Sequence[Sequence[Any]]:
        """Return the rows of a statement with columns `as_given`, as the driver returns them."""
        self.statements += 1
        async with self.connection_slots, self._connection(statement) as connection:
            return await fetch_as_given(connection, statement, self.budget)

    def _connection(self, statement: sa.Executable) -> AbstractAsyncContextManager[AsyncConnection]:
        # Subscriptions have connections of their own: their events do not wait for queries.
        if self.kind == OperationType.SUBSCRIPTION.value:
            return self.database.subscriptions.read()
        return self.database.query(statement)

    async def load(self, info: "Info", row: type[R], key: UUID | str | None) -> R | None:
        """Return the row with an id, with its selected columns; None if the id is unknown or malformed."""
        return await self.row(row, key, self._columns(info, row))

    async def row(self, row: type[R], key: UUID | str | None, selected: Columns | None = None) -> R | None:
        """Return the row with an id, with these columns, by default all."""
        key = as_uuid(key) if isinstance(key, str) else key
        if key is None:
            return None
        found = await self.rows(row, [key], every(row) if selected is None else selected)
        return cast("R", found[0]) if len(found) else None

    async def rows(self, row: type[Row], keys: Sequence[UUID], selected: Columns) -> RawRows:
        """Return the rows with these ids that exist. Rows that are loaded at the same time are read together."""
        wanted = selected | {"id"}
        # Sorted, so that the statement of a selection is always the same.
        none = RawRows(row, sorted(wanted), (), self.dialect)
        # Fields that select different columns cannot share a loader.
        loader = self._cached((row, wanted), lambda: DataLoader(partial(self._values, none)))
        return none.with_values([values for values in await loader.load_many(keys) if values is not None])

    async def _values(self, none: RawRows, keys: list[UUID]) -> list[Sequence[Any] | None]:
        columns = none.row.__table__.c
        statement = sa.select(*(as_given(columns[name]) for name in none.names)).where(among(columns.id, keys))
        read = await self._fetch_by_id(statement)
        by_key = dict(zip(none.with_values(read).values_of("id"), read, strict=True))
        return [by_key.get(key) for key in keys]

    async def _fetch_by_id(self, statement: sa.Executable) -> Sequence[Sequence[Any]]:
        """Return the rows of a lookup by ids; a mutation reads what it has written without waiting for queries."""
        if self.kind != OperationType.MUTATION.value:
            return await self.fetch_raw(statement)
        self.statements += 1
        async with self.connection_slots, self.database.read() as connection:
            return await fetch_as_given(connection, statement, self.budget)

    async def node(self, info: "Info", key: str) -> Row | None:
        """Return the row of any type with an id."""
        (row,) = await self.nodes(info, [key])
        return row

    async def nodes(self, info: "Info", keys: Sequence[str]) -> list[Row | None]:
        """Return the rows of any type with these ids, in their places.

        Most clients select fields of the type that they expect: its table is read first, as if it were the only one.
        All tables are probed for the other ids.
        """
        ids = [as_uuid(key) for key in keys]
        missing = list(dict.fromkeys(each for each in ids if each is not None))
        found: dict[UUID | None, Row] = {}
        if expected := self._expected_type(info):
            found |= await self._by_id(info, expected, missing)
            missing = [each for each in missing if each not in found]
        types: dict[type[Row], list[UUID]] = {}
        for each, kind in zip(missing, await self._types_of(missing), strict=True):
            if kind:
                types.setdefault(kind, []).append(each)
        for rows in await asyncio.gather(*(self._existing(info, kind, some) for kind, some in types.items())):
            found |= rows
        return [found.get(each) for each in ids]

    def _expected_type(self, info: "Info") -> type[Row] | None:
        """Return the type of node that a selection names; None if it names none, or several."""
        # Strawberry's public selections are converted copies without the nodes of the document.
        raw = info._raw_info  # noqa: SLF001
        named = type_conditions(raw.field_nodes, raw.fragments)
        types = [row for row in implementing(Row) if not named.isdisjoint(_names(row))]
        return types[0] if len(types) == 1 else None

    async def _by_id(self, info: "Info", row: type[Row], ids: Sequence[UUID]) -> dict[UUID | None, Row]:
        rows = await self.rows(row, ids, self._columns(info, row))
        return dict(zip(rows.values_of("id"), rows.objects, strict=True))

    async def _existing(self, info: "Info", row: type[Row], ids: Sequence[UUID]) -> dict[UUID | None, Row]:
        """Return rows that are known to exist: if nothing but their ids is selected, they are not read."""
        if self._columns(info, row) == {"id"}:
            return {each: row.of({"id": each}) for each in ids}
        return await self._by_id(info, row, ids)

    async def _types_of(self, ids: Sequence[UUID]) -> list[type[Row] | None]:
        # Cached for this operation only, because a node can be deleted.
        loader = self._cached("types", lambda: DataLoader(self._types))
        return await loader.load_many(ids) if ids else []

    def loader(self, key: Hashable, read: Callable[[list[Any]], Awaitable[list[Any]]]) -> DataLoader[Any, Any]:
        """Return the loader of one kind of values. Values that are loaded at the same time are read together."""
        return self._cached(key, lambda: DataLoader(read))

    async def _types(self, ids: list[UUID]) -> list[type[Row] | None]:
        # The last type with an id counts.
        types = sorted(implementing(Row), key=lambda row: not row.__shares_ids__)
        found = {key: types[place] for place, key in await self.fetch(_probes(tuple(types)), ids=ids)}
        return [found.get(each) for each in ids]

    async def named(self, info: "Info", row: type[R], column: str, name: str) -> R | None:
        """Return the row with a value in a unique column, with its selected columns."""
        # PostgreSQL rejects texts with NUL, so no object has such a name.
        if "\0" in name:
            return None
        table, names = row.__table__, sorted(self._columns(info, row))
        found = await self.fetch(sa.select(*(table.c[each] for each in names)).where(table.c[column] == name))
        return row.of(dict(zip(names, found[0], strict=True))) if found else None

    def search(
        self,
        info: "Info",
        row: type[Row],
        arguments: PageArguments[Any],
        key: str | None = None,
        parent: UUID | None = None,
        of: Hashable = None,
    ) -> Connection[Any]:
        """Return a page of rows; with a key, of those that refer to a parent with it.

        `of` is the parent if its rows are found by a condition of the arguments.
        """
        return Connection(pages=self._pages(info, row, arguments, key, PATHS, of), parent=parent)

    def page(self, info: "Info", row: type[Row], arguments: PageArguments[Any]) -> Connection[Any]:
        """Return a page of rows for one object, whose conditions differ from those for other objects of a list."""
        query: PageQuery[Any] = PageQuery(row, arguments, self._columns(info, row, PATHS), self.dialect)
        return Connection(pages=Pages(query, self.fetch, self.fetch_raw), parent=None)

    async def children(
        self, info: "Info", row: type[R], arguments: PageArguments[Any], key: str, parent: UUID
    ) -> list[R]:
        """Return a page of the rows that refer to a parent, for a field that is a list and no connection."""
        (rows,) = await self._pages(info, row, arguments, key, ((),)).rows([parent])
        return cast("list[R]", rows)

    def _pages(
        self,
        info: "Info",
        row: type[Row],
        arguments: PageArguments[Any],
        key: str | None,
        paths: Iterable[tuple[str, ...]],
        of: Hashable = None,
    ) -> Pages:
        def query() -> PageQuery[Any]:
            return PageQuery(row, arguments, self._columns(info, row, paths), self.dialect, key)

        return self.pages(info._raw_info.field_nodes, HasMany(row, key), query, of)  # noqa: SLF001

    def pages(
        self, nodes: Sequence[FieldNode], many: HasMany, query: Callable[[], PageQuery[Any]], of: Hashable = None
    ) -> Pages:
        """Return the pages of a field. Its arguments are the same for all parents, so there is one query."""
        return self._cached((tuple(map(id, nodes)), many, of), lambda: Pages(query(), self.fetch, self.fetch_raw))

    def _columns(self, info: "Info", row: type[Row], paths: Iterable[tuple[str, ...]] = ((),)) -> Columns:
        raw = info._raw_info  # noqa: SLF001
        # The document outlives the context, so the ids of its nodes are not reused.
        key = (row, tuple(map(id, raw.field_nodes)))
        return self._cached(key, lambda: columns(row, raw.field_nodes, raw.fragments, paths))

    def _cached(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self.cache:
            self.cache[key] = make()
        return cast("T", self.cache[key])


@functools.cache
def _names(row: type[Row]) -> frozenset[str]:
    """Return the names of a type of node and of its interfaces, except `Node`."""
    definition = definition_of(row)
    return frozenset({definition.name, *(each.name for each in definition.interfaces)}) - {definition_of(Row).name}


@functools.cache
def _probes(types: tuple[type[Row], ...]) -> sa.CompoundSelect[Any]:
    """Return the statement that finds ids in the tables of all types. It is cached, since it is expensive to make."""
    return sa.union_all(
        *(
            sa.select(sa.literal_column(str(place)), row.__table__.c.id).where(among_given(row.__table__.c.id, "ids"))
            for place, row in enumerate(types)
        )
    )


Info = strawberry.Info[Context, None]
