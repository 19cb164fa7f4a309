"""Problems for violated constraints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.references import referred_to
from runstate.database import Database
from runstate.database.constraints import is_dangling, is_taken, taken_key
from runstate.errors import InUse, NameTaken, NotFound, Problem
from runstate.rows import Row

MOST_USERS: Final = 100


async def problem_of(database: Database, row: type[Row], document: Any, error: IntegrityError) -> Problem | None:
    """Return the problem for a violated constraint.

    None means that the conflicting row has disappeared meanwhile, so a retry may succeed. An error without a matching
    problem is raised again.
    """
    table: sa.Table = row.__table__  # type: ignore[assignment]
    async with database.read() as connection:
        if is_taken(error) and (key := taken_key(error, table)):
            return await _name_taken(connection, row, document, key)
        if is_dangling(error):
            # A deletion has an id in place of a document.
            if isinstance(document, BaseModel):
                return await _not_found(connection, table, document)
            return await _in_use(connection, table, document)
    raise error


async def _name_taken(
    connection: AsyncConnection, row: type[Row], document: BaseModel, key: Sequence[sa.Column[Any]]
) -> NameTaken | None:
    same = (column == _value(row, document, column) for column in key)
    existing = (await connection.execute(sa.select(row.id).where(*same))).scalar()
    # The name is the last column of a composite key, as in (flow_id, name).
    return None if existing is None else NameTaken(existing, [key[-1].key])


def _value(row: type[Row], document: BaseModel, column: sa.Column[Any]) -> Any:
    """Return the value that the row would have had: that of the document, or the current one."""
    if column.key in document.model_fields_set:
        return getattr(document, column.key)
    return sa.select(column).where(referred_to(row, document)).scalar_subquery()


async def _not_found(connection: AsyncConnection, table: sa.Table, document: BaseModel) -> NotFound | None:
    for key in table.foreign_keys:
        value = getattr(document, key.parent.key, None)
        if value is not None and not await _exists(connection, key.column == value):
            return NotFound(value)
    return None


async def _exists(connection: AsyncConnection, clause: sa.ColumnElement[bool]) -> bool:
    return bool((await connection.execute(sa.select(sa.exists().where(clause)))).scalar())


async def _in_use(connection: AsyncConnection, table: sa.Table, id: UUID) -> InUse | None:
    users: list[UUID] = []
    for column in _referring(table):
        query = sa.select(column.table.c.id).where(column == id).limit(MOST_USERS - len(users))
        # Ids of some users are enough to show where to look.
        users += (await connection.execute(query)).scalars()
    return InUse(users) if users else None


def _referring(table: sa.Table) -> Iterator[sa.Column[Any]]:
    for other in table.metadata.sorted_tables:
        yield from (key.parent for key in other.foreign_keys if key.column.table is table)
