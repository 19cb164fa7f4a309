"""Reading the log: every committed entry once, the entries of a run in order, in any order of commits."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.errors import InvalidInput
from runstate.feed import EVERYTHING, TRANSITIONS, Reader, TransitionFilter, prune_log, reader
from runstate.feed.cursor import Cursor, Position
from runstate.feed.installation import identify
from runstate.feed.reader import Part
from runstate.rows import Installation, Transition
from tests.feed.factories import NOON, Writers, end, entry, insert, open_reader, read_all, states, write

postgresql_only = pytest.mark.parametrize("kind", ["postgresql"])


async def test_later_entries_are_read_once_in_order(database: Database) -> None:
    reader = await open_reader(database)
    run = uuid4()
    await write(database, entry(run, 1))
    start = Cursor(await reader.position())
    later = [entry(run, version) for version in range(2, 5)]
    await write(database, *later)

    news = await read_all(reader, start)

    assert states(news.entries) == states(later)
    assert (await read_all(reader, news.cursor)).entries == []


async def test_an_entry_is_read_as_it_was_written(database: Database) -> None:
    reader = await open_reader(database)
    start = Cursor(await reader.position())
    written = entry(uuid4(), 3, message="hello", tags=["a"], flow_id=uuid4(), deployment_id=uuid4())
    await write(database, written)

    (found,) = (await reader.page(start)).entries

    assert {name: getattr(found, name) for name in written} == written


async def test_pages_have_no_gap_and_no_overlap(database: Database) -> None:
    reader = await open_reader(database, page_size=7)
    start = Cursor(await reader.position())
    written = [entry(uuid4()) for _ in range(50)]
    await write(database, *written[:30])
    await write(database, *written[30:])

    assert states((await read_all(reader, start)).entries) == states(written)


async def test_long_messages_make_short_pages(database: Database) -> None:
    reader = await open_reader(database)
    start = Cursor(await reader.position())
    written = [entry(uuid4(), message="x" * length) for length in (10, 2**18, 2**16, 2**16, 2**16, 10)]
    await write(database, *written)

    pages = [await reader.page(start)]
    while not pages[-1].complete:
        pages.append(await reader.page(pages[-1].cursor))

    # If a transaction elsewhere on the server ends meanwhile, one more read finds nothing.
    assert [len(page.entries) for page in pages if page.entries] == [1, 1, 2, 2]


async def test_a_page_ends_at_the_requested_position(database: Database) -> None:
    reader = await open_reader(database)
    start = Cursor(await reader.position())
    first, second = entry(uuid4()), entry(uuid4())
    await write(database, first)
    middle = await reader.position()
    await write(database, second)

    page = await reader.page(start, middle)

    assert states(page.entries) == states([first])
    assert page.complete
    assert states((await reader.page(page.cursor)).entries) == states([second])


async def test_only_matching_entries_are_read(database: Database) -> None:
    reader = await open_reader(database, page_size=3)
    start = Cursor(await reader.position())
    run, other = uuid4(), uuid4()
    await write(database, *(entry(run if version % 2 else other, version) for version in range(1, 20)))

    versions, cursor, complete = [], start, False
    while not complete:
        page = await reader.page(cursor, filter=TransitionFilter(run_ids=frozenset({run})))
        versions += [each.version for each in page.entries]
        cursor, complete = page.cursor, page.complete

    assert versions == list(range(1, 20, 2))


async def test_a_cursor_from_the_future_is_refused(database: Database) -> None:
    reader = await open_reader(database)
    now = await reader.position()

    with pytest.raises(InvalidInput, match="ahead"):
        await reader.page(Cursor(Position(now.xmax + 10**9, (), now.boot, now.top + 10**9)))


@postgresql_only
async def test_an_entry_that_commits_late_is_read(database: Database) -> None:
    reader = await open_reader(database)
    start = Cursor(await reader.position())
    early, late = entry(uuid4()), entry(uuid4())
    async with database.write() as slow:
        await insert(slow.connection, late)
        await write(database, early)
        before = await read_all(reader, start)
        assert states(before.entries) == states([early])

    after = await read_all(reader, before.cursor)

    assert states(after.entries) == states([late])
    assert (await read_all(reader, after.cursor)).entries == []


@postgresql_only
async def test_a_long_transaction_elsewhere_does_not_delay_the_feed(database: Database, postgresql: str) -> None:
    reader = await open_reader(database)
    elsewhere = Database(postgresql)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(elsewhere.close)
        long = await stack.enter_async_context(elsewhere.write())
        await long.connection.execute(sa.select(sa.func.pg_current_xact_id()))
        start = Cursor(await reader.position())
        written = entry(uuid4())
        await write(database, written)

        news = await read_all(reader, start)

        assert states(news.entries) == states([written])


@postgresql_only
async def test_an_entry_that_is_rolled_back_is_never_read(database: Database) -> None:
    reader = await open_reader(database)
    start = Cursor(await reader.position())
    async with database.writer.connect() as connection, connection.begin() as transaction:
        await insert(connection, entry(uuid4()))
        await transaction.rollback()

    assert (await read_all(reader, start)).entries == []


@postgresql_only
async def test_a_position_ends_at_the_newest_entry(database: Database) -> None:
    reader = await open_reader(database)
    await write(database, entry(uuid4()))
    before = await reader.position()
    async with database.write() as unrelated:
        await unrelated.connection.execute(sa.select(sa.func.pg_current_xact_id()))
        meanwhile = await reader.position()
    after = await reader.position()

    assert [end(meanwhile), end(after)] == [end(before)] * 2
    assert [xid for xid in (*meanwhile.xip, *after.xip) if xid >= before.xmax] == []


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan that read the log."""
    if plan.get("Relation Name") == "transition":
        yield plan
    for below in plan.get("Plans", []):
        yield from scans(below)


async def generic_plan(connection: AsyncConnection, statement: sa.Select[Any]) -> dict[str, Any]:
    """Return PostgreSQL's generic plan of a statement, which is independent of the parameters."""
    compiled: Any = statement.compile(dialect=connection.dialect)
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE it AS {compiled}")
    values = ", ".join("NULL" for _ in compiled.positiontup)
    ((explained,),) = await driver.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE it({values})")
    await driver.execute("DEALLOCATE it; RESET plan_cache_mode")
    plan: dict[str, Any] = explained[0]["Plan"]
    return plan


@postgresql_only
@pytest.mark.parametrize("part", list(Part), ids=str)
async def test_no_plan_reads_the_whole_log(database: Database, part: Part) -> None:
    reader = await open_reader(database)
    for _ in range(40):
        await write(database, *(entry(uuid4()) for _ in range(250)))
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("ANALYZE transition"))
    async with database.read() as connection:
        plan = await generic_plan(connection, reader._built(part, EVERYTHING, []))  # noqa: SLF001

    assert [scan for scan in scans(plan) if not is_short(scan)] == []


def is_short(scan: dict[str, Any]) -> bool:
    """Return whether a node reads few entries by an index: with a condition, or from one end."""
    return scan.get("Scan Direction") == "Backward" or not {"Index Cond", "Recheck Cond"}.isdisjoint(scan)


@postgresql_only
async def test_entries_that_replaced_lost_commits_are_read(database: Database) -> None:
    reader = await open_reader(database)
    await write(database, *(entry(uuid4()) for _ in range(3)))
    now = await reader.position()
    lost = Cursor(Position(now.xmax + 500, (now.xmax + 7,), now.boot - 1, now.top + 500))
    everything = [(await reader.page(lost)).entries, (await reader.page(lost, now)).entries]

    assert [len(each) for each in everything] == [3, 3]


@postgresql_only
async def test_a_restored_dump_is_another_database(database: Database) -> None:
    reader = await open_reader(database)
    await write(database, entry(uuid4()))
    cursor = reader.encode(Cursor(await reader.position()))
    far = sa.text("UPDATE transition SET xid = '9000000000'")
    async with database.write() as transaction:
        await transaction.connection.execute(sa.update(Installation).values(cluster="another"))
        await transaction.connection.execute(far)

    restored = await open_reader(database)
    with pytest.raises(InvalidInput, match="another database"):
        restored.decode(cursor)
    start = Cursor(await restored.position())
    assert (await read_all(restored, start)).entries == []
    written = entry(uuid4())
    await write(database, written)
    assert states((await read_all(restored, start)).entries) == states([written])
    assert await identify(database) == restored.installation


async def test_an_old_cursor_reads_from_checkpoint_to_checkpoint(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHECKPOINT_DISTANCE", 5)
    far = await open_reader(database)
    start = Cursor(await far.position())
    written = [entry(uuid4()) for _ in range(40)]
    for number, each in enumerate(written):
        await write(database, each)
        if number % 10 == 5:
            await prune_log(database, TRANSITIONS, NOON + timedelta(seconds=number), timedelta(days=7))
    last = await far.position()

    pages = [await far.page(start, last)]
    while not pages[-1].complete:
        pages.append(await far.page(pages[-1].cursor, last))

    assert states(each for page in pages for each in page.entries) == states(written)
    assert len(pages) == (1 if database.is_sqlite else 5)


@pytest.fixture
async def writers(database: Database, seed: int) -> AsyncIterator[Writers]:
    """Yield writers seeded with a number."""
    writers = Writers(database, random.Random(seed))
    yield writers
    await writers.end()


@pytest.mark.parametrize("seed", range(8))
async def test_every_committed_entry_is_read_once_and_every_run_in_order(
    database: Database, writers: Writers, seed: int
) -> None:
    chance = random.Random(seed + 1)
    readers = [await open_reader(database, at_once) for at_once in (1, 3, 100)]
    chains: list[tuple[Cursor, list[Transition]]] = [(Cursor(await readers[0].position()), []) for _ in range(4)]
    for _ in range(150):
        await writers.step()
        number = chance.randrange(len(chains))
        cursor, found = chains[number]
        chains[number] = await _read_one(chance.choice(readers), cursor, found)
    await writers.end()

    for cursor, found in chains:
        rest = await read_all(chance.choice(readers), cursor)
        everything = [*found, *rest.entries]
        assert Counter(states(everything)) == Counter(states(writers.committed))
        for run, version in writers.versions.items():
            assert [each.version for each in everything if each.run_id == run] == list(range(1, version + 1))


async def _read_one(
    reader: Reader[Transition], cursor: Cursor, found: list[Transition]
) -> tuple[Cursor, list[Transition]]:
    page = await reader.page(cursor)
    return reader.decode(reader.encode(page.cursor)), [*found, *page.entries]
