"""Hubs and streams: subscribers receive each matching entry once and in order, also after reconnects and restarts."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
import structlog
from typing_extensions import override

from runstate.database import Database
from runstate.errors import CursorExpired, InvalidInput, ServerRestarting, SlowConsumer, Unavailable
from runstate.feed import EVERYTHING, TRANSITIONS, Hub, LogFilter, Page, Reader, TransitionFilter, follow, prune_log
from runstate.feed.cursor import Cursor, Position
from runstate.feed.notifications import Notifications
from runstate.feed.subscriber import BUFFER_SIZE
from runstate.rows import Transition
from tests.feed.conftest import NEVER, QUIET
from tests.feed.factories import NOON, Writers, end, entry, states, write


@asynccontextmanager
async def running(database: Database, **settings: float) -> AsyncIterator[Hub[Transition]]:
    """Yield a hub with the given settings."""
    hub = Hub(database, TRANSITIONS, Notifications(database), replace(QUIET, **settings))
    await hub.start()
    yield hub
    await hub.stop()


async def commit(hub: Hub[Transition], *entries: dict[str, Any]) -> None:
    """Write entries like this replica: notify after the commit."""
    async with hub.database.write() as transaction:
        await transaction.connection.execute(Transition.__table__.insert(), list(entries))  # type: ignore[attr-defined]
        transaction.notify(TRANSITIONS.channel)


async def take(stream: AsyncGenerator[Page[Transition], None], number: int) -> list[Transition]:
    """Return the next transitions."""
    taken: list[Transition] = []
    while len(taken) < number:
        taken += (await anext(stream)).entries
    return taken


async def joined(hub: Hub[Transition]) -> None:
    """Wait until every subscriber is offered new entries."""
    while any(subscriber.is_behind for subscriber in hub.subscribers):
        await hub.join()


def kept(hub: Hub[Transition], page: Page[Transition]) -> str:
    """Return the cursor that a client would store."""
    return hub.reader.encode(page.cursor)


async def test_the_first_page_arrives_immediately_and_is_empty(hub: Hub[Transition]) -> None:
    await write(hub.database, entry(uuid4()))

    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        assert (await anext(stream)).entries == []


async def test_a_commit_is_delivered_without_waiting_for_the_next_poll(hub: Hub[Transition]) -> None:
    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        await anext(stream)
        written = entry(uuid4())
        await commit(hub, written)

        assert states(await take(stream, 1)) == states([written])


async def test_commits_without_a_notification_are_found_by_polling(database: Database) -> None:
    async with running(database, poll_seconds=0.01) as hub, aclosing(await follow(hub, EVERYTHING)) as stream:
        await anext(stream)
        written = entry(uuid4())
        await write(database, written)

        assert states(await take(stream, 1)) == states([written])


async def test_a_stream_after_a_cursor_has_the_entries_since_then_and_new_ones(hub: Hub[Transition]) -> None:
    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        cursor = kept(hub, await anext(stream))
    old = [entry(uuid4()) for _ in range(250)]
    await commit(hub, *old)

    async with aclosing(await follow(hub, EVERYTHING, cursor)) as stream:
        found = await take(stream, 250)
        new = entry(uuid4())
        await commit(hub, new)
        found += await take(stream, 1)

    assert states(found) == states([*old, new])


async def test_a_page_has_at_most_a_hundred_transitions(hub: Hub[Transition]) -> None:
    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        await anext(stream)
        await commit(hub, *(entry(uuid4()) for _ in range(250)))

        sizes = [len((await anext(stream)).entries) for _ in range(3)]

    assert sizes == [100, 100, 50]


async def test_each_subscriber_receives_its_matching_entries(hub: Hub[Transition]) -> None:
    flow_run, task_run, other = uuid4(), uuid4(), uuid4()
    wishes: dict[str, LogFilter[Transition]] = {
        "run": TransitionFilter(run_ids=frozenset({task_run})),
        "flow run": TransitionFilter(flow_run_ids=frozenset({flow_run})),
        "everything": EVERYTHING,
        "nothing": TransitionFilter(run_ids=frozenset()),
    }
    streams = {name: await follow(hub, wanted) for name, wanted in wishes.items()}
    for stream in streams.values():
        await anext(stream)
    waiting = {name: asyncio.ensure_future(anext(stream)) for name, stream in streams.items()}
    await joined(hub)
    await commit(hub, entry(flow_run), entry(task_run, flow_run_id=flow_run), entry(other))
    await asyncio.wait([waiting[name] for name in ("run", "flow run", "everything")])

    received = {name: [each.run_id for each in task.result().entries] for name, task in waiting.items() if task.done()}
    assert received == {"run": [task_run], "flow run": [flow_run, task_run], "everything": [flow_run, task_run, other]}
    waiting["nothing"].cancel()


async def test_a_delivery_takes_no_statement(hub: Hub[Transition]) -> None:
    run = uuid4()
    streams = [await follow(hub, TransitionFilter(run_ids=frozenset({run}))) for _ in range(20)]
    for stream in streams:
        await anext(stream)
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await commit(hub, entry(run))
    await asyncio.wait(waiting)
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await joined(hub)
    before = hub.database.statements
    await commit(hub, entry(run, 2))
    await asyncio.wait(waiting)

    assert hub.database.statements - before <= 6  # BEGIN, the insert, and one or two reads of the hub
    for stream in streams:
        await stream.aclose()


async def test_without_subscribers_the_log_is_not_read(hub: Hub[Transition]) -> None:
    read: list[str] = []
    sa.event.listen(hub.database.reader.sync_engine, "before_cursor_execute", lambda *given: read.append(given[2]))
    await commit(hub, *(entry(uuid4()) for _ in range(3)))
    assert [statement for statement in read if not statement.startswith(("BEGIN", "INSERT"))] == []

    end = await hub.join()
    assert end.top == (await hub.reader.position()).top
    assert [statement for statement in read if "transition.message" in statement] == []


async def test_a_live_query_is_read_again_without_a_poll(hub: Hub[Transition]) -> None:
    hub.live.pause_seconds, hub.live.rest_seconds = 0, NEVER
    async with aclosing(hub.live.rows(sa.select(sa.func.count(Transition.seq)))) as counts:
        assert await anext(counts) == [[0]]
        await commit(hub, entry(uuid4()))
        assert await anext(counts) == [[1]]


async def test_a_subscriber_that_does_not_read_misses_nothing(hub: Hub[Transition]) -> None:
    written = [entry(uuid4()) for _ in range(3 * BUFFER_SIZE)]
    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        await anext(stream)
        await commit(hub, written[0])
        found = await take(stream, 1)
        for start in range(1, len(written), 90):
            await commit(hub, *written[start : start + 90])
        await hub.join()

        found += await take(stream, len(written) - 1)

    assert states(found) == states(written)


async def test_the_buffer_of_a_subscriber_that_does_not_read_is_bounded(hub: Hub[Transition]) -> None:
    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        await anext(stream)
        await commit(hub, entry(uuid4()))
        await take(stream, 1)
        await commit(hub, *(entry(uuid4()) for _ in range(5 * BUFFER_SIZE)))
        await hub.join()

        (subscriber,) = hub.subscribers
        assert subscriber.is_behind
        assert sum(len(page.entries) for page in subscriber.pages) <= BUFFER_SIZE


async def test_a_slow_subscriber_is_disconnected_with_a_cursor_that_misses_nothing(hub: Hub[Transition]) -> None:
    written = [entry(uuid4()) for _ in range(2 * BUFFER_SIZE)]
    stream = await follow(hub, EVERYTHING)
    await anext(stream)
    first = asyncio.ensure_future(take(stream, 1))
    await joined(hub)
    await commit(hub, written[0])
    found = await first
    await commit(hub, *written[1:])
    await hub.join()
    hub.settings = replace(hub.settings, slow_subscriber_timeout_seconds=0)

    with pytest.raises(SlowConsumer) as slow:
        await anext(stream)
    async with aclosing(await follow(hub, EVERYTHING, slow.value.cursor)) as again:
        found += (await anext(again)).entries

    assert states(found) == states(written[:101])


async def test_a_subscriber_without_matches_receives_the_end_of_the_log(database: Database) -> None:
    async with running(database, heartbeat_seconds=0.01) as hub:
        wanted = TransitionFilter(run_ids=frozenset({uuid4()}))
        async with aclosing(await follow(hub, wanted)) as stream:
            first = await anext(stream)
            await commit(hub, entry(uuid4()))
            await hub.join()
            page = await anext(stream)
            while page.cursor == first.cursor:
                page = await anext(stream)

        assert page.entries == []
        assert end(page.cursor.seen) == end(await hub.reader.position())


async def test_at_shutdown_subscribers_receive_all_commits_and_a_cursor(hub: Hub[Transition]) -> None:
    stream = await follow(hub, EVERYTHING)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await joined(hub)
    written = [entry(uuid4()) for _ in range(150)]
    await write(hub.database, *written)
    stopping = asyncio.ensure_future(hub.stop())

    found = states((await waiting).entries) + states((await anext(stream)).entries)
    with pytest.raises(ServerRestarting) as restarting:
        await anext(stream)
    await stopping

    assert found == states(written)
    cursor = hub.reader.decode(restarting.value.cursor)
    assert end(cursor.seen) == end(await hub.reader.position())


async def test_shutdown_does_not_wait_indefinitely(database: Database) -> None:
    async with running(database, shutdown_grace_seconds=0.01) as hub:
        stream = await follow(hub, EVERYTHING)
        await anext(stream)

    assert hub.subscribers
    await stream.aclose()
    assert not hub.subscribers


async def test_a_malformed_cursor_is_refused_before_the_stream_starts(hub: Hub[Transition]) -> None:
    with pytest.raises(InvalidInput):
        await follow(hub, EVERYTHING, "nonsense")
    with pytest.raises(InvalidInput):
        await follow(hub, EVERYTHING, Cursor(await hub.reader.position()).encode(uuid4(), TRANSITIONS.name))


async def test_an_expired_cursor_is_refused_before_the_stream_starts(hub: Hub[Transition]) -> None:
    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        cursor = kept(hub, await anext(stream))
    await write(hub.database, entry(uuid4()))
    await prune_log(hub.database, TRANSITIONS, NOON, timedelta(days=7))
    await prune_log(hub.database, TRANSITIONS, NOON + timedelta(days=7), timedelta(days=7))

    with pytest.raises(CursorExpired) as expired:
        await follow(hub, EVERYTHING, cursor)

    async with aclosing(await follow(hub, EVERYTHING, expired.value.oldest)) as stream:
        assert (await anext(stream)).entries == []


async def test_a_subscriber_that_missed_pruned_entries_gets_an_error(hub: Hub[Transition]) -> None:
    stream = await follow(hub, EVERYTHING)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await joined(hub)
    lost = hub.cursor
    await write(hub.database, *(entry(uuid4()) for _ in range(3)))
    await prune_log(hub.database, TRANSITIONS, NOON, timedelta(days=7))
    await prune_log(hub.database, TRANSITIONS, NOON + timedelta(days=7), timedelta(days=7))
    hub.cursor = lost
    await hub.join()

    with pytest.raises(CursorExpired):
        await waiting


async def test_a_closed_stream_leaves_no_subscriber(hub: Hub[Transition]) -> None:
    unused = await follow(hub, EVERYTHING)
    waited = await follow(hub, TransitionFilter(run_ids=frozenset({uuid4()})))
    await anext(waited)
    waiting = asyncio.ensure_future(anext(waited))
    await joined(hub)
    waiting.cancel()
    await asyncio.wait([waiting])
    await unused.aclose()
    await waited.aclose()

    assert (hub.subscribers, hub.unkeyed, dict(hub.by_key)) == (set(), set(), {})


async def test_a_subscriber_is_refused_in_time_without_a_database(hub: Hub[Transition]) -> None:
    with pytest.raises(Unavailable):
        await hub.with_timeout(asyncio.Event().wait, seconds=0.01)


class Client:
    """A client that disconnects repeatedly."""

    def __init__(
        self, hubs: list[Hub[Transition]], chance: random.Random, filter: LogFilter[Transition], cursor: str
    ) -> None:
        self.hubs = hubs
        self.chance = chance
        self.filter = filter
        self.cursor = cursor
        self.found: list[Transition] = []

    async def listen(self, writers: Writers, written: asyncio.Event) -> None:
        """Receive entries until all entries are written and received."""
        while not written.is_set() or len(self.found) < len(self.expected(writers)):
            hub = self.chance.choice(self.hubs)
            async with aclosing(await follow(hub, self.filter, self.cursor)) as stream:
                for _ in range(self.chance.randint(1, 6)):
                    page = await anext(stream)
                    self.found += page.entries
                    self.cursor = kept(hub, page)

    def expected(self, writers: Writers) -> list[dict[str, Any]]:
        """Return the entries that it must receive."""
        return [each for each in writers.committed if self.filter.match(Transition.of(each))]


async def scribble(writers: Writers, hub: Hub[Transition], written: asyncio.Event) -> None:
    """Write for a while; some commits are notified, others are found by polling."""
    for _ in range(300):
        await writers.step()
        if writers.chance.random() < 0.3:
            hub.wake()
    await writers.end()
    written.set()


@pytest.mark.parametrize("seed", range(3))
async def test_clients_that_disconnect_at_random_receive_every_entry_once(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    writers = Writers(database, chance, runs=12)
    written = asyncio.Event()
    wishes = [TransitionFilter(run_ids=frozenset(chance.sample(list(writers.versions), 4))) for _ in range(4)]
    async with (
        running(database, poll_seconds=0.01, heartbeat_seconds=0.02) as one,
        running(database, poll_seconds=0.03, heartbeat_seconds=0.02) as two,
    ):
        cursor = one.reader.encode(Cursor(await one.reader.position()))
        filters: list[LogFilter[Transition]] = [EVERYTHING, EVERYTHING, *wishes]
        clients = [Client([one, two], chance, each, cursor) for each in filters]
        listening = [client.listen(writers, written) for client in clients]
        await asyncio.gather(scribble(writers, one, written), *listening)

    for client in clients:
        assert sorted(states(client.found)) == sorted(states(client.expected(writers)))
        for run in writers.versions:
            versions = [each.version for each in client.found if each.run_id == run]
            assert versions == sorted(versions)


class FailingReader(Reader[Transition]):
    """A reader that raises an error a few times."""

    failures = 3

    @override
    async def page(
        self, cursor: Cursor, upto: Position | None = None, filter: LogFilter[Transition] = EVERYTHING
    ) -> Page[Transition]:
        if self.failures:
            self.failures -= 1
            raise LookupError("a bug")
        return await super().page(cursor, upto, filter)


async def test_the_feed_continues_after_an_unexpected_error_which_is_logged(database: Database) -> None:
    async with running(database, retry_seconds=0) as hub, aclosing(await follow(hub, EVERYTHING)) as stream:
        await anext(stream)
        waiting = asyncio.ensure_future(take(stream, 1))
        await joined(hub)
        hub.reader = FailingReader(database, TRANSITIONS, hub.reader.installation)
        written = entry(uuid4())
        with structlog.testing.capture_logs() as logs:
            await commit(hub, written)
            found = await waiting

    assert states(found) == states([written])
    errors = [each for each in logs if each["log_level"] == "error"]
    assert [each["task"] for each in errors] == ["feed of transition"] * 3
    assert all(each["exc_info"] for each in errors)
