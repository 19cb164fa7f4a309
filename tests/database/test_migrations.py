"""Migrations: one history for both databases and any number of replicas."""

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database, migrations
from runstate.database import migrate as migrate_module
from runstate.database.migrate import at_head, migrate, revision, revisions
from runstate.errors import ConfigurationError
from runstate.rows import Base
from runstate.rows.log import Installation
from tests.databases import ended
from tests.migrating import upgrade
from tools.migration.comparing import changes

SCRIPTS = Path(migrations.__file__).parent
VERSIONS = sorted((SCRIPTS / "versions").glob("*.py"))
FROZEN = "runstate.database.migrations.types"


async def differences(database: Database) -> list[Any]:
    """Return the differences between the database and the declared tables."""
    async with database.read() as connection:
        return list((await connection.run_sync(changes, Base.metadata)).there.as_diffs())


async def installations(database: Database) -> list[Any]:
    async with database.read() as connection:
        return list((await connection.execute(sa.select(Installation.id))).scalars())


async def test_a_new_database_gets_every_table(blank_url: str) -> None:
    database = Database(blank_url)

    assert not await at_head(database)
    await migrate(database)

    assert await at_head(database)
    await database.close()


async def test_migrated_tables_equal_the_row_classes(database: Database) -> None:
    assert await differences(database) == []


async def test_migrating_again_changes_nothing(database: Database) -> None:
    before = await installations(database)
    await migrate(database)

    assert await at_head(database)
    assert await installations(database) == before
    assert len(before) == 1


async def test_replicas_that_start_together_migrate_once(blank_url: str) -> None:
    replicas = [Database(blank_url) for _ in range(4)]
    await asyncio.gather(*(migrate(replica) for replica in replicas))

    assert len(await installations(replicas[0])) == 1
    for replica in replicas:
        assert await at_head(replica)
        await replica.close()


async def test_a_migration_that_fails_changes_nothing(blank_url: str) -> None:
    database = Database(blank_url)
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("CREATE TABLE task_run (id INTEGER)"))

    failure = await asyncio.gather(migrate(database), return_exceptions=True)

    assert isinstance(failure[0], sa.exc.DBAPIError)
    async with database.read() as connection:
        assert await connection.run_sync(lambda it: sa.inspect(it).get_table_names()) == ["task_run"]
    await database.close()


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_migration_that_waits_for_a_table_gives_up_and_keeps_earlier_revisions(
    blank_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "LOCK_SECONDS", 0.1)
    database = Database(blank_url)
    await upgrade(database, "0012")
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("SELECT 1 FROM flow_run"))
        with pytest.raises(ConfigurationError, match=r"to revision 0014 waited .* for a table"):
            await migrate(database)
        assert await revision(database) == "0013"

    await migrate(database)

    assert await at_head(database)
    await database.close()


async def test_every_revision_has_a_transaction_of_its_own(blank_url: str) -> None:
    old, database = Database(blank_url), Database(blank_url)
    await upgrade(old, "0012")
    committed = ended(database, "COMMIT")

    await migrate(database)

    assert len(committed) == len([each for each in revisions() if each > "0012"])
    for each in (old, database):
        await each.close()


def imports(file: Path) -> Iterator[str]:
    """Yield the modules that a module imports from."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("file", VERSIONS, ids=lambda file: file.stem)
def test_a_migration_imports_no_live_code(file: Path) -> None:
    assert {name for name in imports(file) if name.startswith(("runstate", "."))} <= {FROZEN}


def test_the_frozen_types_import_no_live_code() -> None:
    assert not [name for name in imports(SCRIPTS / "types.py") if name.startswith(("runstate", "."))]


@pytest.mark.parametrize("table", Base.metadata.sorted_tables, ids=str)
def test_indexes_consist_of_columns(table: sa.Table) -> None:
    """Check that no index is on an expression.

    SQLAlchemy does not reflect such an index on SQLite, so a rebuilt table would lose it.
    """
    assert all(isinstance(each, sa.Column) for index in table.indexes for each in index.expressions)
