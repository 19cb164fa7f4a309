"""Migrations as tests run them: to any shape, there and back, also those of another directory."""

from pathlib import Path

from alembic import command

from runstate.database import Database
from runstate.database.migrate import SCRIPTS, changing_tables, configuration


async def upgrade(database: Database, revision: str = "head", scripts: Path = SCRIPTS) -> None:
    """Bring the tables to a newer shape."""
    async with changing_tables(database) as connection:
        await connection.run_sync(lambda it: command.upgrade(configuration(it, scripts), revision))


async def downgrade(database: Database, revision: str, scripts: Path = SCRIPTS) -> None:
    """Bring the tables back to an older shape; `-1` is the one before."""
    async with changing_tables(database) as connection:
        await connection.run_sync(lambda it: command.downgrade(configuration(it, scripts), revision))
