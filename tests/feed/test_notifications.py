"""Notifications between replicas: they avoid polling, and polling suffices without them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.feed import TRANSITIONS, Feed, TransitionFilter, follow
from runstate.feed.notifications import Notifications
from tests.feed.conftest import NEVER, QUIET
from tests.feed.factories import entry, insert, states, write

pytestmark = pytest.mark.parametrize("kind", ["postgresql"])

CHANNEL = "runstate_test"


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[Feed]:
    """Yield a feed like that of another process."""
    database = Database(url)
    feed = Feed(database, QUIET)
    feed.notifications.retry_seconds = 0.01
    await feed.start()
    await feed.notifications.listening.wait()
    yield feed
    await feed.stop()
    await database.close()


async def commit(database: Database) -> object:
    """Write an entry and notify the channel of the log; return the entry."""
    written = entry(uuid4())
    async with database.write() as transaction:
        await insert(transaction.connection, written)
        transaction.notify(TRANSITIONS.channel)
    return written


async def test_a_replica_is_notified_of_a_commit_of_another(url: str) -> None:
    async with (
        replica(url) as here,
        replica(url) as there,
        aclosing(await follow(there.transitions, TransitionFilter())) as stream,
    ):
        await anext(stream)
        written = await commit(here.transitions.database)

        async with asyncio.timeout(10):
            assert states((await anext(stream)).entries) == states([written])


async def test_many_commits_are_merged_into_one_notification(url: str) -> None:
    received = asyncio.Queue[None]()
    database, other = Database(url), Database(url)
    listening, sending = Notifications(database), Notifications(other, interval_seconds=NEVER)
    listening.subscribe(CHANNEL, lambda: received.put_nowait(None))
    listening.start()
    sending.start()
    await received.get()
    for _ in range(100):
        sending.notify(CHANNEL)
    async with asyncio.timeout(10):
        await received.get()
    await listening.stop()
    await sending.stop()
    await database.close()
    await other.close()

    assert received.empty()


async def test_channels_are_notified_separately(url: str) -> None:
    database, other = Database(url), Database(url)
    listening, sending = Notifications(database), Notifications(other)
    received = {name: asyncio.Event() for name in ("runstate_one", "runstate_two", "runstate_three")}
    for name, event in received.items():
        listening.subscribe(name, event.set)
    listening.start()
    sending.start()
    await listening.listening.wait()
    for event in received.values():
        event.clear()
    sending.notify("runstate_one")
    sending.notify("runstate_three")
    async with asyncio.timeout(10):
        await received["runstate_one"].wait()
        await received["runstate_three"].wait()

    assert not received["runstate_two"].is_set()
    await listening.stop()
    await sending.stop()
    await database.close()
    await other.close()


async def test_a_replica_receives_its_own_notification_once(url: str) -> None:
    database = Database(url)
    received: list[str] = []
    notifications = Notifications(database)
    notifications.subscribe(CHANNEL, lambda: received.append(CHANNEL))
    notifications.start()
    await notifications.listening.wait()
    other = await asyncpg.connect(_address(url))
    arrived = asyncio.Event()
    await other.add_listener(CHANNEL, lambda *_: arrived.set())
    received.clear()
    notifications.notify(CHANNEL)
    await arrived.wait()
    await other.execute("SELECT 1")

    assert received == [CHANNEL]
    await notifications.stop()
    await other.close()
    await database.close()


async def test_a_lost_connection_is_reopened(url: str) -> None:
    async with (
        replica(url) as here,
        replica(url) as there,
        aclosing(await follow(there.transitions, TransitionFilter())) as stream,
    ):
        await anext(stream)
        there.notifications.listening.clear()
        await _end_listening(url)
        await there.notifications.listening.wait()
        written = await commit(here.transitions.database)

        async with asyncio.timeout(10):
            assert states((await anext(stream)).entries) == states([written])


async def test_without_notifications_polling_finds_everything(url: str) -> None:
    database = Database(url)
    feed = Feed(database, replace(QUIET, poll_seconds=0.01))
    await feed.transitions.start()
    async with aclosing(await follow(feed.transitions, TransitionFilter())) as stream:
        await anext(stream)
        written = entry(uuid4())
        await write(database, written)

        assert states((await anext(stream)).entries) == states([written])
    await feed.stop()
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
