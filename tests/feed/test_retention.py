"""Retention: old entries are deleted, and a cursor that missed them is refused.

Tests take valid cursors after the checkpoint. An older one is refused even if nothing was logged in between, if a
transaction that it saw in progress has ended since, in any database of the server.
"""

from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.errors import CursorExpired
from runstate.feed import TRANSITIONS, Reader, prune_log
from runstate.feed.cursor import Cursor
from runstate.rows import LogCheckpoint, Transition
from tests.feed.factories import NOON, entry, insert, open_reader, read_all, states, write

DAY = timedelta(days=1)
WEEK = 7 * DAY
postgresql_only = pytest.mark.parametrize("kind", ["postgresql"])


async def left(database: Database) -> int:
    async with database.read() as connection:
        return int(await connection.scalar(sa.select(sa.func.count()).select_from(Transition)) or 0)


async def expired(reader: Reader[Transition], cursor: Cursor) -> Cursor:
    """Return the oldest valid cursor."""
    with pytest.raises(CursorExpired) as refused:
        await reader.page(cursor)
    return reader.decode(refused.value.oldest)


async def test_recent_entries_stay(database: Database) -> None:
    reader = await open_reader(database)
    start = Cursor(await reader.position())
    await write(database, entry(uuid4()))

    assert await prune_log(database, TRANSITIONS, NOON, WEEK) == 0
    assert await prune_log(database, TRANSITIONS, NOON + WEEK - DAY, WEEK) == 0
    assert len((await read_all(reader, start)).entries) == 1


async def test_old_entries_are_deleted_and_later_ones_stay(database: Database) -> None:
    reader = await open_reader(database)
    old = [entry(uuid4()) for _ in range(5)]
    await write(database, *old)
    await prune_log(database, TRANSITIONS, NOON, WEEK)
    between = Cursor(await reader.position())
    new = entry(uuid4())
    await write(database, new)

    assert await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK) == 5
    assert await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK) == 0
    assert states((await read_all(reader, between)).entries) == states([new])


async def test_a_cursor_that_missed_entries_is_refused_with_the_oldest_valid_one(database: Database) -> None:
    reader = await open_reader(database)
    start = Cursor(await reader.position())
    await write(database, entry(uuid4()))
    await prune_log(database, TRANSITIONS, NOON, WEEK)
    new = entry(uuid4())
    await write(database, new)
    await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK)

    assert states((await read_all(reader, await expired(reader, start))).entries) == states([new])


async def test_a_cursor_in_the_middle_of_deleted_entries_is_refused(database: Database) -> None:
    reader = await open_reader(database, page_size=2)
    start = Cursor(await reader.position())
    await write(database, *(entry(uuid4()) for _ in range(5)))
    middle = (await reader.page(start)).cursor
    await prune_log(database, TRANSITIONS, NOON, WEEK)
    await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK)

    await expired(reader, middle)


async def test_an_emptied_log_continues_its_numbers(database: Database) -> None:
    reader = await open_reader(database)
    await write(database, *(entry(uuid4()) for _ in range(3)))
    await prune_log(database, TRANSITIONS, NOON, WEEK)
    before = Cursor(await reader.position())
    await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK)
    assert await left(database) == 0

    now = Cursor(await reader.position())
    written = entry(uuid4())
    await write(database, written)

    assert now.seen.covers(before.seen)
    for cursor in (before, now):
        assert states((await read_all(reader, cursor)).entries) == states([written])


async def test_many_entries_are_deleted_in_batches(database: Database) -> None:
    await write(database, *(entry(uuid4()) for _ in range(10)))
    await prune_log(database, TRANSITIONS, NOON, WEEK)

    assert await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK, batch_size=3) == 10
    assert await left(database) == 0


async def test_old_checkpoints_are_deleted(database: Database) -> None:
    for day in range(20):
        await write(database, entry(uuid4()))
        await prune_log(database, TRANSITIONS, NOON + day * DAY, WEEK)

    async with database.read() as connection:
        notes = (await connection.scalars(sa.select(LogCheckpoint.at).order_by(LogCheckpoint.at))).all()
    assert notes == [NOON + day * DAY for day in range(12, 20)]
    assert await left(database) == 7


@postgresql_only
async def test_an_entry_that_commits_after_the_checkpoint_stays(database: Database) -> None:
    reader = await open_reader(database)
    late = entry(uuid4())
    async with database.write() as slow:
        await insert(slow.connection, late)
        await write(database, entry(uuid4()))
        await prune_log(database, TRANSITIONS, NOON, WEEK)
        cursor = Cursor(await reader.position())

    assert await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK) == 1
    assert states((await read_all(reader, cursor)).entries) == states([late])
