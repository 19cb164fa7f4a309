"""Statements that are executed all day, handed to the driver as it takes them.

SQLAlchemy makes them, once, with what converts their parameters and rows. Its own way to the driver costs several times
what the driver costs.
"""

import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import asyncpg
import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.cache_key import CacheKey

from runstate.database.budget import ReadBudget
from runstate.database.dialects import reader
from runstate.database.lanes import Pace
from runstate.rows.base import DocumentColumn

Convert = Callable[[Any], Any]

MOST: Final = 500
"""So many different statements are kept ready."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

RAISED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, sqlite3.Error)
"""What a driver raises when a database refuses, or is gone."""
INTEGRITY = (asyncpg.IntegrityConstraintViolationError, sqlite3.IntegrityError)
LONG = (sa.Text, sa.JSON, DocumentColumn)
"""Types of columns whose values have no fixed length."""


class CompiledStatement:
    """A statement as the driver takes it; the same for all that differ in the values of their parameters only."""

    def __init__(self, statement: Any, dialect: Dialect, key: CacheKey | None = None, *, prefix: str = "") -> None:
        self.compiled: Any = statement.compile(dialect=dialect, cache_key=key)
        self.text = str(self.compiled)
        self.grows = bool(self.compiled.post_compile_params or self.compiled.literal_execute_params)
        """Whether its text is another one for other numbers of values: that is left to SQLAlchemy."""
        binds = [(name, self.compiled.binds[name].type) for name in self.compiled.positiontup]
        self.given = [(name.removeprefix(prefix), _bound(kind, dialect)) for name, kind in binds]
        columns = list(statement.exported_columns)
        self.texts = [place for place, column in enumerate(columns) if isinstance(column.type, LONG)]
        converters = [reader(column.type, dialect) for column in columns]
        self.converted = [(place, convert) for place, convert in enumerate(converters) if convert is not None]
        self.pace = Pace()

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the driver is given."""
        return tuple([values[name] if convert is None else convert(values[name]) for name, convert in self.given])

    def row(self, found: Sequence[Any]) -> list[Any]:
        """The values of a row that the driver gave."""
        values = list(found)
        for place, convert in self.converted:
            values[place] = convert(values[place])
        return values


class BoundStatement(NamedTuple):
    """A statement that is ready, and the values of its own parameters."""

    ready: CompiledStatement
    values: Mapping[str, Any]


class Statements:
    """What was asked already of databases of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = weakref.proxy(dialect)
        self.seen: weakref.WeakKeyDictionary[Any, BoundStatement] = weakref.WeakKeyDictionary()
        self.ready: dict[Any, CompiledStatement] = {}

    def asked(self, statement: Any) -> BoundStatement:
        """A statement, made ready unless one like it was."""
        known = self.seen.get(statement)
        if known is not None:
            return known
        key = statement._generate_cache_key()  # noqa: SLF001 as SQLAlchemy's own way to the driver does
        ready = self._ready(statement, key)
        values = ready.compiled.construct_params(extracted_parameters=key and key.bindparams, _check=False)
        asked = BoundStatement(ready, values)
        if key:
            self.seen[statement] = asked
        return asked

    def _ready(self, statement: Any, key: CacheKey | None) -> CompiledStatement:
        known = self.ready.get(key.key) if key else None
        if known is None:
            known = CompiledStatement(statement, self.dialect, key)
            if len(self.ready) >= MOST:
                self.ready.clear()
                self.seen.clear()  # what is ready holds the statement that it was made of
            if key:
                self.ready[key.key] = known
        return known


def _bound(kind: Any, dialect: Dialect) -> Convert | None:
    converter: Convert | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return converter


BY_DIALECT: weakref.WeakKeyDictionary[Dialect, Statements] = weakref.WeakKeyDictionary()


def driver_of(connection: AsyncConnection) -> Any:
    """The driver's connection behind one of SQLAlchemy's."""
    sync: Any = connection.sync_connection
    return sync.connection.driver_connection


async def fetch(
    connection: AsyncConnection, statement: Any, given: Mapping[str, Any] = NOTHING, budget: ReadBudget | None = None
) -> list[list[Any]]:
    """The rows of a statement; what is given are values by the names of its parameters.

    It raises what SQLAlchemy raises, and LimitExceeded if the rows have more bytes than the budget has.
    """
    asked = _asked(connection.dialect, statement)
    async with _within(connection, asked.ready, budget):
        if asked.ready.grows:
            return [list(row) for row in await connection.execute(statement, given or None)]
        found = await _executed(connection, asked.ready, {**asked.values, **given} if given else asked.values)
    return [asked.ready.row(each) for each in found]


async def fetch_as_given(
    connection: AsyncConnection, statement: Any, budget: ReadBudget | None = None
) -> Sequence[Sequence[Any]]:
    """The rows of a statement just as the driver gives them. Raise LimitExceeded if they are too large for a budget."""
    asked = _asked(connection.dialect, statement)
    async with _within(connection, asked.ready, budget):
        if asked.ready.grows:
            result: Any = await connection.execute(statement)
            rows: Sequence[Sequence[Any]] = result.cursor.fetchall()
            return rows
        return await _executed(connection, *asked)


def _within(
    connection: AsyncConnection, ready: CompiledStatement, budget: ReadBudget | None
) -> AbstractAsyncContextManager[None]:
    if budget is None:
        return nullcontext()
    within: AbstractAsyncContextManager[None] = driver_of(connection).within(budget, ready.texts)
    return within


def pace_of(dialect: Dialect, statement: Any) -> Pace:
    """Return the pace of all statements that differ from this one in values only."""
    return _asked(dialect, statement).ready.pace


def _asked(dialect: Dialect, statement: Any) -> BoundStatement:
    known = BY_DIALECT.get(dialect)
    if known is None:
        known = BY_DIALECT[dialect] = Statements(dialect)
    return known.asked(statement)


async def _executed(
    connection: AsyncConnection, ready: CompiledStatement, values: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    driver = driver_of(connection)
    parameters = ready.parameters(values)
    _executing(connection, ready.text, parameters)
    with raised_as_sqlalchemy(ready.text, driver):
        found: Sequence[Sequence[Any]] = await driver.fetch(ready.text, *parameters)
        return found


def later(connection: AsyncConnection, text: str, parameters: Sequence[Sequence[Any]]) -> None:
    """On SQLite: a statement that gives no rows, for each of these parameters, before the next one or the commit."""
    _executing(connection, text, parameters)
    driver_of(connection).later("executemany", text, parameters)


def before_commit(connection: AsyncConnection, callback: Callable[[], None]) -> None:
    """Call *callback* once every statement so far has succeeded: on SQLite after those that wait for the commit."""
    if connection.dialect.name == "sqlite":
        driver_of(connection).deferred.append(callback)
    else:
        callback()


def _executing(connection: AsyncConnection, text: str, parameters: Sequence[Any]) -> None:
    """Tell those who want to know of SQLAlchemy's statements."""
    sync: Any = connection.sync_connection
    for tell in sync.dispatch.before_cursor_execute:
        tell(sync, None, text, parameters, None, False)  # noqa: FBT003 as SQLAlchemy calls them


@contextmanager
def raised_as_sqlalchemy(text: str, driver: Any) -> Iterator[None]:
    """What the driver raises, as SQLAlchemy would raise it."""
    try:
        yield
    except RAISED as error:
        lost = isinstance(driver, asyncpg.Connection) and driver.is_closed()
        kind = IntegrityError if isinstance(error, INTEGRITY) else DBAPIError
        raise kind(text, None, error, hide_parameters=True, connection_invalidated=lost) from error
