"""Forgetting what is older than cursors last."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.dialects import insert_or_skip
from runstate.feed.cursor import Position
from runstate.feed.installation import identify
from runstate.feed.reader import Reader
from runstate.feed.visibility import log
from runstate.rows import Installation, LogCheckpoint

AT_ONCE = 1_000


async def sweep_log(database: Database, now: datetime, keep: timedelta) -> int:
    """Delete the entries of the log that were there at a moment longer ago than *keep*; the number deleted.

    Each time, the end of the log is noted. What was there at the newest note that is old enough goes, and nothing else:
    so the note tells of every cursor whether something that it has not seen is gone. It is kept before anything goes.
    """
    reader = Reader(database, await identify(database))
    await _note(reader, now)
    floor = await _raise_floor(database, now - keep)
    return 0 if floor is None else await _delete(reader, floor)


async def _note(reader: Reader, now: datetime) -> None:
    position = await reader.position()
    async with reader.database.write() as transaction:
        note = insert_or_skip(transaction.connection.dialect.name, LogCheckpoint.__table__)  # type: ignore[arg-type]
        await transaction.connection.execute(note, {"at": now, "reaches": position.xmax, "position": position.text()})


async def _raise_floor(database: Database, until: datetime) -> Position | None:
    """The newest note that is old enough; under a lock, so that the floor never sinks."""
    async with database.write() as transaction:
        connection = transaction.connection
        await connection.execute(sa.select(Installation.id).with_for_update())
        newest = sa.select(LogCheckpoint).where(LogCheckpoint.at <= until).order_by(LogCheckpoint.at.desc()).limit(1)
        mark = (await connection.execute(newest)).one_or_none()
        if mark is None:
            return None
        await connection.execute(sa.update(Installation).values(floor=mark.position))
        await connection.execute(sa.delete(LogCheckpoint).where(LogCheckpoint.at < mark.at))
        return Position.parse(mark.position)


async def _delete(reader: Reader, floor: Position) -> int:
    values = reader.sight.values("floor", floor)
    return sum([await _delete_those(reader, clause, values) for clause in reader.sight.old("floor")])


async def _delete_those(reader: Reader, clause: sa.ColumnElement[bool], values: dict[str, Any]) -> int:
    oldest = sa.select(log.c.seq).where(clause).order_by(reader.sight.order).limit(AT_ONCE)
    some = sa.delete(log).where(log.c.seq.in_(oldest))
    deleted = 0
    while True:
        async with reader.database.write() as transaction:
            gone = (await transaction.connection.execute(some, values)).rowcount
        deleted += gone
        if gone < AT_ONCE:
            return deleted
