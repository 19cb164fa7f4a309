"""Generation of a migration: both databases are migrated and compared with the declared tables."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic.script import ScriptDirectory

from runstate.database import Database
from runstate.database.migrate import SCRIPTS, configuration
from runstate.rows import Base
from tests.migrating import upgrade
from tools.migration.comparing import Changes, Kinds, changes, columns, describe_alike, frozen
from tools.migration.writing import Writer, body, import_lines

STYLE = Path(__file__).parent.parent.parent / "pyproject.toml"


async def generate(
    name: str,
    sqlite: Database,
    postgresql: Database,
    metadata: sa.MetaData = Base.metadata,
    scripts: Path = SCRIPTS,
) -> Path | None:
    """Write a migration to the declared tables and return its path; None if nothing has changed.

    The databases must be empty or have an older schema version; they are migrated first.
    """
    here, elsewhere = [await _look(database, metadata, scripts) for database in (sqlite, postgresql)]
    describe_alike(here.changes, elsewhere.changes, frozen(here.columns, elsewhere.columns))
    there = body(here.writer.steps(here.changes.there), elsewhere.writer.steps(elsewhere.changes.there))
    back = body(here.writer.steps(here.changes.back), elsewhere.writer.steps(elsewhere.changes.back))
    imports = import_lines([here.writer, elsewhere.writer])
    return _write(name, scripts, {"upgrades": there, "downgrades": back, "imports": imports}) if there else None


class Look(NamedTuple):
    """The changes that a database needs, its columns, and a writer for the changes."""

    changes: Changes
    columns: Kinds
    writer: Writer


async def _look(database: Database, metadata: sa.MetaData, scripts: Path) -> Look:
    await upgrade(database, scripts=scripts)
    async with database.read() as connection:
        found = await connection.run_sync(changes, metadata)
        return Look(found, await connection.run_sync(columns), Writer(connection.dialect, metadata))


def _write(name: str, scripts: Path, parts: dict[str, Any]) -> Path:
    """Write the file from the template, with the next number, formatted."""
    config = configuration(scripts=scripts)
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.set_main_option("truncate_slug_length", "100")
    directory = ScriptDirectory.from_config(config)
    directory.messaging_opts = {"quiet": True}
    number = int(directory.get_current_head() or 0) + 1
    message = f"{name.replace('_', ' ').capitalize()}."
    written = directory.generate_revision(f"{number:04}", message, **parts)
    if written is None:
        raise LookupError(f"Alembic cannot find the migration that it wrote in {scripts}.")
    _format(Path(written.path))
    return Path(written.path)


def _format(file: Path) -> None:
    """Sort the imports, remove unused ones, and format the file."""
    for command in (["check", "--fix-only", "--select", "I,F401"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", "--config", STYLE, file], check=True)
