"""Each kind of work has its own connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database, lanes
from runstate.database.driver import fetch, pace_of
from runstate.database.lanes import Lane, Pace, QueryLanes
from runstate.errors import Overloaded
from runstate.rows import Flow

ANY = sa.select(Flow.id)


def kinds(number: int) -> list[Any]:
    """Return statements that differ in more than values."""
    return [sa.select(Flow.id, *(sa.literal(each) for each in range(place))) for place in range(1, number + 1)]


async def learn(database: Database, *statements: Any) -> None:
    """Execute statements so that their duration is known."""
    for statement in statements:
        async with database.query(statement) as connection:
            await fetch(connection, statement)


@asynccontextmanager
async def every_query_connection(database: Database) -> AsyncIterator[None]:
    """Hold all connections for queries of clients."""
    async with AsyncExitStack() as held:
        for statement in kinds(40):
            if database.query_lanes.fast.slots.locked():
                break
            await held.enter_async_context(database.query(statement))
        assert database.query_lanes.fast.slots.locked()
        yield


async def test_queries_do_not_delay_other_work(database: Database) -> None:
    async with every_query_connection(database), asyncio.timeout(30):
        for lane in (database, database.feed, database.health, database.keys, database.subscriptions):
            async with lane.read() as connection:
                assert await fetch(connection, ANY) == []
        for lane in (database, database.batches):
            async with lane.write() as transaction:
                await transaction.connection.execute(sa.delete(Flow))


async def test_a_query_beyond_the_queue_is_refused_early(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.query_lanes.fast, "patience_seconds", 0.01)
    async with every_query_connection(database):
        with pytest.raises(Overloaded):
            await learn(database, ANY)
    await learn(database, ANY)


async def test_one_slow_kind_of_query_does_not_use_every_connection(database: Database) -> None:
    await learn(database, ANY)
    async with AsyncExitStack() as held:
        while not pace_of(database.reader.dialect, ANY).lane.slots.locked():
            await held.enter_async_context(database.query(ANY))
        async with asyncio.timeout(30):
            await learn(database, *kinds(3))


async def test_slow_queries_share_few_connections_and_fast_ones_have_the_others() -> None:
    query_lanes, slow, fast = QueryLanes(4), Pace(), Pace()
    slow.note(2 * lanes.SLOW_SECONDS)
    fast.note(lanes.SLOW_SECONDS / 2)
    async with AsyncExitStack() as held:
        for _ in range(lanes.SLOW_QUERIES):
            await held.enter_async_context(query_lanes.turn(slow))
        assert query_lanes.slow.slots.locked()
        async with asyncio.timeout(30), query_lanes.turn(fast):
            assert not query_lanes.fast.slots.locked()


def test_a_fast_query_is_not_slow_because_it_once_waited_for_a_lock() -> None:
    pace = Pace()
    for seconds in (0.002, 10):
        pace.note(seconds)
    assert not pace.is_slow
    for _ in range(10):
        pace.note(10)
    assert pace.is_slow


async def test_queries_beyond_the_queue_are_refused_immediately() -> None:
    lane = Lane(1, waiting=1)
    async with lane.turn():
        waiting = asyncio.create_task(lane.turn().__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await lane.turn().__aenter__()
    await waiting
