"""Live queries: executed once for all subscribers, and again only after a commit."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.errors import ServerRestarting
from runstate.feed.live_queries import LiveQueries
from runstate.rows import Flow
from tests.feed.conftest import NEVER
from tests.graphql.factories import make_flow, store

FLOWS = sa.select(sa.func.count()).select_from(Flow)
MISSING = sa.select(sa.func.count()).select_from(sa.table("missing"))


class Snapshot:
    """A snapshot that tests change."""

    text = "1"


@pytest.fixture
def snapshot() -> Snapshot:
    """Return the snapshot of the database."""
    return Snapshot()


@pytest.fixture
async def live(database: Database, snapshot: Snapshot) -> AsyncIterator[LiveQueries]:
    """Yield live queries that are executed only when they are notified, and then immediately."""
    live = LiveQueries(database, lambda: snapshot.text, pause_seconds=0, rest_seconds=NEVER)
    yield live
    live.close()


async def taken(*streams: AsyncGenerator[Any, None]) -> list[Any]:
    """Return the next rows of each stream."""
    async with asyncio.timeout(30):
        return await asyncio.gather(*(anext(each) for each in streams))


async def looked(live: LiveQueries) -> None:
    """Wait until an execution that starts from now on has ended."""
    stream = live.rows(FLOWS)
    await taken(stream)
    await stream.aclose()


async def test_subscribers_to_the_same_query_share_each_execution(database: Database, live: LiveQueries) -> None:
    streams = [live.rows(sa.select(sa.func.count()).select_from(Flow)) for _ in range(20)]
    other = live.rows(FLOWS.where(Flow.name == "a"))

    assert await taken(*streams, other) == [[[0]]] * 21
    reads = database.statements
    await store(database, make_flow())
    written = database.statements - reads
    live.refresh()
    assert await taken(*streams) == [[[1]]] * 20

    assert len(live.queries) == 2
    assert database.statements - reads - written <= 2  # one for each query
    for each in (*streams, other):
        await each.aclose()


async def test_a_new_subscriber_sees_earlier_commits(database: Database, live: LiveQueries) -> None:
    async with aclosing(live.rows(FLOWS)) as first:
        assert await taken(first) == [[[0]]]
        await store(database, make_flow())
        async with aclosing(live.rows(FLOWS)) as second:
            assert await taken(second) == [[[1]]]
        assert await taken(first) == [[[1]]]


async def test_no_statement_is_executed_without_a_commit(database: Database, live: LiveQueries) -> None:
    live.rest_seconds = 0.001
    async with aclosing(live.rows(FLOWS)) as stream:
        await taken(stream)
        reads = database.statements
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.1)

        assert database.statements == reads


async def test_a_commit_without_a_notification_is_found_after_an_interval(
    database: Database, live: LiveQueries, snapshot: Snapshot
) -> None:
    live.rest_seconds = 0.001
    async with aclosing(live.rows(FLOWS)) as stream:
        await taken(stream)
        await store(database, make_flow())
        snapshot.text = "2"

        assert await taken(stream) == [[[1]]]


async def test_unchanged_rows_are_not_repeated(database: Database, live: LiveQueries) -> None:
    async with aclosing(live.rows(FLOWS)) as stream:
        await taken(stream)
        waiting = asyncio.ensure_future(anext(stream))
        live.refresh()
        await looked(live)
        assert not waiting.done()
        await store(database, make_flow())
        live.refresh()

        assert await waiting == [[1]]


async def test_a_query_without_subscribers_is_no_longer_executed(live: LiveQueries) -> None:
    one, other = live.rows(FLOWS), live.rows(FLOWS)
    await taken(one, other)
    (query,) = live.queries.values()
    await one.aclose()
    assert not query.task.done()
    await other.aclose()
    await asyncio.wait([query.task])

    assert query.task.cancelled()
    assert live.queries == {}


async def test_a_failed_execution_ends_every_subscription_and_a_new_one_starts_again(live: LiveQueries) -> None:
    streams = [live.rows(MISSING) for _ in range(3)]
    found = await asyncio.gather(*(anext(each) for each in streams), return_exceptions=True)

    assert [type(each) for each in found] == [sa.exc.DBAPIError] * 3
    assert live.queries == {}
    with pytest.raises(sa.exc.DBAPIError):
        await taken(live.rows(MISSING))


async def test_subscribers_are_notified_of_the_shutdown(live: LiveQueries) -> None:
    async with aclosing(live.rows(FLOWS)) as stream:
        await taken(stream)
        live.close()
        with pytest.raises(ServerRestarting):
            await taken(stream)
