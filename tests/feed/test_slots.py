"""Waiters for slots: every process wakes them, few for each free slot, with one statement for all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from uuid_utils.compat import uuid7

from runstate.database import Database
from runstate.errors import ServerRestarting
from runstate.feed import SLOTS, Feed, FreeSlots
from runstate.feed.notifications import Notifications
from runstate.feed.slots import SlotWaiter, SlotWatch
from runstate.rows import ConcurrencyLimit
from tests.feed.conftest import NEVER
from tests.graphql.factories import make_deployment, make_flow, store

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def make_limit(database: Database, name: str, limit: int = 1, **columns: Any) -> None:
    """Store a limit."""
    row = {"id": uuid7(), "created": NOW, "updated": NOW, "name": name, "limit": limit, "active": True}
    numbers = {"occupied": 0, "slot_decay_per_second": 0.0, "average_slot_occupancy_seconds": 2.0}
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(ConcurrencyLimit).values({**row, **numbers, **columns}))


async def occupy(database: Database, name: str, slots: int, *, minute: int, notify: bool = False) -> None:
    """Change the number of occupied slots at a minute, as a batch does."""
    changed = {"occupied": slots, "updated": NOW + timedelta(minutes=minute)}
    async with database.write() as transaction:
        await transaction.connection.execute(
            sa.update(ConcurrencyLimit).where(ConcurrencyLimit.name == name).values(changed)
        )
        if notify:
            transaction.notify(SLOTS)


def watch_of(database: Database, interval_seconds: float = NEVER) -> SlotWatch:
    """Return a watch that does not read by itself yet."""
    return SlotWatch(database, Notifications(database), wait_seconds=interval_seconds, pause_seconds=0)


@pytest.fixture
def watch(database: Database) -> SlotWatch:
    """Return a watch that reads only when a test has it read."""
    return watch_of(database)


@pytest.fixture
async def awake(database: Database) -> AsyncIterator[SlotWatch]:
    """Yield a watch that reads when it is notified."""
    watch = watch_of(database)
    watch.start()
    yield watch
    await watch.stop()


def wait(watch: SlotWatch, *names: str) -> SlotWaiter:
    """Return a new waiter."""
    waiter = SlotWaiter(names)
    watch.waiters.append(waiter)
    return waiter


async def woken(watch: SlotWatch, waiters: list[SlotWaiter]) -> list[int]:
    """Return the places of the waiters that a read wakes."""
    for each in waiters:
        each.news.clear()
    await watch.look()
    return [place for place, each in enumerate(waiters) if each.news]


async def test_the_limit_of_a_deployment_with_the_same_name_wakes_nobody(watch: SlotWatch) -> None:
    flow = make_flow()
    deployment = make_deployment(flow)
    await store(watch.database, flow, deployment)
    await make_limit(watch.database, "db", occupied=1)
    await make_limit(watch.database, "db", deployment_id=deployment.id)

    assert await woken(watch, [wait(watch, "db")]) == []


async def test_a_waiter_is_woken_at_the_notification_of_a_release(awake: SlotWatch) -> None:
    await make_limit(awake.database, "db", occupied=1)
    async with aclosing(awake.follow(["db"])) as stream:
        event = asyncio.ensure_future(anext(stream))
        await awake.look()
        assert not event.done()
        await occupy(awake.database, "db", 0, minute=1, notify=True)
        assert await event == [FreeSlots(name="db", slots=1)]


async def test_a_waiter_is_woken_without_a_notification_at_the_next_read(database: Database) -> None:
    watch = watch_of(database, interval_seconds=0.01)
    watch.start()
    await make_limit(database, "db", occupied=1)
    async with aclosing(watch.follow(["db"])) as stream:
        event = asyncio.ensure_future(anext(stream))
        await occupy(database, "db", 0, minute=1)
        assert await event == [FreeSlots(name="db", slots=1)]
    await watch.stop()


async def test_a_waiter_is_woken_by_a_release_in_another_process(feed: Feed, url: str) -> None:
    if feed.slots.database.is_sqlite:
        pytest.skip("SQLite has one process.")
    feed.notifications.start()
    feed.slots.wait_seconds = NEVER
    await feed.notifications.listening.wait()
    other = Database(url)
    elsewhere = Feed(other)
    await elsewhere.start()
    await make_limit(other, "db", occupied=1)
    async with aclosing(feed.slots.follow(["db"])) as stream:
        event = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await occupy(other, "db", 0, minute=1, notify=True)
        assert await event == [FreeSlots(name="db", slots=1)]
    await elsewhere.stop()
    await other.close()


async def test_the_first_event_has_what_is_free_already_and_what_nothing_limits(awake: SlotWatch) -> None:
    await make_limit(awake.database, "db", 3, occupied=1)
    await make_limit(awake.database, "full", 3, occupied=4)
    await make_limit(awake.database, "off", 0, active=False)
    await make_limit(awake.database, "rate", 2, slot_decay_per_second=1.0, drained=NOW)
    await make_limit(awake.database, "drained later", 2, slot_decay_per_second=1.0, drained=NOW.replace(year=3000))
    async with aclosing(awake.follow(["db", "full", "off", "rate", "drained later", "unknown"])) as stream:
        assert await anext(stream) == [
            FreeSlots(name="db", slots=2),
            FreeSlots(name="off", slots=None),
            FreeSlots(name="rate", slots=2),
            FreeSlots(name="unknown", slots=None),
        ]


async def test_two_waiters_are_woken_for_each_free_slot_and_others_if_it_stays_free(watch: SlotWatch) -> None:
    await make_limit(watch.database, "db", 5, occupied=4)
    waiters = [wait(watch, "db") for _ in range(5)]

    assert [await woken(watch, waiters) for _ in range(4)] == [[0, 1], [2, 3], [4], []]
    await occupy(watch.database, "db", 5, minute=1)
    assert await woken(watch, waiters) == []
    await occupy(watch.database, "db", 3, minute=2)
    assert await woken(watch, waiters) == [0, 1, 2, 3]
    await occupy(watch.database, "db", 4, minute=3)
    assert await woken(watch, waiters) == [0, 4]


async def test_all_waiters_are_read_for_together_and_nothing_is_read_while_nobody_waits(watch: SlotWatch) -> None:
    before = watch.database.statements
    await watch.look()
    assert watch.database.statements == before

    for name in ("a", "b", "c"):
        await make_limit(watch.database, name)
        for _ in range(20):
            wait(watch, name, "x")
    before = watch.database.statements
    await watch.look()
    assert watch.database.statements - before == 1


async def test_a_waiter_that_leaves_is_forgotten_and_the_others_end_with_the_server(database: Database) -> None:
    watch = watch_of(database)
    watch.start()
    await make_limit(database, "db")
    async with aclosing(watch.follow(["db"])) as stream:
        await anext(stream)
    assert not watch.waiters

    stream = watch.follow(["db"])
    await anext(stream)
    await watch.stop()
    with pytest.raises(ServerRestarting):
        await anext(stream)
