"""Bring a database to the newest shape of its tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.driver import driver_of
from runstate.database.engine import Database

SCRIPTS = Path(__file__).parent / "migrations"
LOCK = 0x72756E7374617465
"""Key of the advisory lock under which one replica migrates while the others wait."""


def configuration(connection: sa.Connection | None = None, scripts: Path = SCRIPTS) -> Config:
    """Return Alembic's configuration; the connection is what the migrations run on."""
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def migrate(database: Database) -> None:
    """Apply the migrations that are missing, once, however many replicas start together."""
    async with changing_tables(database) as connection:
        await connection.run_sync(_upgrade)


@asynccontextmanager
async def changing_tables(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction in which tables can be changed, with statements that may take long.

    SQLite changes a table by filling a new one and dropping the old one. If foreign keys were enforced, the rows that
    refer to it would be deleted with it. They can be switched on and off only outside of a transaction.
    """
    async with database.writer.connect() as connection:
        await connection.execution_options(patient=True)
        await _enforce_foreign_keys(connection, "OFF")
        try:
            async with connection.begin():
                yield connection
        finally:
            await _enforce_foreign_keys(connection, "ON")


async def at_head(database: Database) -> bool:
    """Return whether the tables have their newest shape."""
    async with database.read() as connection:
        return await connection.run_sync(_is_at_head)


async def revision(database: Database) -> str | None:
    """Return the revision of the tables."""
    async with database.read() as connection:
        found: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found


def revisions() -> list[str]:
    """Return the revisions that this version knows, newest first."""
    return [each.revision for each in ScriptDirectory.from_config(configuration()).walk_revisions()]


async def _enforce_foreign_keys(connection: AsyncConnection, switch: str) -> None:
    if connection.dialect.name == "sqlite":
        await driver_of(connection).fetch(f"PRAGMA foreign_keys = {switch}")


def _is_at_head(connection: sa.Connection) -> bool:
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() == head


def _upgrade(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    if not _is_at_head(connection):
        command.upgrade(configuration(connection), "head")
