"""Deletion of expired rows, in bounded batches."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.rows import Base, LogEntry, Retention, row_classes
from runstate.rows.base import EPOCH

BATCH_SIZE: Final = 1_000
"""Rows that one transaction of a service deletes or changes."""
REST: Final = 4
"""Pause between two batches of a table that grows with each line, in durations of a batch: writers keep their speed."""


async def delete_expired(database: Database, now: datetime, settings: Mapping[str, float]) -> int:
    """Delete the rows that have expired according to the retention of their class, and return their number."""
    deleted = 0
    # Tables with pauses come last.
    for row, retention in sorted(retentions().items(), key=lambda each: getattr(each[0], "__numerous__", False)):
        period = retention.period(settings)
        # `runstate.feed.retention` deletes log entries by position: a time would cut gaps into a log.
        if period is not None and not issubclass(row, LogEntry):
            table = table_of(row)
            for clause in _expired(table, retention, now - period):
                rest = REST if getattr(row, "__numerous__", False) else 0
                deleted += await delete_in_batches(database, table, clause, rest=rest)
    return deleted


def _expired(table: sa.Table, retention: Retention, before: datetime) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of expired rows, in the order in which these rows are deleted."""
    expired = table.c[retention.column] < (first_id(before) if retention.column == "id" else before)
    if retention.replaces is None:
        return [expired]
    other, key = table.alias(), retention.replaces
    same = other.c[key] == table.c[key]
    newer = sa.tuple_(other.c.created, other.c.id) > sa.tuple_(table.c.created, table.c.id)
    with_expired = table.c[key].in_(sa.select(other.c[key]).where(other.c[retention.column] < before))
    return [with_expired & sa.exists().where(same, newer), expired & ~sa.exists().where(same, other.c.id != table.c.id)]


def first_id(at: datetime) -> UUID:
    """Return the smallest UUID of version 7 that is made at a time or later."""
    return UUID(int=(at - EPOCH) // timedelta(milliseconds=1) << 80)


async def delete_in_batches(
    database: Database,
    table: sa.Table,
    clause: sa.ColumnElement[bool],
    *,
    order: Sequence[sa.ColumnElement[Any]] = (),
    values: Mapping[str, Any] | None = None,
    batch_size: int = BATCH_SIZE,
    rest: float = 0,
) -> int:
    """Delete the rows that meet a condition, each batch in its own transaction, and return their number.

    After a batch, pause for `rest` times its duration.
    """
    keys = sa.select(*table.primary_key).where(clause).order_by(*order).limit(batch_size)
    # Rows that another server is deleting are skipped, so that two servers do not wait for each other.
    batch = sa.delete(table).where(_key(table).in_(keys.with_for_update(skip_locked=True)))
    deleted = 0
    while True:
        began = time.monotonic()
        # On SQLite, a long transaction would block all other writers.
        async with database.write() as transaction:
            count = (await transaction.connection.execute(batch, dict(values or {}))).rowcount
        deleted += count
        if count < batch_size:
            return deleted
        await asyncio.sleep(rest * (time.monotonic() - began))


def _key(table: sa.Table) -> sa.ColumnElement[Any]:
    (first, *others) = table.primary_key
    return sa.tuple_(first, *others) if others else first


def retentions() -> dict[type[Base], Retention]:
    """Return the row classes whose rows expire."""
    return {row: row.__retention__ for row in row_classes() if row.__retention__}


def retention_settings() -> set[str]:
    """Return the names of all settings that retentions use."""
    return {each.setting for each in retentions().values() if each.setting}
