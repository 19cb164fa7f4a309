"""Rows of several tables, written together: one statement on PostgreSQL, one for each table on SQLite.

On PostgreSQL the rows of a table are one JSON parameter, so that a statement is the same however many rows there are:
it is prepared once, and its parameters are made in one go.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.dialects import insert_or_skip
from runstate.rows import Base

POSITION = "position"
"""Where a row stands among those of its table, where that matters: what numbers rows, numbers them in this order."""


class Change(NamedTuple):
    """Rows to be inserted in order, or columns to be written to the rows with these ids."""

    table: sa.Table
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    inserts: bool


def table_of(row: type[Base]) -> sa.Table:
    """The table behind a row class."""
    return cast("sa.Table", row.__table__)


def inserted(row: type[Base], rows: Iterable[dict[str, Any]]) -> Change:
    """New rows, in order, all with the same columns."""
    there = list(rows)
    return Change(table_of(row), tuple(there[0]) if there else (), there, inserts=True)


def updated(row: type[Base], columns: Sequence[str], rows: Iterable[Any]) -> Change:
    """Some columns of rows that are there already."""
    names = ("id", *columns)
    return Change(table_of(row), names, [{name: vars(each)[name] for name in names} for each in rows], inserts=False)


async def write(connection: AsyncConnection, changes: Sequence[Change]) -> None:
    """Write all that is not empty, in a statement for each change on SQLite, in one on PostgreSQL.

    No row may be changed twice, nor refer to itself as it was before.
    """
    written = [change for change in changes if change.rows]
    if connection.dialect.name != "postgresql":
        for table, columns, rows, inserts in written:
            if inserts:
                await connection.execute(sa.insert(table), rows)
            else:
                await connection.execute(_update(table, columns), [_named(row) for row in rows])
    elif written:
        parts = tuple((table, columns, inserts) for table, columns, _, inserts in written)
        given = {f"rows{place}": _given(change) for place, change in enumerate(written)}
        await connection.execute(_together(parts), given)


async def insert_missing(connection: AsyncConnection, row: type[Base], rows: Sequence[dict[str, Any]]) -> set[UUID]:
    """Insert rows in order unless their unique key is taken; the ids of those that were inserted."""
    if not rows:
        return set()
    if connection.dialect.name != "postgresql":
        statement = insert_or_skip("sqlite", table_of(row)).returning(table_of(row).c.id)
        return set((await connection.execute(statement, rows)).scalars())
    statement = _insert_missing(table_of(row), tuple(rows[0]))
    return set((await connection.execute(statement, {"rows0": _placed(rows)})).scalars())


@functools.cache
def _update(table: sa.Table, columns: tuple[str, ...]) -> sa.Update:
    _, *names = columns
    values = {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names}
    return sa.update(table).where(table.c.id == sa.bindparam("new_id", type_=table.c.id.type)).values(values)


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in row.items()}


def _given(change: Change) -> list[dict[str, Any]]:
    return _placed(change.rows) if _is_numbered(change.table) else change.rows


def _is_numbered(table: sa.Table) -> bool:
    return table.autoincrement_column is not None


def _placed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, POSITION: place} for place, row in enumerate(rows)]


@functools.cache
def _together(parts: tuple[tuple[sa.Table, tuple[str, ...], bool], ...]) -> sa.Select[Any]:
    """A statement that does nothing itself, with each change as a part that is carried out beside it."""
    changes = []
    for place, (table, columns, inserts) in enumerate(parts):
        insert = _insert_in_order if _is_numbered(table) else _insert_from
        change = insert(sa.insert(table), columns, place) if inserts else _update_from(table, columns, place)
        changes.append(change.cte(f"change{place}"))
    return sa.select(sa.literal_column("1")).add_cte(*changes)


@functools.cache
def _insert_missing(table: sa.Table, columns: tuple[str, ...]) -> Any:
    return _insert_in_order(insert_or_skip("postgresql", table), columns, 0).returning(table.c.id)


def _insert_from(insert: Any, columns: tuple[str, ...], place: int) -> Any:
    rows = _rows(insert.table, columns, place)
    return insert.from_select(columns, sa.select(*(rows.c[name] for name in columns)))


def _insert_in_order(insert: Any, columns: tuple[str, ...], place: int) -> Any:
    rows = _rows(insert.table, columns, place, sa.column(POSITION, sa.Integer()))
    return insert.from_select(columns, sa.select(*(rows.c[name] for name in columns)).order_by(rows.c[POSITION]))


def _update_from(table: sa.Table, columns: tuple[str, ...], place: int) -> Any:
    rows = _rows(table, columns, place)
    values = {name: rows.c[name] for name in columns if name != "id"}
    return sa.update(table).where(table.c.id == rows.c.id).values(values)


def _rows(table: sa.Table, columns: tuple[str, ...], place: int, *further: sa.ColumnClause[Any]) -> Any:
    """The rows of a JSON parameter, with the types of the table's columns."""
    kinds = [sa.column(name, table.c[name].type) for name in columns]
    given = sa.func.jsonb_to_recordset(sa.bindparam(f"rows{place}", type_=JSONB()))
    found = given.table_valued(*kinds, *further, name=f"given{place}")
    return found.render_derived(with_types=True)
