"""Migrations: checks and upgrades the revision of the tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema

from runstate.database.driver import driver_of
from runstate.database.engine import Database
from runstate.database.postgresql import quoted_name
from runstate.errors import ConfigurationError

SCRIPTS = Path(__file__).parent / "migrations"
LOCK = 0x72756E7374617465
"""Key of the advisory lock that lets one replica migrate while the others wait."""


def configuration(connection: sa.Connection | None = None, scripts: Path = SCRIPTS) -> Config:
    """Return Alembic's configuration for migrations that run on a connection."""
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def migrate(database: Database) -> None:
    """Apply the missing migrations. Replicas that start at the same time apply them once."""
    async with changing_tables(database) as connection:
        await connection.run_sync(_upgrade, database.schema, database.shown)


@asynccontextmanager
async def changing_tables(database: Database) -> AsyncIterator[AsyncConnection]:
    """Yield a connection in a transaction that can change tables, without a statement timeout.

    On SQLite, Alembic changes a table by filling a new one and dropping the old one. Enforced foreign keys would delete
    the rows that refer to the old table. SQLite switches enforcement only outside of a transaction.
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
    """Return whether the tables have the newest revision of this version."""
    async with database.read() as connection:
        return await connection.run_sync(_current) == revisions()[0]


async def check_head(database: Database) -> None:
    """Raise ConfigurationError if the revision of the tables is not the newest of this version."""
    async with database.read() as connection:
        found = await connection.run_sync(_current)
    if found is None:
        raise ConfigurationError(
            f"The database {database.shown} has no tables of runstate. Create them with `runstate migrate`."
        )
    if _check_known(found, database.shown) != revisions()[0]:
        raise ConfigurationError(
            f"The tables in {database.shown} are older than this version. Upgrade them with `runstate migrate`."
        )


async def revision(database: Database) -> str | None:
    """Return the revision of the tables, which must exist."""
    async with database.read() as connection:
        found: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found


def revisions() -> list[str]:
    """Return the revisions of this version, newest first."""
    return [each.revision for each in ScriptDirectory.from_config(configuration()).walk_revisions()]


async def _enforce_foreign_keys(connection: AsyncConnection, switch: str) -> None:
    if connection.dialect.name == "sqlite":
        await driver_of(connection).fetch(f"PRAGMA foreign_keys = {switch}")


def _current(connection: sa.Connection) -> str | None:
    """Return the revision of the tables; None if the database has no tables of runstate."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def _check_known(found: str | None, shown: str) -> str | None:
    """Return the revision. Raise ConfigurationError if a later version of runstate made it."""
    if found is None or found in revisions():
        return found
    raise ConfigurationError(
        f"The tables in {shown} were migrated by a later version of runstate, to revision {found}. This version knows"
        f" revisions up to {revisions()[0]}. Start the later version. Running servers of this version are not affected."
    )


def _upgrade(connection: sa.Connection, schema: str | None, shown: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        if schema and not connection.scalar(sa.select(sa.func.to_regnamespace(quoted_name(schema)))):
            connection.execute(CreateSchema(schema))
    # Checked under the lock: another replica may have migrated meanwhile.
    if _check_known(_current(connection), shown) != revisions()[0]:
        command.upgrade(configuration(connection), "head")
