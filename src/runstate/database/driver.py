"""Compiled statements, executed by the driver directly.

SQLAlchemy compiles a statement once, together with the converters of its parameters and rows. Executing it through
SQLAlchemy each time would cost several times as much as the driver itself.
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

from runstate.database.budget import ReadBudget, texts_at
from runstate.database.dialects import reader
from runstate.database.lanes import Pace
from runstate.rows.base import DocumentColumn

Convert = Callable[[Any], Any]

MOST: Final = 500
"""Maximum number of cached statements."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

RAISED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, sqlite3.Error)
"""Exceptions of the drivers: refused statements and lost connections."""
INTEGRITY = (asyncpg.IntegrityConstraintViolationError, sqlite3.IntegrityError)
LONG = (sa.Text, sa.JSON, DocumentColumn)
"""Types of columns whose values have no fixed length."""


class CompiledStatement:
    """A statement compiled for the driver, shared by all statements that differ only in parameter values."""

    def __init__(self, statement: Any, dialect: Dialect, key: CacheKey | None = None, *, prefix: str = "") -> None:
        self.compiled: Any = statement.compile(dialect=dialect, cache_key=key)
        self.text = str(self.compiled)
        self.grows = bool(self.compiled.post_compile_params or self.compiled.literal_execute_params)
        """Whether the text depends on the parameter values; SQLAlchemy executes such statements."""
        binds = [(name, self.compiled.binds[name].type) for name in self.compiled.positiontup]
        self.given = [(name.removeprefix(prefix), _bound(kind, dialect)) for name, kind in binds]
        columns = list(statement.exported_columns)
        self.texts = texts_at([place for place, column in enumerate(columns) if isinstance(column.type, LONG)])
        converters = [reader(column.type, dialect) for column in columns]
        self.converted = [(place, convert) for place, convert in enumerate(converters) if convert is not None]
        self.pace = Pace()

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the converted parameters, in the order of the driver."""
        return tuple([values[name] if convert is None else convert(values[name]) for name, convert in self.given])

    def row(self, found: Sequence[Any]) -> list[Any]:
        """Return the converted values of a row of the driver."""
        # A list, because rows of the drivers cannot be changed.
        values = list(found)
        for place, convert in self.converted:
            values[place] = convert(values[place])
        return values


class BoundStatement(NamedTuple):
    """A compiled statement with the parameter values that the statement itself contains."""

    ready: CompiledStatement
    values: Mapping[str, Any]


class Statements:
    """A cache of compiled statements for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = weakref.proxy(dialect)  # `BY_DIALECT` must not keep its own key alive
        self.seen: weakref.WeakKeyDictionary[Any, BoundStatement] = weakref.WeakKeyDictionary()
        self.ready: dict[Any, CompiledStatement] = {}

    def bound(self, statement: Any) -> BoundStatement:
        """Return the compiled form of a statement with its values. Compile it if no equal one is cached."""
        # Computing the key of a statement takes longer than this lookup.
        known = self.seen.get(statement)
        if known is not None:
            return known
        key = statement._generate_cache_key()  # noqa: SLF001 SQLAlchemy's own cache uses this key too
        ready = self._ready(statement, key)
        # Without the check: parameters that are bound at execution have no values here.
        values = ready.compiled.construct_params(extracted_parameters=key and key.bindparams, _check=False)
        bound = BoundStatement(ready, values)
        if key:
            self.seen[statement] = bound
        return bound

    def _ready(self, statement: Any, key: CacheKey | None) -> CompiledStatement:
        known = self.ready.get(key.key) if key else None
        if known is None:
            known = CompiledStatement(statement, self.dialect, key)
            if len(self.ready) >= MOST:
                self.ready.clear()
                self.seen.clear()  # its values refer to compiled statements, and would keep them alive
            if key:
                self.ready[key.key] = known
        return known


def _bound(kind: Any, dialect: Dialect) -> Convert | None:
    converter: Convert | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return converter


# Compiled statements are freed with their dialect.
BY_DIALECT: weakref.WeakKeyDictionary[Dialect, Statements] = weakref.WeakKeyDictionary()


def driver_of(connection: AsyncConnection) -> Any:
    """Return the driver's connection behind a SQLAlchemy connection."""
    sync: Any = connection.sync_connection
    return sync.connection.driver_connection


async def fetch(
    connection: AsyncConnection, statement: Any, given: Mapping[str, Any] = NOTHING, budget: ReadBudget | None = None
) -> list[list[Any]]:
    """Return the rows of a statement; *given* has parameter values by name.

    Raises the exceptions of SQLAlchemy, and LimitExceeded if the rows have more bytes than the budget allows.
    """
    bound = _bind(connection.dialect, statement)
    async with _within(connection, bound.ready, budget):
        if bound.ready.grows:
            return [list(row) for row in await connection.execute(statement, given or None)]
        found = await _executed(connection, bound.ready, {**bound.values, **given} if given else bound.values)
    return [bound.ready.row(each) for each in found]


async def fetch_as_given(
    connection: AsyncConnection, statement: Any, budget: ReadBudget | None = None
) -> Sequence[Sequence[Any]]:
    """Return the rows of a statement without converting the driver's values.

    Raises the exceptions of SQLAlchemy, and LimitExceeded if the rows have more bytes than the budget allows.
    """
    bound = _bind(connection.dialect, statement)
    async with _within(connection, bound.ready, budget):
        if bound.ready.grows:
            result: Any = await connection.execute(statement)
            rows: Sequence[Sequence[Any]] = result.cursor.fetchall()
            return rows
        return await _executed(connection, *bound)


def _within(
    connection: AsyncConnection, ready: CompiledStatement, budget: ReadBudget | None
) -> AbstractAsyncContextManager[None]:
    if budget is None:
        return nullcontext()
    within: AbstractAsyncContextManager[None] = driver_of(connection).within(budget, ready.texts)
    return within


def pace_of(dialect: Dialect, statement: Any) -> Pace:
    """Return the pace that all statements share which differ from this one only in values."""
    return _bind(dialect, statement).ready.pace


def _bind(dialect: Dialect, statement: Any) -> BoundStatement:
    known = BY_DIALECT.get(dialect)
    if known is None:
        known = BY_DIALECT[dialect] = Statements(dialect)
    return known.bound(statement)


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
    """Defer a statement without rows, on SQLite only; it is executed with each parameter tuple.

    It is executed before the next statement that returns rows, or before COMMIT.
    """
    _executing(connection, text, parameters)
    driver_of(connection).later("executemany", text, parameters)


def before_commit(connection: AsyncConnection, callback: Callable[[], None]) -> None:
    """Call *callback* once every statement so far has succeeded, on SQLite including the deferred ones."""
    if connection.dialect.name == "sqlite":
        driver_of(connection).deferred.append(callback)
    else:
        callback()


def _executing(connection: AsyncConnection, text: str, parameters: Sequence[Any]) -> None:
    """Call SQLAlchemy's listeners for executed statements: they set deadlines and count statements."""
    sync: Any = connection.sync_connection
    for listener in sync.dispatch.before_cursor_execute:
        listener(sync, None, text, parameters, None, False)  # noqa: FBT003 the signature of SQLAlchemy's event


@contextmanager
def raised_as_sqlalchemy(text: str, driver: Any) -> Iterator[None]:
    """Convert exceptions of the driver into those of SQLAlchemy. Parameters are hidden: they are what clients sent."""
    try:
        yield
    except RAISED as error:
        # A connection to SQLite cannot be lost.
        lost = isinstance(driver, asyncpg.Connection) and driver.is_closed()
        kind = IntegrityError if isinstance(error, INTEGRITY) else DBAPIError
        raise kind(text, None, error, hide_parameters=True, connection_invalidated=lost) from error
