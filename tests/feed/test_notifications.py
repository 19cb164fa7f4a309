"""Wake-ups between replicas: news arrives without polling, and polling is enough."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.feed import Hub, TransitionFilter, follow
from runstate.feed.notifications import Notifications
from tests.feed.conftest import NEVER
from tests.feed.factories import entry, states, write

pytestmark = pytest.mark.parametrize("kind", ["postgresql"])


@asynccontextmanager
async def replica(url: str, *, poll_seconds: float = NEVER) -> AsyncIterator[Hub]:
    """A hub as another process has it."""
    database = Database(url)
    hub = Hub(database, poll_seconds=poll_seconds, pause_seconds=0)
    assert hub.wakeup
    hub.wakeup.patience_seconds = 0.01
    await hub.start()
    await hub.wakeup.listening.wait()
    yield hub
    await hub.stop()
    await database.close()


async def test_a_replica_is_told_of_what_another_commits(url: str) -> None:
    async with replica(url) as here, replica(url) as there, aclosing(await follow(there, TransitionFilter())) as stream:
        await anext(stream)
        written = entry(uuid4())
        await write(here.database, written)
        here.notify()

        async with asyncio.timeout(10):
            assert states((await anext(stream)).transitions) == states([written])


async def test_many_commits_are_told_of_at_once(url: str) -> None:
    heard = asyncio.Queue[None]()
    database = Database(url)
    listening = Notifications(database, lambda: heard.put_nowait(None))
    telling = Notifications(database, lambda: None, every_seconds=NEVER)
    listening.start()
    telling.start()
    await heard.get()
    for _ in range(100):
        telling.tell()
    async with asyncio.timeout(10):
        await heard.get()
    await listening.stop()
    await telling.stop()
    await database.close()

    assert heard.empty()


async def test_a_replica_does_not_wake_itself(url: str) -> None:
    database = Database(url)
    woken = asyncio.Event()
    wakeup = Notifications(database, woken.set)
    wakeup.start()
    await wakeup.listening.wait()
    other = await asyncpg.connect(_address(url))
    heard = asyncio.Event()
    await other.add_listener("runstate_transitions", lambda *_: heard.set())
    woken.clear()
    wakeup.tell()
    await heard.wait()
    await other.execute("SELECT 1")

    assert not woken.is_set()
    await wakeup.stop()
    await other.close()
    await database.close()


async def test_a_lost_connection_is_made_again(url: str) -> None:
    async with replica(url) as here, replica(url) as there, aclosing(await follow(there, TransitionFilter())) as stream:
        await anext(stream)
        assert there.wakeup
        there.wakeup.listening.clear()
        await _end_listening(url)
        await there.wakeup.listening.wait()
        written = entry(uuid4())
        await write(here.database, written)
        here.notify()

        async with asyncio.timeout(10):
            assert states((await anext(stream)).transitions) == states([written])


async def test_without_wake_ups_polling_finds_everything(url: str) -> None:
    database = Database(url)
    hub = Hub(database, poll_seconds=0.01, wakeups=False)
    await hub.start()
    async with aclosing(await follow(hub, TransitionFilter())) as stream:
        await anext(stream)
        written = entry(uuid4())
        await write(database, written)

        assert states((await anext(stream)).transitions) == states([written])
    await hub.stop()
    await database.close()


async def _end_listening(url: str) -> None:
    connection = await asyncpg.connect(_address(url))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query LIKE 'NOTIFY%')"
    )
    await connection.close()


def _address(url: str) -> str:
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
