"""Migrations: checks and upgrades the revision of the tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema

from runstate.database.driver import driver_of
from runstate.database.engine import Database
from runstate.database.failures import sqlstate
from runstate.database.postgresql import quoted_name
from runstate.errors import ConfigurationError

SCRIPTS = Path(__file__).parent / "migrations"
log = structlog.get_logger(__name__)

LOCK = 0x72756E7374617465
"""Key of the advisory lock that lets one replica migrate while the others wait."""
LOCK_SECONDS = 10
"""Time for which a migration of PostgreSQL waits for a table that is in use."""
LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE of a wait for a lock that was too long."""


def configuration(connection: sa.Connection | None = None, scripts: Path = SCRIPTS) -> Config:
    """Return Alembic's configuration for migrations that run on a connection."""
    config = Config()
    config.set_main_option("script_location", str(scripts))
    # Alembic warns if it is missing.
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def migrate(database: Database) -> None:
    """Apply the missing migrations. Replicas that start at the same time apply them once.

    Raise ConfigurationError if a table stays locked. Earlier revisions are applied then, and the next call goes on.
    """
    ended = False
    while not ended:
        # A transaction for each revision: locks on tables that are in use are held as short as possible.
        async with changing_tables(database) as connection:
            ended = await connection.run_sync(_upgrade, database.schema, database.shown)


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
            # Also after an error: the connection returns to the pool.
            await _enforce_foreign_keys(connection, "ON")


async def at_head(database: Database) -> bool:
    """Return whether the tables have the newest revision of this version."""
    async with database.read() as connection:
        return await connection.run_sync(_current) == revisions()[0]


async def is_new(database: Database) -> bool:
    """Return whether the database has no tables of runstate."""
    async with database.read() as connection:
        return await connection.run_sync(_current) is None


async def check_head(database: Database) -> None:
    """Raise ConfigurationError if the revision of the tables is not the newest of this version."""
    async with database.read() as connection:
        found = await connection.run_sync(_current)
    known = revisions()
    if found is None:
        raise ConfigurationError(
            f"The database {database.shown} has no tables of runstate. Create them with `runstate migrate`."
        )
    if found in known[1:]:
        raise ConfigurationError(
            f"The tables in {database.shown} are older than this version. Upgrade them with `runstate migrate`."
        )
    if found != known[0]:
        raise _made_by_later_version(found, database.shown)


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
        # SQLAlchemy would begin a transaction, in which SQLite ignores this pragma.
        await driver_of(connection).fetch(f"PRAGMA foreign_keys = {switch}")
        # Otherwise a table that a view reads cannot be replaced by its copy.
        await driver_of(connection).fetch(f"PRAGMA legacy_alter_table = {'ON' if switch == 'OFF' else 'OFF'}")


def _current(connection: sa.Connection) -> str | None:
    """Return the revision of the tables; None if the database has no tables of runstate."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def is_compatible(found: str, head: str) -> bool:
    """Whether servers that know revisions up to `head` work with tables of a later revision.

    The first digit of a revision is its generation. Within a generation, migrations only add to the tables.
    """
    return found > head and found[0] == head[0]


def _made_by_later_version(found: str, shown: str) -> ConfigurationError:
    return ConfigurationError(
        f"The tables in {shown} were migrated by a later version of runstate, to revision {found}. This version knows"
        f" revisions up to {revisions()[0]}. Start the later version. Running servers of this version are not affected."
    )


def _upgrade(connection: sa.Connection, schema: str | None, shown: str) -> bool:
    """Apply the next revision, or all revisions to a new database; return whether the tables have the newest one."""
    if connection.dialect.name == "postgresql":
        # Changing a large table takes longer than statements of clients may.
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        # The lock ends with the transaction, also if the process is killed.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        if schema and not connection.scalar(sa.select(sa.func.to_regnamespace(quoted_name(schema)))):
            connection.execute(CreateSchema(schema))
        # Statements of clients wait behind a migration that waits for a table.
        connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    # Checked under the lock: another replica may have migrated meanwhile.
    found, known = _current(connection), revisions()
    if found is None:
        command.upgrade(configuration(connection), "head")
    elif found in known[1:]:
        following = known[known.index(found) - 1]
        _upgrade_to(connection, following, shown)
        return following == known[0]
    elif is_compatible(found, known[0]):
        # An older server keeps working during an upgrade of replicas one after another.
        log.warning("tables_of_a_later_version", found=found, known=known[0])
    elif found != known[0]:
        raise _made_by_later_version(found, shown)
    return True


def _upgrade_to(connection: sa.Connection, following: str, shown: str) -> None:
    try:
        command.upgrade(configuration(connection), following)
    except sa.exc.DBAPIError as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        raise ConfigurationError(
            f"The migration of {shown} to revision {following} waited {LOCK_SECONDS} seconds for a table that another"
            " transaction has locked. Nothing of this revision was applied. End that transaction (pg_stat_activity"
            " lists it) and run `runstate migrate` again."
        ) from None
