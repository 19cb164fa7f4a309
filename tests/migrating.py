"""Migrations for tests: to any revision, in both directions, also from another directory."""

from pathlib import Path

from alembic import command

from runstate.database import Database
from runstate.database.migrate import SCRIPTS, changing_tables, configuration


async def upgrade(database: Database, revision: str = "head", scripts: Path = SCRIPTS) -> None:
    """Upgrade the tables to a revision."""
    async with changing_tables(database) as connection:
        await connection.run_sync(lambda it: command.upgrade(configuration(it, scripts), revision))


async def downgrade(database: Database, revision: str, scripts: Path = SCRIPTS) -> None:
    """Downgrade the tables to a revision; `-1` is the previous one."""
    async with changing_tables(database) as connection:
        await connection.run_sync(lambda it: command.downgrade(configuration(it, scripts), revision))
