"""Generic commands that create, update and delete rows, and statements for all other commands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.announcements import announce, is_told_at_once, telling, told_values
from runstate.core.commands.command import TRIES, command
from runstate.core.commands.references import reference_of, unknown
from runstate.core.context import CommandContext
from runstate.database import dialects
from runstate.database.bulk import NEW, default_of
from runstate.database.driver import fetch
from runstate.errors import NotFound, Unavailable
from runstate.rows import Row
from runstate.rows.documents import writable

R = TypeVar("R", bound=Row)

KEY: Final = "key_of_row"
"""Name of the parameter that selects the row to change."""


class Existing(Enum):
    """The handling of an existing row with the unique key of a row to create."""

    REFUSE = "refuse"
    """Raise NameTaken."""
    RETURN = "return"
    """Return the existing row unchanged."""
    UPDATE = "update"
    """Update the existing row."""


class Written(NamedTuple, Generic[R]):
    """A row as it was written, and whether the command created it."""

    row: R
    created: bool = True


def fresh(context: CommandContext) -> dict[str, Any]:
    """Return the columns that the server sets on a new row."""
    now = context.clock()
    return {"id": context.new_id(), "created": now, "updated": now}


def columns_of(document: BaseModel, *, without: Sequence[str] = ("id", "by")) -> dict[str, Any]:
    """Return the members that a client set, by column name."""
    return {name: getattr(document, name) for name in document.model_fields_set if name not in without}


def new_columns(row: type[Row], document: BaseModel) -> dict[str, Any]:
    """Return a value for each column that clients write: that of the document, or the default."""
    given = document.model_fields_set
    return {name: getattr(document, name) if name in given else default_of(column) for name, column in _writable(row)}


@functools.cache
def _writable(row: type[Row]) -> tuple[tuple[str, sa.Column[Any]], ...]:
    return tuple((name, column) for name, _, column in writable(row, once=True))


async def insert(connection: AsyncConnection, row: type[R], columns: Mapping[str, Any]) -> R:
    """Insert a row and return it as written. Its event tells that it was created, if rows of the table have events."""
    made = await _inserted(connection, row, columns)
    assert made is not None  # noqa: S101 only `skip` returns nothing
    return made


async def insert_or_skip(
    connection: AsyncConnection, row: type[R], columns: Mapping[str, Any], *, announced: bool = True
) -> R | None:
    """Insert a row and return it as written, with its event as `insert`. Return None if its unique key is taken."""
    return await _inserted(connection, row, columns, skip=True, announced=announced)


async def _inserted(
    connection: AsyncConnection,
    row: type[R],
    columns: Mapping[str, Any],
    *,
    skip: bool = False,
    announced: bool = True,
) -> R | None:
    """Insert a row with defaults for omitted columns; with `skip`, return None if its unique key is taken."""
    given = {name: default_of(column) for name, column in _with_defaults(row) if name not in columns} | dict(columns)
    inserting = _insertion(row, tuple(given), connection.dialect.name if skip else None)
    return await _written(connection, Change(row, "created", inserting, given["created"], announced=announced), given)


@functools.cache
def _with_defaults(row: type[Row]) -> tuple[tuple[str, sa.Column[Any]], ...]:
    return tuple((column.key, column) for column in _table(row).columns if column.default is not None)


class Change(NamedTuple, Generic[R]):
    """A statement that writes at most one row and returns it, and what the event about it tells."""

    row: type[R]
    what: str
    statement: Any
    now: datetime
    columns: Sequence[str] = ()
    announced: bool = True


async def _written(connection: AsyncConnection, change: Change[R], values: Mapping[str, Any]) -> R | None:
    """Execute a change and return the row as written, with the event about it; None if no row was written."""
    row, what, statement, now, columns, announced = change
    given = {f"{NEW}{name}": value for name, value in values.items()}
    at_once = announced and is_told_at_once(connection, row)
    if at_once:
        statement, given = _telling(row, what, statement), given | told_values(row, now, columns)
    for found in await fetch(connection, statement, given):
        written = row.of(zip(_table(row).columns.keys(), found, strict=True))
        if announced and not at_once:
            await announce(connection, written, what, now, columns)
        return written
    return None


# SQLAlchemy takes longer to build and execute a statement than the driver needs for it.
_telling = functools.cache(telling)


@functools.cache
def _insertion(row: type[Row], names: tuple[str, ...], skipping: str | None) -> Any:
    """Return the statement that inserts a row, or skips it on this dialect, and returns its columns."""
    table = _table(row)
    inserting = dialects.insert_or_skip(skipping, table) if skipping else sa.insert(table)
    return inserting.values(_parameters(table, names)).returning(*table.columns)


@functools.cache
def _updating(row: type[Row], key: str, names: tuple[str, ...]) -> Any:
    """Return the statement that updates columns of the row with a value of its key, and returns all columns."""
    table = _table(row)
    same = table.c[key] == sa.bindparam(f"{NEW}{KEY}", type_=table.c[key].type)
    return sa.update(table).where(same).values(_parameters(table, names)).returning(*table.columns)


@functools.cache
def _deletion(row: type[Row]) -> Any:
    """Return the statement that deletes a row by its id, and returns its columns."""
    table = _table(row)
    return sa.delete(table).where(table.c.id == sa.bindparam(f"{NEW}{KEY}")).returning(*table.columns)


def _parameters(table: sa.Table, names: Sequence[str]) -> dict[str, Any]:
    return {name: sa.bindparam(f"{NEW}{name}", type_=table.c[name].type) for name in names}


async def insert_or_find(
    connection: AsyncConnection,
    row: type[R],
    columns: Mapping[str, Any],
    key: Sequence[str],
    *,
    lock: bool = False,
    announced: bool = True,
) -> Written[R]:
    """Insert a row, or find the existing row with its unique key; with `lock`, lock the existing row.

    Without `announced`, the caller appends the event.
    The existing row can be deleted before it is found. The key is free then, so the insert is retried.
    """
    table = _table(row)
    found = sa.select(*table.columns).where(*(table.c[name] == columns[name] for name in key))
    for _ in range(TRIES):
        if (made := await insert_or_skip(connection, row, columns, announced=announced)) is not None:
            return Written(made)
        # Locked only if the caller updates the row next.
        existing = (await connection.execute(found.with_for_update() if lock else found)).one_or_none()
        if existing is not None:
            return Written(_row(row, existing), created=False)
    raise Unavailable("Other clients created and deleted an object with this name at the same time; try again.")


async def change(
    connection: AsyncConnection,
    row: type[R],
    which: Mapping[str, Any],
    columns: Mapping[str, Any],
    now: Any,
    *,
    announced: bool = True,
) -> R | None:
    """Update columns of the row with this value of a unique column and return it as written; None if it is unknown.

    Without columns, the row is only read. An event tells of the update, as of other changes; without `announced`, the
    caller appends it.
    """
    ((key, value),) = which.items()
    # An update without changes writes nothing, so `updated` stays.
    if not columns:
        found = await fetch(connection, sa.select(*_table(row).columns).where(_table(row).c[key] == value))
        return row.of(zip(_table(row).columns.keys(), found[0], strict=True)) if found else None
    values = {**columns, "updated": now}
    updating = _updating(row, key, tuple(values))
    change = Change(row, "updated", updating, now, tuple(columns), announced)
    return await _written(connection, change, values | {KEY: value})


async def remove(connection: AsyncConnection, row: type[Row], id: UUID, now: datetime) -> None:
    """Delete a row, with an event as `insert`. Raise NotFound if it does not exist."""
    if await _written(connection, Change(row, "deleted", _deletion(row), now), {KEY: id}) is None:
        raise NotFound(id)


def _table(row: type[Row]) -> sa.Table:
    return row.__table__  # type: ignore[return-value]


def _row(row: type[R], found: sa.Row[Any]) -> R:
    return row.of(cast("Mapping[str, Any]", found._mapping))  # noqa: SLF001 the columns by name


def create(row: type[R], key: Sequence[str] = ("name",), existing: Existing = Existing.REFUSE) -> Callable[..., Any]:
    """Return the command that creates a row; `existing` is the handling of a row with the same key.

    A document with `overwrite: true` updates the existing row instead.
    """

    @command(row)
    async def run(context: CommandContext, document: BaseModel) -> Written[R]:
        # An option of the command is no column.
        columns = columns_of(document, without=("overwrite",))
        answer = Existing.UPDATE if getattr(document, "overwrite", False) else existing
        async with context.database.write() as transaction:
            connection = transaction.connection
            # The violated constraint becomes NameTaken in `command`.
            if answer is Existing.REFUSE:
                return Written(await insert(connection, row, fresh(context) | columns))
            found = await insert_or_find(connection, row, fresh(context) | columns, key, lock=answer is Existing.UPDATE)
            if found.created or answer is Existing.RETURN:
                return found
            changed = await change(connection, row, {"id": found.row.id}, columns, context.clock())
            return Written(changed or found.row, created=False)

    return run


def update(row: type[R]) -> Callable[..., Any]:
    """Return the command that updates the columns of a row that a document sets."""

    @command(row)
    async def run(context: CommandContext, document: BaseModel) -> R:
        async with context.database.write() as transaction:
            which = reference_of(document)
            changed = await change(transaction.connection, row, which, columns_of(document), context.clock())
        if changed is None:
            raise unknown(document)
        return changed

    return run


def delete(row: type[R]) -> Callable[..., Any]:
    """Return the command that deletes a row by its id."""

    @command(row)
    async def run(context: CommandContext, id: UUID) -> None:
        async with context.database.write() as transaction:
            await remove(transaction.connection, row, id, context.clock())

    return run
