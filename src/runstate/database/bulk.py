"""Bulk writes to several tables: one statement on PostgreSQL, one statement per table on SQLite.

On PostgreSQL the rows of a table are one JSON parameter. The text of a statement therefore does not depend on the
number of rows, so it is prepared once.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum, auto
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.dialects import insert_or_replace, insert_or_skip
from runstate.database.driver import CompiledStatement, driver_of, fetch, later, raised_as_sqlalchemy
from runstate.rows import Base

POSITION: Final = "position"
"""Name of the member with the index of a row, by which ordered inserts sort: a sequence then numbers rows in order."""
NEW: Final = "new_"
"""Prefix of parameter names, because SQLAlchemy reserves the names of the columns."""
OLD: Final = frozenset({"id", "created"})
"""Columns that keep their value when a row is replaced."""


class WriteMode(Enum):
    """The kind of a write."""

    INSERT = auto()
    UPDATE = auto()
    """Update the columns of the rows with these ids."""
    REPLACE = auto()
    """Insert rows, or update the rows that have the same keys."""
    DELETE = auto()


class TableWrite(NamedTuple):
    """A write to one table. All rows have the same columns."""

    table: sa.Table
    way: WriteMode
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    keys: tuple[str, ...] = ()


def table_of(row: type[Base]) -> sa.Table:
    """Return the table of a row class."""
    return cast("sa.Table", row.__table__)


def inserted(row: type[Base], rows: Iterable[dict[str, Any]]) -> TableWrite:
    """Return the write that inserts rows in order."""
    there = list(rows)
    return TableWrite(table_of(row), WriteMode.INSERT, tuple(there[0]) if there else (), there)


def updated(row: type[Base], columns: Sequence[str], rows: Iterable[Any]) -> TableWrite:
    """Return the write that updates some columns of existing rows."""
    names = ("id", *columns)
    values = itemgetter(*names)
    return TableWrite(
        table_of(row), WriteMode.UPDATE, names, [dict(zip(names, values(vars(each)), strict=True)) for each in rows]
    )


def replaced(row: type[Base], keys: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> TableWrite:
    """Return the write that inserts or replaces rows by unique key; of several rows with one key, the last is used."""
    # PostgreSQL refuses to update a row twice in one statement.
    last = {tuple(each[key] for key in keys): each for each in rows}
    there = list(last.values())
    return TableWrite(table_of(row), WriteMode.REPLACE, tuple(there[0]) if there else (), there, keys)


def deleted(row: type[Base], ids: Collection[UUID]) -> TableWrite:
    """Return the write that deletes rows by id."""
    return deleted_by_key(row, ("id",), [(each,) for each in ids])


def deleted_by_key(row: type[Base], keys: tuple[str, ...], values: Iterable[tuple[Any, ...]]) -> TableWrite:
    """Return the write that deletes rows by their values in some columns."""
    rows = [dict(zip(keys, each, strict=True)) for each in values]
    return TableWrite(table_of(row), WriteMode.DELETE, keys, rows)


async def write(connection: AsyncConnection, changes: Sequence[TableWrite]) -> None:
    """Execute all writes that have rows: one statement each on SQLite, one statement together on PostgreSQL.

    No row may be written twice: all parts of the PostgreSQL statement see the same snapshot.
    """
    written = [change for change in changes if change.rows]
    if connection.dialect.name != "postgresql":
        for table, way, columns, rows, keys in written:
            ready = _ready(table, way, columns, keys, connection.dialect)
            # Deferred until COMMIT, so that the thread of the connection executes everything in one turn.
            later(connection, ready.text, [ready.parameters(row) for row in rows])
    elif written:
        parts = tuple((change.table, change.way, change.columns, change.keys) for change in written)
        given = {f"rows{place}": _given(change) for place, change in enumerate(written)}
        await fetch(connection, _combined(parts), given)


async def append(
    connection: AsyncConnection, row: type[Base], columns: tuple[str, ...], records: Sequence[tuple[Any, ...]]
) -> None:
    """Insert many rows that have neither defaults nor conflicts: with COPY on PostgreSQL, which is the fastest way."""
    table = table_of(row)
    if connection.dialect.name == "postgresql":
        driver = driver_of(connection)
        with raised_as_sqlalchemy("COPY", driver):
            await driver.copy_records_to_table(table.name, columns=columns, records=records)
    else:
        ready = _ready(table, WriteMode.INSERT, columns, (), connection.dialect)
        later(connection, ready.text, [ready.parameters(dict(zip(columns, each, strict=True))) for each in records])


async def load(connection: AsyncConnection, row: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows that have no conflicts, given by column: with COPY on PostgreSQL.

    All have the same columns. Those that are omitted have their default.
    """
    if not rows:
        return
    table = table_of(row)
    ready = _ready(table, WriteMode.INSERT, tuple(rows[0]), (), connection.dialect)
    # COPY knows no defaults of SQLAlchemy, so they are given with each row.
    rest = {name: default_of(table.c[name]) for name, _ in ready.given if name not in rows[0]}
    records = [ready.parameters({**rest, **each}) for each in rows]
    if connection.dialect.name == "postgresql":
        driver, columns = driver_of(connection), [name for name, _ in ready.given]
        with raised_as_sqlalchemy("COPY", driver):
            await driver.copy_records_to_table(table.name, columns=columns, records=records)
    else:
        later(connection, ready.text, records)


def default_of(column: sa.Column[Any]) -> Any:
    """Return the value of a column in new rows that omit it; None without a default."""
    default: Any = column.default
    if default is None:
        return None
    # SQLAlchemy wraps a callable default in a function of the execution context.
    return default.arg(None) if default.is_callable else default.arg


async def insert_missing(connection: AsyncConnection, row: type[Base], rows: Sequence[dict[str, Any]]) -> set[UUID]:
    """Insert rows in order, skip those whose unique key is taken, and return the ids of the inserted rows."""
    if not rows:
        return set()
    if connection.dialect.name != "postgresql":
        statement = insert_or_skip("sqlite", table_of(row)).returning(table_of(row).c.id)
        return set((await connection.execute(statement, rows)).scalars())
    statement = _insert_missing(table_of(row), tuple(rows[0]))
    return {key for (key,) in await fetch(connection, statement, {"rows0": _numbered(rows)})}


# Building a statement takes longer than executing it.
@functools.cache
def _single(table: sa.Table, way: WriteMode, columns: tuple[str, ...], keys: tuple[str, ...]) -> Any:
    """Return the SQLite statement that writes one row."""
    given = {name: sa.bindparam(f"{NEW}{name}", type_=table.c[name].type) for name in columns}
    match way:
        case WriteMode.INSERT:
            return sa.insert(table).values(given)
        case WriteMode.REPLACE:
            return insert_or_replace("sqlite", table, keys, _kept(columns, keys)).values(given)
        case WriteMode.UPDATE:
            return sa.update(table).where(table.c.id == given.pop("id")).values(given)
        case WriteMode.DELETE:
            return sa.delete(table).where(*(table.c[name] == given[name] for name in columns))


@functools.cache
def _ready(
    table: sa.Table, way: WriteMode, columns: tuple[str, ...], keys: tuple[str, ...], dialect: Dialect
) -> CompiledStatement:
    return CompiledStatement(_single(table, way, columns, keys), dialect, prefix=NEW)


def _kept(columns: Sequence[str], keys: Sequence[str]) -> list[str]:
    return [name for name in columns if name not in OLD.union(keys)]


def _given(change: TableWrite) -> list[dict[str, Any]]:
    # Only a sequence depends on the order of rows, and sorting costs time.
    return _numbered(change.rows) if _is_numbered(change.table) else change.rows


def _is_numbered(table: sa.Table) -> bool:
    return table.autoincrement_column is not None


def _numbered(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, POSITION: place} for place, row in enumerate(rows)]


@functools.cache
def _combined(parts: tuple[tuple[sa.Table, WriteMode, tuple[str, ...], tuple[str, ...]], ...]) -> sa.Select[Any]:
    """Return a `SELECT 1` with each write as a common table expression, which PostgreSQL executes."""
    changes = [PARTS[way](table, columns, keys, place) for place, (table, way, columns, keys) in enumerate(parts)]
    ctes = [change.cte(f"change{place}") for place, change in enumerate(changes)]
    return sa.select(sa.literal_column("1")).add_cte(*ctes)


def _insert(table: sa.Table, columns: tuple[str, ...], _: tuple[str, ...], place: int) -> Any:
    if _is_numbered(table):
        return _insert_in_order(sa.insert(table), columns, place)
    return _insert_from(sa.insert(table), columns, place)


def _update(table: sa.Table, columns: tuple[str, ...], _: tuple[str, ...], place: int) -> Any:
    rows = _rows(table, columns, place)
    values = {name: rows.c[name] for name in columns if name != "id"}
    return sa.update(table).where(table.c.id == rows.c.id).values(values)


def _replace(table: sa.Table, columns: tuple[str, ...], keys: tuple[str, ...], place: int) -> Any:
    return _insert_from(insert_or_replace("postgresql", table, keys, _kept(columns, keys)), columns, place)


def _delete(table: sa.Table, columns: tuple[str, ...], _: tuple[str, ...], place: int) -> Any:
    rows = _rows(table, columns, place)
    return sa.delete(table).where(*(table.c[name] == rows.c[name] for name in columns))


PARTS: Final[Mapping[WriteMode, Callable[..., Any]]] = {
    WriteMode.INSERT: _insert,
    WriteMode.UPDATE: _update,
    WriteMode.REPLACE: _replace,
    WriteMode.DELETE: _delete,
}


@functools.cache
def _insert_missing(table: sa.Table, columns: tuple[str, ...]) -> Any:
    return _insert_in_order(insert_or_skip("postgresql", table), columns, 0).returning(table.c.id)


def _insert_from(insert: Any, columns: tuple[str, ...], place: int) -> Any:
    rows = _rows(insert.table, columns, place)
    return insert.from_select(columns, sa.select(*(rows.c[name] for name in columns)))


def _insert_in_order(insert: Any, columns: tuple[str, ...], place: int) -> Any:
    rows = _rows(insert.table, columns, place, sa.column(POSITION, sa.Integer()))
    return insert.from_select(columns, sa.select(*(rows.c[name] for name in columns)).order_by(rows.c[POSITION]))


def _rows(table: sa.Table, columns: tuple[str, ...], place: int, *further: sa.ColumnClause[Any]) -> Any:
    """Return a JSON parameter as a table with the types of the table's columns."""
    kinds = [sa.column(name, table.c[name].type) for name in columns]
    # One parameter for any number of rows: the text stays the same, so PostgreSQL keeps the prepared statement.
    given = sa.func.jsonb_to_recordset(sa.bindparam(f"rows{place}", type_=JSONB()))
    return given.table_valued(*kinds, *further, name=f"given{place}").render_derived(with_types=True)
