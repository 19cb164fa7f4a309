"""Queries for `runstate verify`: a snapshot of the database, and the first rows that a check finds."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.rows import LogCheckpoint, LogFloor, Transition

CLOCK_TOLERANCE: Final = timedelta(minutes=2)
"""Largest difference between the clocks of servers, plus the longest transaction."""


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    """Yield a read-only connection on which all statements see the same moment, without a statement timeout."""
    async with database.reader.connect() as connection:
        if not database.is_sqlite:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            # LOCAL, so that the connection returns to the pool with its own timeout.
            await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        await connection.execution_options(patient=True)
        yield connection


async def first(
    connection: AsyncConnection, ids: sa.Select[Any], at_most: int, values: Mapping[str, Any]
) -> tuple[int, list[str]]:
    """Return the number of distinct ids that a query selects, and the first of them as text."""
    found = ids.distinct().subquery()
    (column,) = found.columns
    limited = sa.select(column, sa.func.count().over()).order_by(column).limit(at_most)
    pairs = [(count, str(each)) for each, count in await connection.execute(limited, dict(values))]
    return (pairs[0][0] if pairs else 0), [each for _, each in pairs]


async def logged_since(connection: AsyncConnection) -> datetime | None:
    """Return the time from which on every state has an entry in the log of transitions; None if it is unknown."""
    log = Transition.__tablename__
    if await connection.scalar(sa.select(LogFloor.position).where(LogFloor.log == log)) is None:
        return await connection.scalar(sa.select(sa.func.min(Transition.occurred)))
    oldest = await connection.scalar(sa.select(sa.func.min(LogCheckpoint.at)).where(LogCheckpoint.log == log))
    return oldest + CLOCK_TOLERANCE if oldest else None
