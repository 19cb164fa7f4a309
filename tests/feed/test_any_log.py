"""The feed of a second log: gapless, in order, filtered, pruned, and separate from the first log."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.errors import CursorExpired, InvalidInput
from runstate.feed import EVERYTHING, TRANSITIONS, Hub, LogFilter, Page, Reader, follow, prune_log
from runstate.feed.cursor import Cursor
from runstate.feed.notifications import Notifications
from tests.feed.conftest import QUIET
from tests.feed.factories import NOON, Writers, entry, open_reader, read_all, write
from tests.feed.lines import LINES, Line, LineFilter, create_lines, line, write_lines

WEEK = timedelta(days=7)


@pytest.fixture
async def database(database: Database) -> Database:
    """Return a database with the table of lines."""
    await create_lines(database)
    return database


@pytest.fixture
async def hub(database: Database) -> AsyncIterator[Hub[Line]]:
    """Yield a hub of the log of lines."""
    hub = Hub(database, LINES, Notifications(database), QUIET)
    await hub.start()
    yield hub
    await hub.stop()


async def take(stream: AsyncGenerator[Page[Line], None], number: int) -> list[str]:
    """Return the texts of the next lines."""
    taken: list[str] = []
    while len(taken) < number:
        taken += [each.text for each in (await anext(stream)).entries]
    return taken


async def test_a_stream_continues_from_a_cursor_to_new_commits(hub: Hub[Line]) -> None:
    await write_lines(hub.database, line(text="before"))
    async with aclosing(await follow(hub, EVERYTHING)) as stream:
        cursor = hub.reader.encode((await anext(stream)).cursor)
    await write_lines(hub.database, line(text="missed"))

    async with aclosing(await follow(hub, EVERYTHING, cursor)) as stream:
        assert await take(stream, 1) == ["missed"]
        await write_lines(hub.database, line(text="live"))
        assert await take(stream, 1) == ["live"]


async def test_subscribers_receive_the_lines_that_match(hub: Hub[Line]) -> None:
    run = uuid4()
    streams = [await follow(hub, LineFilter(run_id=run)), await follow(hub, LineFilter(text="50%"))]
    for stream in streams:
        await anext(stream)
    waiting = [asyncio.ensure_future(take(stream, 1)) for stream in streams]
    while any(each.is_behind for each in hub.subscribers):
        await hub.join()
    await write_lines(hub.database, line(text="other"), line(run, text="its own"), line(text="at 50% now"))

    assert await asyncio.gather(*waiting) == [["its own"], ["at 50% now"]]
    for stream in streams:
        await stream.aclose()


async def test_long_lines_make_short_pages(database: Database) -> None:
    reader = await Reader.open(database, LINES)
    start = Cursor(await reader.position())
    await write_lines(database, *(line(text="x" * 2**16) for _ in range(5)))

    page = await reader.page(start)

    assert len(page.entries) == 2
    assert len((await read_all(reader, page.cursor)).entries) == 3


async def test_a_cursor_of_one_log_is_refused_by_the_other(database: Database, hub: Hub[Line]) -> None:
    transitions = await open_reader(database)
    cursor = transitions.encode(Cursor(await transitions.position()))

    with pytest.raises(InvalidInput, match="The cursor is of the log `transition`, not of `line`") as refused:
        await follow(hub, EVERYTHING, cursor)
    assert refused.value.path == ("after",)
    with pytest.raises(InvalidInput, match="The cursor is of the log `line`, not of `transition`"):
        transitions.decode(hub.reader.encode(hub.cursor))


async def test_pruning_one_log_leaves_the_other(database: Database) -> None:
    lines, transitions = await Reader.open(database, LINES), await open_reader(database)
    starts = Cursor(await lines.position()), Cursor(await transitions.position())
    await write_lines(database, line(), line())
    await write(database, entry(uuid4()))
    await prune_log(database, LINES, NOON, WEEK)
    await prune_log(database, TRANSITIONS, NOON + WEEK, WEEK)

    assert await prune_log(database, LINES, NOON + WEEK, WEEK) == 2
    with pytest.raises(CursorExpired) as expired:
        await lines.page(starts[0])
    assert (await read_all(lines, lines.decode(expired.value.oldest))).entries == []
    assert len((await read_all(transitions, starts[1])).entries) == 1


@pytest.mark.parametrize(
    ("number", "texts"), [(0, []), (2, ["3", "4"]), (5, ["0", "1", "2", "3", "4"]), (9, ["0", "1", "2", "3", "4"])]
)
async def test_a_stream_starts_with_the_last_lines(hub: Hub[Line], number: int, texts: list[str]) -> None:
    await write_lines(hub.database, *(line(text=str(each)) for each in range(5)))

    async with aclosing(await follow(hub, EVERYTHING, tail=number)) as stream:
        assert [each.text for each in (await anext(stream)).entries] == texts
        await write_lines(hub.database, line(text="live"))
        assert await take(stream, 1) == ["live"]


async def test_the_last_lines_are_the_last_that_match(hub: Hub[Line]) -> None:
    run = uuid4()
    written = [line(run if each % 2 else None, each, str(each)) for each in range(500)]
    await write_lines(hub.database, *written)

    async with aclosing(await follow(hub, LineFilter(run_id=run), tail=150)) as stream:
        found = await take(stream, 150)

    assert found == [str(each) for each in range(201, 500, 2)]


async def test_the_last_lines_of_a_pruned_log_are_the_remaining_ones(hub: Hub[Line]) -> None:
    await write_lines(hub.database, line(text="old"))
    await prune_log(hub.database, LINES, NOON, WEEK)
    await write_lines(hub.database, line(text="new"))
    await prune_log(hub.database, LINES, NOON + WEEK, WEEK)

    async with aclosing(await follow(hub, EVERYTHING, tail=10)) as stream:
        assert await take(stream, 1) == ["new"]


async def test_a_client_resumes_in_the_middle_of_the_last_lines(hub: Hub[Line]) -> None:
    await write_lines(hub.database, *(line(text=str(each)) for each in range(300)))
    async with aclosing(await follow(hub, EVERYTHING, tail=250)) as stream:
        page = await anext(stream)
    await write_lines(hub.database, line(text="300"))

    async with aclosing(await follow(hub, EVERYTHING, hub.reader.encode(page.cursor))) as stream:
        found = [each.text for each in page.entries] + await take(stream, 151)

    assert found == [str(each) for each in range(50, 301)]


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_the_last_lines_miss_no_transaction_that_commits_late(hub: Hub[Line]) -> None:
    async with hub.database.write() as slow:
        await slow.connection.execute(sa.insert(Line), [line(text="late")])
        await write_lines(hub.database, line(text="early"))
        async with aclosing(await follow(hub, EVERYTHING, tail=10)) as stream:
            page = await anext(stream)
    assert [each.text for each in page.entries] == ["early"]

    async with aclosing(await follow(hub, EVERYTHING, hub.reader.encode(page.cursor))) as stream:
        assert await take(stream, 1) == ["late"]


class Client:
    """A client that disconnects repeatedly and resumes by cursor on any replica."""

    def __init__(self, hubs: list[Hub[Line]], chance: random.Random, filter: LogFilter[Line], cursor: str) -> None:
        self.hubs, self.chance, self.filter, self.cursor = hubs, chance, filter, cursor
        self.found: list[Line] = []

    def expected(self, writers: Writers) -> list[dict[str, Any]]:
        """Return the lines that it must receive."""
        return [each for each in writers.committed if self.filter.match(Line.of(each))]

    async def listen(self, writers: Writers, written: asyncio.Event) -> None:
        """Receive lines until all lines are written and received."""
        while not written.is_set() or len(self.found) < len(self.expected(writers)):
            hub = self.chance.choice(self.hubs)
            async with aclosing(await follow(hub, self.filter, self.cursor)) as stream:
                for _ in range(self.chance.randint(1, 6)):
                    page = await anext(stream)
                    self.found += page.entries
                    self.cursor = hub.reader.encode(page.cursor)


async def scribble(writers: Writers, hub: Hub[Line], written: asyncio.Event) -> None:
    """Write for a while, in transactions that commit out of order."""
    for _ in range(200):
        await writers.step()
        if writers.chance.random() < 0.3:
            hub.wake()
    await writers.end()
    written.set()


@pytest.mark.parametrize("seed", range(3))
async def test_clients_that_disconnect_at_random_receive_every_line_once(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    writers = Writers(database, chance, runs=8, row=Line, make=line)
    settings = replace(QUIET, poll_seconds=0.01, heartbeat_seconds=0.02)
    written = asyncio.Event()
    async with AsyncExitStack() as stack:
        hubs = [Hub(database, LINES, Notifications(database), settings) for _ in range(2)]
        for hub in hubs:
            await hub.start()
            stack.push_async_callback(hub.stop)
        cursor = hubs[0].reader.encode(hubs[0].cursor)
        filters: list[LogFilter[Line]] = [
            EVERYTHING,
            EVERYTHING,
            *(LineFilter(run) for run in list(writers.versions)[:3]),
        ]
        clients = [Client(hubs, chance, each, cursor) for each in filters]
        await asyncio.gather(scribble(writers, hubs[0], written), *(each.listen(writers, written) for each in clients))

    for client in clients:
        expected = sorted((each["run_id"], each["number"]) for each in client.expected(writers))
        assert sorted((each.run_id, each.number) for each in client.found) == expected
        for run in writers.versions:
            numbers = [each.number for each in client.found if each.run_id == run]
            assert numbers == sorted(numbers)
