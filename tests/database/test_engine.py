"""The engine: transactions and the notifications after them."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.bulk import TableWrite, WriteMode, table_of, write
from runstate.database.driver import driver_of
from runstate.database.queries.orchestration import lock_task_runs
from runstate.database.sqlite import FETCH_LOCK
from runstate.errors import ConfigurationError
from runstate.rows import Deployment, Flow
from tests.databases import say

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ASLEEP = sa.text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%hanging%')")
OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
OPEN = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'")


def flow(name: str) -> dict[str, Any]:
    return {"id": uuid4(), "created": NOW, "updated": NOW, "name": name, "tags": [], "labels": {}}


async def names(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(sa.select(Flow.name).order_by(Flow.name))).scalars())


async def test_a_commit_is_notified_after_it_is_visible(database: Database) -> None:
    told: list[str] = []
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(Flow), [flow("one"), flow("two")])
        transaction.after_commit(lambda: told.append("first"))
        transaction.after_commit(lambda: told.append("second"))
        assert await names(database) == []
        assert told == []

    assert told == ["first", "second"]
    assert await names(database) == ["one", "two"]


async def test_a_transaction_that_raises_writes_and_notifies_nothing(database: Database) -> None:
    told: list[str] = []

    async def fail() -> None:
        async with database.write() as transaction:
            await transaction.connection.execute(sa.insert(Flow), [flow("one")])
            transaction.after_commit(lambda: told.append("never"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert told == []
    assert await names(database) == []


async def test_a_transaction_that_cannot_commit_notifies_nothing(database: Database) -> None:
    told: list[str] = []

    async def fail() -> None:
        async with database.write() as transaction:
            transaction.after_commit(lambda: told.append("never"))
            await transaction.connection.execute(sa.insert(Flow), [flow("one")])
            await transaction.connection.execute(sa.insert(Flow), [flow("one")])

    with pytest.raises(sa.exc.IntegrityError):
        await fail()
    assert told == []
    assert await names(database) == []


async def test_a_reference_must_exist(database: Database) -> None:
    deployment = {**flow("deployment"), "flow_id": UUID(int=1), "parameters": {}, "paused": False}
    del deployment["labels"]

    async def write() -> None:
        async with database.write() as transaction:
            await transaction.connection.execute(sa.insert(Deployment), [deployment])

    with pytest.raises(sa.exc.IntegrityError):
        await write()


async def test_a_timestamp_is_read_in_utc_with_microseconds(database: Database) -> None:
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(Flow), [flow("one")])
    async with database.read() as connection:
        assert (await connection.execute(sa.select(Flow.created))).scalar_one() == NOW


async def test_every_statement_is_counted(database: Database) -> None:
    counts = []
    for _ in range(3):
        await names(database)
        counts.append(database.statements)

    # BEGIN is a statement on SQLite.
    assert counts[2] - counts[1] == counts[1] - counts[0] == (2 if database.is_sqlite else 1)


async def test_readers_of_sqlite_cannot_write(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'runstate.db'}")
    async with database.read() as connection:
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            await connection.execute(sa.text("CREATE TABLE x (y INTEGER)"))
    await database.close()


@pytest.mark.parametrize(
    "url", ["mysql://localhost/runstate", "postgresql+psycopg://localhost/runstate", "sqlite+aiosqlite://"]
)
def test_a_database_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Database(url)


async def write_something(database: Database) -> None:
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(Flow), [flow(str(uuid4()))])


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_cancelled_transaction_writes_nothing_and_is_closed(database: Database) -> None:
    async def hang() -> None:
        async with database.write() as transaction:
            await transaction.connection.execute(sa.insert(Flow), [flow("one")])
            await transaction.connection.execute(sa.text("SELECT pg_sleep(60) AS hanging"))

    hanging = asyncio.ensure_future(hang())
    async with database.read() as connection, asyncio.timeout(30):
        while not await connection.scalar(ASLEEP):
            pass  # each check takes an iteration of the event loop
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        while await connection.scalar(OPEN):
            pass  # until the cancelled task has ended
    await write_something(database)
    assert len(await names(database)) == 1


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_fetching_many_rows_waits_for_the_lock_for_a_limited_time(database: Database) -> None:
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(Flow), [flow(f"{number:03}") for number in range(100)])

    with FETCH_LOCK:
        read = await asyncio.gather(*(names(database) for _ in range(3)))

    assert read == [[f"{number:03}" for number in range(100)]] * 3


async def test_a_writing_statement_ends_at_the_timeout_and_the_next_one_is_executed(url: str) -> None:
    database = Database(url, statement_timeout_seconds=0.1)
    endless = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT 1 - x FROM n) DELETE FROM flow WHERE 2 IN (SELECT x FROM n)"
    )

    async def delete() -> None:
        async with database.write() as transaction:
            await transaction.connection.execute(sa.insert(Flow), [flow("one")])
            await transaction.connection.execute(sa.text(endless))

    with pytest.raises(sa.exc.DBAPIError):
        await delete()
    await write_something(database)
    assert len(await names(database)) == 1
    await database.close()


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_writers_leave_connections_for_readers(url: str) -> None:
    database = Database(url, connections=2)
    await asyncio.gather(*(write_something(database) for _ in range(10)))
    async with database.write(), asyncio.timeout(30):
        assert len(await names(database)) == 10
    await database.close()


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_connections_that_were_closed_while_idle_are_not_used_to_write(url: str, database: Database) -> None:
    await asyncio.gather(*(write_something(database) for _ in range(5)))
    assert database.connections
    kept = [driver_of(each) for each in database.connections.kept]
    await say(url, f"SELECT pg_terminate_backend(pid) {OTHERS}")
    async with asyncio.timeout(30):
        while not all(each.is_closed() for each in kept):
            await say(url, "SELECT")  # executing it takes a moment
    await write_something(database)
    assert len(await names(database)) == 6


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_callers_that_are_cancelled_while_their_connections_are_ended_return_them(url: str) -> None:
    database = Database(url)
    assert database.connections
    sleep = sa.text("SELECT pg_sleep(30)")

    async def read() -> None:
        async with database.read() as connection:
            await connection.execute(sleep)

    async def work() -> None:
        async with database.write() as transaction:
            await transaction.connection.execute(sleep)

    for patience in range(12):
        callers = [asyncio.create_task(each()) for each in (read, work, read, work, read, work)]
        ending = asyncio.create_task(say(url, f"SELECT pg_terminate_backend(pid) {OTHERS}"))
        await asyncio.wait([ending, *callers], return_when=asyncio.FIRST_COMPLETED)
        for _ in range(patience):
            await asyncio.sleep(0)
        while not all(each.done() for each in callers):
            for each in callers:
                each.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(ending, *callers, return_exceptions=True)
    pool: Any = database.reader.pool
    assert (pool.checkedout(), database.connections.in_use) == (len(database.connections.kept), 0)
    await database.close()


async def test_errors_of_a_driver_are_raised_as_those_of_sqlalchemy(database: Database) -> None:
    columns = flow("same")
    twice = TableWrite(table_of(Flow), WriteMode.INSERT, tuple(columns), [columns, columns])

    async def fail() -> None:
        async with database.write() as transaction:
            await write(transaction.connection, [twice])

    with pytest.raises(sa.exc.IntegrityError):
        await fail()
    assert await names(database) == []


SCANNED = sa.text("SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname IN ('task_run', 'task_run_state')")


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_writers_do_not_plan_sequential_scans_even_of_new_tables(database: Database) -> None:
    async with database.write() as transaction:
        await lock_task_runs(transaction.connection, [uuid4() for _ in range(16)])
        assert (await transaction.connection.execute(SCANNED)).scalar_one() == 0
    async with database.read() as connection:
        assert (await connection.execute(sa.text("SHOW enable_seqscan"))).scalar_one() == "on"


async def test_the_error_of_a_statement_does_not_show_its_parameters(database: Database) -> None:
    failing = sa.text("SELECT * FROM no_such_table WHERE name = :name")

    async with database.read() as connection:
        with pytest.raises(sa.exc.DBAPIError) as raised:
            await connection.execute(failing, {"name": "hunter2"})

    assert "no_such_table" in str(raised.value)
    assert "hunter2" not in str(raised.value)
