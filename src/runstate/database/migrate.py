"""Bring a database to the newest shape of its tables."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from runstate.database.engine import Database

LOCK = 0x72756E7374617465
"""Key of the advisory lock under which one replica migrates while the others wait."""


def configuration(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration; the connection is what the migrations run on."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def migrate(database: Database) -> None:
    """Apply the migrations that are missing, once, however many replicas start together."""
    async with database.writer.connect() as connection, connection.begin():
        await connection.run_sync(_upgrade)


async def at_head(database: Database) -> bool:
    """Whether the tables have their newest shape."""
    async with database.read() as connection:
        return await connection.run_sync(_is_at_head)


async def revision(database: Database) -> str | None:
    """Which shape the tables have."""
    async with database.read() as connection:
        found: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found


def revisions() -> list[str]:
    """The shapes that this version knows, newest first."""
    return [each.revision for each in ScriptDirectory.from_config(configuration()).walk_revisions()]


def _is_at_head(connection: sa.Connection) -> bool:
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() == head


def _upgrade(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    if not _is_at_head(connection):
        command.upgrade(configuration(connection), "head")
