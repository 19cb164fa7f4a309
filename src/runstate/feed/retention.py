"""Retention: deletion of old log entries."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import insert_or_replace, insert_or_skip
from runstate.database.queries.expiry import BATCH_SIZE, delete_in_batches
from runstate.feed.cursor import Position
from runstate.feed.log import Log, all_logs
from runstate.feed.reader import Reader
from runstate.feed.visibility import visibility_of
from runstate.rows import Installation, LogCheckpoint, LogFloor, StoredEvent, StoredEventResource


async def prune_logs(database: Database, now: datetime, settings: Mapping[str, float]) -> int:
    """Delete the expired entries of every log with a retention, and return their number."""
    deleted = 0
    for log in all_logs():
        retention = log.row.__retention__
        period = retention.period(settings) if retention else None
        if period is not None:
            deleted += await prune_log(database, log, now, period)
    await delete_resources_of_deleted_events(database)
    return deleted


async def prune_log(
    database: Database, log: Log[Any], now: datetime, keep: timedelta, batch_size: int = BATCH_SIZE
) -> int:
    """Delete the entries of a log that became visible longer than *keep* ago, and return their number.

    Each call stores the end of the log as a checkpoint. The newest checkpoint older than *keep* becomes the floor of
    the log; then exactly the entries that were visible at the floor are deleted. A cursor is compared with the floor to
    detect that it has not read some of the deleted entries.
    """
    reader = await Reader.open(database, log)
    await _add_checkpoint(reader, now)
    floor = await _raise_floor(database, log, now - keep)
    # The floor is committed before the deletion, so that no cursor misses entries unnoticed.
    return 0 if floor is None else await _delete(reader, floor, batch_size)


async def _add_checkpoint(reader: Reader[Any], now: datetime) -> None:
    position = await reader.position()
    columns = {"log": reader.log.name, "at": now, "upper_bound": position.xmax, "position": position.text()}
    async with reader.database.write() as transaction:
        # Another server may have stored a checkpoint of the same time.
        checkpoint = insert_or_skip(transaction.connection.dialect.name, table_of(LogCheckpoint))
        await transaction.connection.execute(checkpoint, columns)


async def _raise_floor(database: Database, log: Log[Any], until: datetime) -> Position | None:
    """Make the newest checkpoint that is old enough the floor, and return its position."""
    of_log = LogCheckpoint.log == log.name
    newest = sa.select(LogCheckpoint.at, LogCheckpoint.position).where(of_log, LogCheckpoint.at <= until)
    async with database.write() as transaction:
        connection = transaction.connection
        # The lock prevents another server with an older checkpoint from lowering the floor.
        await connection.execute(sa.select(Installation.id).with_for_update())
        checkpoint = (await connection.execute(newest.order_by(LogCheckpoint.at.desc()).limit(1))).one_or_none()
        if checkpoint is None:
            return None
        floor = insert_or_replace(connection.dialect.name, table_of(LogFloor), ("log",), ["position"])
        await connection.execute(floor, {"log": log.name, "position": checkpoint.position})
        # No cursor is valid before the floor, so older checkpoints are useless.
        await connection.execute(sa.delete(LogCheckpoint).where(of_log, LogCheckpoint.at < checkpoint.at))
        return Position.parse(checkpoint.position)


async def _delete(reader: Reader[Any], floor: Position, batch_size: int) -> int:
    return sum([await _delete_part(reader, table, floor, batch_size) for table in reader.log.parts])


async def _delete_part(reader: Reader[Any], table: sa.Table, floor: Position, batch_size: int) -> int:
    visibility = visibility_of(reader.database, table)
    how: dict[str, Any] = {"order": [visibility.order], "values": visibility.values("floor", floor)}
    clauses = visibility.prunable("floor")
    return sum(
        [await delete_in_batches(reader.database, table, each, batch_size=batch_size, **how) for each in clauses]
    )


async def delete_resources_of_deleted_events(database: Database) -> None:
    """Delete the related resources of events that retention has deleted."""
    event, resource = table_of(StoredEvent), table_of(StoredEventResource)
    oldest = sa.select(event.c.seq).order_by(event.c.seq).limit(1).scalar_subquery()
    # Without events, all resources of the moment are left over.
    newest = sa.select(resource.c.event_seq + 1).order_by(resource.c.event_seq.desc()).limit(1).scalar_subquery()
    async with database.read() as connection:
        first = await connection.scalar(sa.select(sa.func.coalesce(oldest, newest)))
    if first is not None:
        await delete_in_batches(database, resource, resource.c.event_seq < first, order=[resource.c.event_seq])
