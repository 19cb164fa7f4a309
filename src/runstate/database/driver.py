"""Statements that are executed all day, handed to the driver as it takes them.

SQLAlchemy makes them, once, with what converts their parameters and rows. Its own way to the driver costs several times
what the driver costs.
"""

import functools
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

Convert = Callable[[Any], Any]

RAISED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, sqlite3.Error)
"""What a driver raises when a database refuses, or is gone."""
INTEGRITY = (asyncpg.IntegrityConstraintViolationError, sqlite3.IntegrityError)


class Ready:
    """A statement as the driver takes it."""

    def __init__(self, statement: sa.Select[Any] | sa.CompoundSelect[Any] | sa.Insert, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self.constants: Mapping[str, Any] = compiled.params
        self.given = [(name, _bound(compiled.binds[name].type, dialect)) for name in compiled.positiontup]
        converters = [_read(column.type, dialect) for column in statement.exported_columns]
        self.converted = [(place, convert) for place, convert in enumerate(converters) if convert is not None]

    def parameters(self, given: Mapping[str, Any]) -> list[Any]:
        """What the driver is given."""
        values = {**self.constants, **given}
        return [values[name] if convert is None else convert(values[name]) for name, convert in self.given]

    def row(self, found: Sequence[Any]) -> list[Any]:
        """The values of a row that the driver gave."""
        values = list(found)
        for place, convert in self.converted:
            values[place] = convert(values[place])
        return values


def _bound(kind: Any, dialect: Dialect) -> Convert | None:
    converter: Convert | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return converter


def _read(kind: Any, dialect: Dialect) -> Convert | None:
    if isinstance(kind, sa.Double):
        return None  # asyncpg's would want to know more
    converter: Convert | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return converter


@functools.lru_cache(1024)
def _ready(statement: Any, dialect: Dialect) -> Ready:
    return Ready(statement, dialect)


def driver_of(connection: AsyncConnection) -> Any:
    """The driver's connection behind one of SQLAlchemy's."""
    sync: Any = connection.sync_connection
    return sync.connection.driver_connection


async def fetch(connection: AsyncConnection, statement: Any, given: Mapping[str, Any]) -> list[list[Any]]:
    """The rows of a statement that is always the same object; values by the names of its parameters.

    It raises what SQLAlchemy raises.
    """
    ready = _ready(statement, connection.dialect)
    driver = driver_of(connection)
    parameters = ready.parameters(given)
    _executing(connection, ready.text, parameters)
    with raised_as_sqlalchemy(ready.text, driver):
        found = await driver.fetch(ready.text, *parameters)
    return [ready.row(each) for each in found]


def later(connection: AsyncConnection, text: str, parameters: Sequence[Sequence[Any]]) -> None:
    """On SQLite: a statement that gives no rows, for each of these parameters, before the next one or the commit."""
    _executing(connection, text, parameters)
    driver_of(connection).later("executemany", text, parameters)


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
